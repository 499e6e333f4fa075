"""Of a long transaction no more is in memory than the backlog's limit."""

import asyncio
import threading

import pytest

from services.binlog_relay.domain.packing import (
    BulkRows,
    Gap,
    Heartbeat,
    PackingLimits,
    RowChange,
    TransactionEnd,
)
from services.binlog_relay.domain.positions import BinlogPosition
from services.binlog_relay.publish.backlog import BacklogClosedError, SendBacklog, SendLane

LIMITS = PackingLimits(max_records_per_message=10, max_message_bytes=4_000, max_request_bytes=8_000)
CHANGE = RowChange(b"x" * 1_000, 1, 1)
MOST = 20_000
END = BinlogPosition("server", "binlog.1", 4)


def bulk(name: str, committed_at_us: int = 5) -> BulkRows:
    change = RowChange(name.encode(), 9, committed_at_us, rows=3)
    return BulkRows(2_000, committed_at_us, lambda: change)


async def test_a_change_behind_a_bulk_transaction_overtakes_it_and_says_so() -> None:
    backlog = SendBacklog(MOST, LIMITS)
    backlog.put([bulk("a"), bulk("b", 6), CHANGE])
    lone = await backlog.take(SendLane.FRESH)
    assert [message.unsent_since_us for message in lone.messages] == [5]
    assert not lone.messages[0].is_bulk
    rows = await backlog.take(SendLane.BULK)
    assert [message.body() for message in rows.messages] == ["[a,b]"]
    assert (rows.rows, rows.messages[0].is_bulk) == (6, True)
    assert rows.messages[0].unsent_since_us is None
    assert backlog.waiting_bytes == 0
    # Taken is not published.
    backlog.put([CHANGE])
    assert (await backlog.take(SendLane.FRESH)).messages[0].unsent_since_us == 5
    backlog.published(rows)
    backlog.put([CHANGE])
    assert (await backlog.take(SendLane.FRESH)).messages[0].unsent_since_us is None


async def test_no_position_and_no_heartbeat_passes_a_bulk_transaction_that_is_not_sent() -> None:
    backlog = SendBacklog(MOST, LIMITS)
    backlog.put([bulk("a"), Gap("why"), TransactionEnd(END), CHANGE])
    backlog.put_heartbeat(Heartbeat(1, 1))
    backlog.published(await backlog.take(SendLane.FRESH))
    reached = backlog.progress()
    # A gap is known at once, whatever waits before it.
    assert (reached.gaps, reached.position, reached.heartbeat) == (["why"], None, None)
    backlog.published(await backlog.take(SendLane.BULK))
    reached = backlog.progress()
    assert (reached.gaps, reached.position, reached.heartbeat) == ([], END, Heartbeat(1, 1))


async def test_rows_that_do_not_fit_a_request_wait_for_the_next_in_order() -> None:
    backlog = SendBacklog(10**6, LIMITS)
    names = [f"{number:03}" * 500 for number in range(9)]
    backlog.put([bulk(name) for name in names])
    found: list[str] = []
    while len(found) < len(names):
        request = await backlog.take(SendLane.BULK)
        assert sum(len(message.body()) for message in request.messages) <= 8_000
        found += [each.body.decode() for message in request.messages for each in message.changes]
        backlog.published(request)
    assert found == names
    assert backlog.waiting_bytes == 0


async def test_reading_waits_while_the_backlog_is_full_and_goes_on_as_it_empties() -> None:
    backlog = SendBacklog(MOST, LIMITS)
    highest = 0

    def read() -> None:
        for _ in range(200):
            backlog.put([CHANGE])

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    taken = 0
    while taken < 200:
        highest = max(highest, backlog.waiting_bytes)
        taken += (await backlog.take(SendLane.FRESH)).rows
    reader.join()
    assert taken == 200
    # What is put at once is taken in whole.
    assert highest <= MOST + len(CHANGE.body)


async def test_a_waiting_reader_is_freed_when_the_backlog_is_closed() -> None:
    backlog = SendBacklog(MOST, LIMITS)
    backlog.put([CHANGE] * 20)
    waiting = asyncio.get_running_loop().run_in_executor(None, backlog.put, [CHANGE])
    backlog.close()
    with pytest.raises(BacklogClosedError):
        await waiting
