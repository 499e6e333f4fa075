"""Of a long transaction no more is in memory than the backlog's limit."""

import asyncio
import threading

import pytest

from services.binlog_relay.domain.packing import PackingLimits, RowChange
from services.binlog_relay.publish.backlog import BacklogClosedError, SendBacklog

LIMITS = PackingLimits(max_records_per_message=10, max_message_bytes=4_000, max_request_bytes=8_000)
CHANGE = RowChange(b"x" * 1_000, 1, 1)
MOST = 20_000


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
        taken += (await backlog.take()).records
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
