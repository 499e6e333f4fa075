"""Complaints are noted once, by a supervisor, of people who are known."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from servicekit.errors import InvalidArgument, NotFound
from services.queue.wire.messages import timestamp
from tests.fakes.clock import FakeClock
from tests.fakes.user_facts import unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration


async def _noted(desk: Desk) -> list[str]:
    entries = await desk.audit(user_id=1)
    return [it.action for it in reversed(entries) if it.action.startswith("COMPLAINT")]


async def test_a_complaint_is_opened_and_closed(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    began = clock.now()
    opened = await desk.complain(1)
    assert (opened.is_open, opened.opened_at) == (True, timestamp(began))
    assert not opened.HasField("closed_at")
    clock.advance(timedelta(days=9))
    # Said again, it has been open since the same moment.
    assert await desk.complain(1) == opened
    closed = await desk.complain(1, is_open=False)
    assert (closed.is_open, closed.opened_at) == (False, opened.opened_at)
    assert closed.closed_at == timestamp(clock.now())
    clock.advance(timedelta(days=1))
    assert await desk.complain(1, is_open=False) == closed
    another = await desk.complain(1)
    assert (another.is_open, another.opened_at) == (True, timestamp(clock.now()))
    assert await _noted(desk) == ["COMPLAINT_OPENED", "COMPLAINT_CLOSED", "COMPLAINT_OPENED"]


async def test_a_repeated_request_gets_the_first_answer(desk: Desk, tables: Tables) -> None:
    await desk.fill(unsigned(1))
    key = str(uuid4())
    opened = await desk.complain(1, request_id=key)
    await desk.complain(1, is_open=False)
    assert await desk.complain(1, request_id=key) == opened
    assert await tables.value("SELECT closed_at IS NOT NULL FROM queue.complaints")
    with pytest.raises(InvalidArgument, match="REQUEST_ID_REUSED"):
        await desk.complain(1, is_open=False, request_id=key)


async def test_several_who_say_so_at_once_open_one(desk: Desk) -> None:
    await desk.fill(unsigned(1))
    answers = await asyncio.gather(*(desk.complain(1) for _ in range(5)))
    assert len({it.SerializeToString() for it in answers}) == 1
    assert await _noted(desk) == ["COMPLAINT_OPENED"]


async def test_closing_where_none_is_open_changes_nothing(desk: Desk, tables: Tables) -> None:
    await desk.fill(unsigned(1))
    answer = await desk.complain(1, is_open=False)
    assert not answer.is_open
    assert not answer.HasField("opened_at")
    assert await tables.value("SELECT count(*) FROM queue.complaints") == 0
    assert await _noted(desk) == []


async def test_a_complaint_of_a_person_who_is_not_known_is_refused(desk: Desk) -> None:
    with pytest.raises(NotFound) as raised:
        await desk.complain(1)
    assert raised.value.reason == "USER_UNKNOWN"
