"""An outcome takes few round trips, and what it answers without reading is what is stored."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from dialler.model.v1 import call_state_pb2
from sqlalchemy import event, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from servicekit.errors import Conflict
from tests.fakes.clock import FakeClock
from tests.fakes.user_facts import give_phones, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

# Outcomes after which a person may be called again.
_OUTCOMES = (
    call_state_pb2.OUTCOME_GOING_TO_COMPLETE,
    call_state_pb2.OUTCOME_MIGHT_COMPLETE,
    call_state_pb2.OUTCOME_CALL_BACK,
    call_state_pb2.OUTCOME_NO_ANSWER,
    call_state_pb2.OUTCOME_MISSED_CALL,
    call_state_pb2.OUTCOME_HUNG_UP,
)
_LAST = (
    call_state_pb2.OUTCOME_BAD_NUMBER,
    call_state_pb2.OUTCOME_NO_CLAIM,
    call_state_pb2.OUTCOME_NOT_INTERESTED,
    call_state_pb2.OUTCOME_DO_NOT_CONTACT,
)
_NO_ANSWER = call_state_pb2.OUTCOME_NO_ANSWER
_CALL_BACK = call_state_pb2.OUTCOME_CALL_BACK


@contextmanager
def _statements() -> Iterator[list[str]]:
    """Collect the statements of transactions that record an outcome."""
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.mark.parametrize("outcome", [_NO_ANSWER, _CALL_BACK])
async def test_an_outcome_locks_reads_and_writes_in_a_statement_each(
    desk: Desk, outcome: call_state_pb2.Outcome.ValueType
) -> None:
    await desk.fill(give_phones(unsigned(1), "+447700900001", "+447700900002"))
    await desk.fill(give_phones(unsigned(2), "+447700900002"))
    held = (await desk.claim("agent")).assignment
    with _statements() as seen:
        await desk.record(held, outcome)
    ours = [it for it in seen if "queue.requests" in it or "array_agg" in it]
    assert len(ours) == 3, ours
    # No other statement is the outcome's: none of its tables is written or locked elsewhere.
    others = [it for it in seen if it not in ours]
    tables = ("queue.attempts", "queue.assignments SET", "queue.audit", "queue.conversions")
    assert not [it for it in others if any(table in it for table in tables)]


@pytest.mark.parametrize("seed", range(3))
async def test_what_an_outcome_answers_is_what_is_stored(
    desk: Desk, clock: FakeClock, seed: int
) -> None:
    """Random calls to people who share lines: each answer equals a reading of the tables."""
    chosen = random.Random(seed)
    phones = ["+447700900001", "+447700900002", "+447700900003"]
    people = [unsigned(number) for number in range(1, 7)]
    await desk.fill(*(give_phones(it, *chosen.sample(phones, 2)) for it in people))
    calls = 0
    for turn in range(40):
        # Calls that end at the same moment have no order.
        clock.advance(1)
        claimed = await desk.claim("agent")
        if not claimed.HasField("assignment"):
            clock.advance(timedelta(hours=chosen.choice([1, 5, 30])))
            await asyncio.sleep(0.05)
            continue
        held = claimed.assignment
        outcome = chosen.choice(_OUTCOMES if turn < 36 else _LAST)
        if chosen.random() < 0.3:
            # The call is kept without a report before it is reported.
            await desk.heartbeat(held)
            clock.advance(150)
            await until(lambda held=held: desk.state(held.user_id), lambda it: it.state != 3)  # type: ignore[misc]
        try:
            answer = await desk.record(held, outcome, notes="noted")
        except Conflict:
            continue
        calls += 1
        stored = await desk.state(held.user_id)
        assert answer.call_state == stored
        assert len(stored.recent_attempts) == min(10, stored.attempts)
    assert calls >= 5


@pytest.mark.parametrize("locked", ["assignments", "entries"])
async def test_an_outcome_that_waits_for_a_lock_judges_what_was_written_meanwhile(
    desk: Desk, tables: Tables, queue_url: str, locked: str
) -> None:
    """Here another transaction hands the person to the next agent: the report comes too late."""
    await desk.fill(unsigned(1))
    held = (await desk.claim("agent")).assignment
    engine = create_async_engine(queue_url, poolclass=NullPool)
    async with engine.begin() as other:
        if locked == "assignments":
            sql = "UPDATE queue.assignments SET ended_at = now(), ending = 2"
        else:
            sql = "UPDATE queue.entries SET fence = fence + 1"
        await other.execute(text(sql))
        report = asyncio.create_task(desk.record(held, _NO_ANSWER))

        async def waiting() -> int:
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return int(await tables.value(f"{waits} AND datname = current_database()"))

        assert await until(waiting, bool)
    with pytest.raises(Conflict) as refusal:
        await report
    assert refusal.value.reason == "ASSIGNMENT_NOT_LIVE"
    assert await tables.value("SELECT count(*) FROM queue.attempts") == 0
    assert (
        await tables.value("SELECT count(*) FROM queue.requests WHERE method LIKE '%Outcome%'") == 0
    )
    await engine.dispose()
