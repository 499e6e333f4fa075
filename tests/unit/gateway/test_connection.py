"""Writes of an answer: in order, and as few as there can be."""

import asyncio

from gateway.http.connection import PairedWrites


class RecordedTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed_after: int | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.is_closed_after = len(self.writes)


async def test_head_and_body_are_sent_together() -> None:
    transport = RecordedTransport()
    paired = PairedWrites(transport)

    paired.write(b"head ")
    paired.write(b"body")
    assert transport.writes == [b"head body"]

    await asyncio.sleep(0)
    assert transport.writes == [b"head body"]


async def test_a_head_is_sent_while_its_body_is_awaited() -> None:
    transport = RecordedTransport()
    paired = PairedWrites(transport)

    paired.write(b"head")
    paired.write(b"")
    await asyncio.sleep(0)

    assert transport.writes == [b"head"]


async def test_a_long_answer_is_not_held_back() -> None:
    """The transport could not tell the application to pause."""
    transport = RecordedTransport()
    paired = PairedWrites(transport)

    for _ in range(5):
        paired.write(b"x")

    assert len(b"".join(transport.writes)) == 4
    await asyncio.sleep(0)
    assert b"".join(transport.writes) == b"xxxxx"


async def test_all_is_sent_before_the_connection_is_closed() -> None:
    transport = RecordedTransport()
    paired = PairedWrites(transport)

    paired.write(b"head")
    paired.close()

    assert transport.writes == [b"head"]
    assert transport.is_closed_after == 1
    await asyncio.sleep(0)
    assert transport.writes == [b"head"]
