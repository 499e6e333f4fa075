"""Applying facts: entering, moving and leaving queues, conversions, late and repeated readings."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from dialler.model.v1 import call_state_pb2, change_pb2, event_pb2
from dialler.queue.v1 import queue_pb2
from sqlalchemy import event, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from servicekit.errors import InvalidArgument
from servicekit.event_stream import EventStream
from services.queue.store.database import PHONES_GUARD
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import done, give_phones, outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

UNSIGNED = call_state_pb2.QUEUE_UNSIGNED_USERS
OUTSTANDING = call_state_pb2.QUEUE_OUTSTANDING_REQUESTS
READY = call_state_pb2.ENTRY_STATE_READY
WAITING = call_state_pb2.ENTRY_STATE_WAITING
OUT = call_state_pb2.ENTRY_STATE_OUT


async def test_all_people_are_placed_by_their_facts(queue: RunningQueue, desk: Desk) -> None:
    queue.main_app.put(unsigned(1), outstanding(2), done(3))
    answer = await desk.apply(1, 2, 3, 4)
    assert (answer.applied, answer.outdated, answer.moved, answer.conversions) == (4, 0, 2, 0)
    found = [await desk.state(user_id) for user_id in (1, 2, 3, 4, 5)]
    assert [it.queue for it in found] == [UNSIGNED, OUTSTANDING, 0, 0, 0]
    assert [it.state for it in found] == [READY, READY, OUT, OUT, 0]
    assert [it.reason for it in found] == [
        "NO_SIGNATURE",
        "REQUIREMENT_PENDING",
        "NOTHING_OUTSTANDING",
        "USER_NOT_FOUND",
        "",
    ]
    assert found[0].HasField("next_call_at") is False
    assert found[4].version == 0


async def test_a_signature_moves_and_converts_once(desk: Desk, queue: RunningQueue) -> None:
    await desk.fill(unsigned(1))
    queue.main_app.put(outstanding(1))
    answer = await desk.apply(1)
    assert (answer.moved, answer.conversions) == (1, 1)
    assert (await desk.state(1)).queue == OUTSTANDING
    again = await desk.apply(1)
    assert (again.applied, again.moved, again.conversions) == (1, 0, 0)
    assert (await desk.stats()).conversions_today == 1


async def test_earlier_and_repeated_readings_are_ignored(desk: Desk, queue: RunningQueue) -> None:
    queue.main_app.put(unsigned(1))
    earlier = queue.main_app.drawn([1])
    queue.main_app.put(done(1))
    later = queue.main_app.drawn([1])
    for facts, applied in ((later, 1), (later, 0), (earlier, 0)):
        request = queue_pb2.ApplyUserFactsRequest(facts=facts)
        answer = await queue.stub.ApplyUserFacts(request)
        assert (answer.applied, answer.outdated) == (applied, 1 - applied)
    assert (await desk.state(1)).state == OUT


async def test_readings_in_any_order_from_many_at_once_end_at_the_latest(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    """Concurrent batches overlap, come late and come twice; the last reading wins everywhere."""
    chance = random.Random(7)
    kinds = (unsigned, outstanding, done)
    user_ids = range(1, 31)
    requests = []
    for _ in range(12):
        queue.main_app.put(*(chance.choice(kinds)(user_id) for user_id in user_ids))
        some = chance.sample(user_ids, 20)
        requests.append(queue_pb2.ApplyUserFactsRequest(facts=queue.main_app.drawn(some)))
    latest = queue_pb2.ApplyUserFactsRequest(facts=queue.main_app.drawn(list(user_ids)))
    late = [*requests, latest, *chance.sample(requests, 4)]
    chance.shuffle(late)
    await asyncio.gather(*(queue.stub.ApplyUserFacts(request) for request in late))
    rows = await tables.rows(
        "SELECT user_id, facts_version, queue, open_case_queue FROM queue.entries"
    )
    expected = {facts.user_id: facts for facts in latest.facts}
    assert len(rows) == 30
    for user_id, version, at_queue, case_queue in rows:
        facts = expected[user_id]
        pending = facts.claims[0].requirements[0].status == "PENDING"
        right = OUTSTANDING if facts.has_signature and pending else None
        right = right if facts.has_signature else UNSIGNED
        assert (version, at_queue, case_queue) == (facts.version, right, right)


async def test_a_conversion_that_two_notice_at_once_is_recorded_once(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    people = range(1, 21)
    await desk.fill(*(unsigned(user_id) for user_id in people))
    queue.main_app.put(*(done(user_id) for user_id in people))
    # Change capture, a sweep, and agents whose live check notices it.
    answers = await asyncio.gather(
        *(desk.apply(*people) for _ in range(3)),
        *(desk.claim(f"agent-{number}") for number in range(5)),
    )
    applied = [it for it in answers if isinstance(it, queue_pb2.ApplyUserFactsResponse)]
    assert sum(it.conversions for it in applied) <= 20
    rows = await tables.rows(
        "SELECT user_id, case_number, conversion FROM queue.conversions ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [(user_id, 1, 1) for user_id in people]
    assert not any(it.HasField("assignment") for it in answers[3:])


async def test_the_last_who_spoke_to_a_person_is_credited(
    queue: RunningQueue, desk: Desk, tables: Tables, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    claimed = await desk.claim("first")
    await desk.record(claimed.assignment, call_state_pb2.OUTCOME_HUNG_UP)
    clock.advance(timedelta(hours=4))
    await desk.becomes(1, READY)
    claimed = await desk.claim("second")
    await desk.record(claimed.assignment, call_state_pb2.OUTCOME_NO_ANSWER)
    queue.main_app.put(done(1))
    await desk.apply(1)
    assert await tables.value("SELECT agent_id FROM queue.conversions") == "first"


async def test_a_person_who_just_registered_cools_and_is_promoted(
    desk: Desk, clock: FakeClock, stream: EventStream
) -> None:
    start = await stream.position()
    await desk.fill(unsigned(1, created_at=clock.now()))
    state = await desk.state(1)
    assert state.state == WAITING
    assert state.next_call_at.ToSeconds() == (clock.now() + timedelta(hours=2)).timestamp()
    empty = (await desk.claim("agent")).empty
    assert (empty.waiting, empty.assigned) == (1, 0)
    assert empty.next_due_at == state.next_call_at
    clock.advance(timedelta(hours=2))
    promoted = await desk.becomes(1, READY)
    assert not promoted.HasField("next_call_at")
    assert promoted.version > state.version
    ((_, told),) = await stream.read(start, block_seconds=4, count=10)
    assert (told.type, told.user_id) == (event_pb2.EVENT_TYPE_ENTRY_MOVED, 1)
    assert told.state == READY
    assert (await desk.claim("agent")).assignment.user_id == 1


async def test_frozen_people_are_handed_to_no_agent_and_leave(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    clock.advance(timedelta(weeks=40))
    # Whether or not the sweep has been here.
    assert not (await desk.claim("agent")).HasField("assignment")
    frozen = await desk.becomes(1, OUT)
    assert (frozen.queue, frozen.reason, frozen.score) == (0, "FROZEN", 200)
    queue.main_app.put(outstanding(1))
    await desk.apply(1)
    thawed = await desk.state(1)
    assert (thawed.queue, thawed.state, thawed.score) == (OUTSTANDING, READY, 0)


async def test_ageing_shows_in_the_score(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    clock.advance(timedelta(weeks=3))
    assert (await desk.state(1)).score == pytest.approx(15)


async def test_a_first_fill_is_silent_and_a_change_is_not(
    desk: Desk, queue: RunningQueue, stream: EventStream
) -> None:
    start = await stream.position()
    await desk.fill(*(unsigned(user_id) for user_id in range(1, 101)))
    timeline = change_pb2.ChangeTimeline()
    timeline.committed_at.FromSeconds(1_700_000_000)
    queue.main_app.put(unsigned(200))
    await desk.apply(200, timeline=timeline)
    told = await stream.read(start, block_seconds=4, count=100)
    assert [(it.user_id, it.type) for _, it in told] == [
        (200, event_pb2.EVENT_TYPE_CONTEXT_CHANGED),
        (200, event_pb2.EVENT_TYPE_ENTRY_MOVED),
    ]
    assert all(it.timeline.committed_at == timeline.committed_at for _, it in told)
    assert all(it.timeline.HasField("applied_at") for _, it in told)
    assert (told[1][1].queue_before, told[1][1].queue_after) == (0, UNSIGNED)
    await until(
        lambda: _soon(queue.main_app.invalidated), lambda it: set(it) == {*range(1, 101), 200}
    )


async def _soon(value: dict[int, int]) -> dict[int, int]:
    return dict(value)


async def test_facts_that_say_nothing_new_make_no_event_and_no_new_version(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(unsigned(1))
    before = (await desk.state(1)).version
    await desk.apply(1)
    assert (await desk.state(1)).version == before
    version = await tables.value("SELECT facts_version FROM queue.entries")
    assert version == queue.main_app.version
    assert await tables.value("SELECT count(*) FROM queue.outbox") == 0


@contextmanager
def _counting_statements() -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if any(name in statement for name in ("entries", "conversions", "outbox (event)")):
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def test_facts_wait_for_an_objection_that_is_being_recorded_and_obey_it(
    desk: Desk, tables: Tables, queue_url: str
) -> None:
    number = "+447700900123"
    await desk.fill(unsigned(1))
    engine = create_async_engine(queue_url, poolclass=NullPool)
    async with engine.begin() as other:
        await other.execute(text("SELECT pg_advisory_xact_lock(:it)"), {"it": PHONES_GUARD})
        applying = asyncio.create_task(desk.fill(give_phones(unsigned(1), number)))

        async def waiting() -> int:
            waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            return int(await tables.value(waits))

        assert await until(waiting, bool)
        await other.execute(
            text(
                "WITH made AS (INSERT INTO queue.suppressions"
                " (suppression_id, created_by, created_at, notes)"
                " VALUES (gen_random_uuid(), 'agent', now(), '') RETURNING suppression_id)"
                " INSERT INTO queue.suppression_lines (phone_e164, suppression_id)"
                " SELECT :number, suppression_id FROM made"
            ),
            {"number": number},
        )
    await applying
    assert (await desk.state(1)).reason == "PHONE_SUPPRESSED"
    await engine.dispose()


async def test_the_number_of_statements_does_not_depend_on_the_number_of_people(
    queue_url: str, redis_url: str
) -> None:
    counts = []
    # Loops that hardly ever run, so that only the applying counts.
    still: dict[str, Any] = dict.fromkeys(
        ("promotion_interval_seconds", "lease_sweep_interval_seconds"), 3600.0
    )
    async with running_queue(queue_url, redis_url, **still) as running:
        bench = Desk(running)
        await until(bench.stats, lambda _: True)
        for people in (range(1, 2), range(10, 510)):
            await bench.fill(*(unsigned(user_id) for user_id in people))
            running.main_app.put(*(outstanding(user_id) for user_id in people))
            with _counting_statements() as seen:
                answer = await bench.apply(*people)
            assert answer.conversions == len(people)
            counts.append(len([it for it in seen if "LIMIT" not in it]))
        numbers = {it: f"+4477009{it:05d}" for it in range(10, 510)}
        with _counting_statements() as seen:
            await bench.fill(*(give_phones(outstanding(it), numbers[it]) for it in numbers))
    assert counts[0] == counts[1]
    # One that locks, one that reads and notes the numbers, one that writes.
    others = ("SKIP LOCKED", "LIMIT 0")
    assert len([it for it in seen if not any(name in it for name in others)]) == 3, seen


@pytest.mark.parametrize(
    ("user_id", "reason"), [(0, "USER_ID_MISSING"), (2**63, "USER_ID_TOO_LARGE")]
)
async def test_ids_that_no_person_has(desk: Desk, user_id: int, reason: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await desk.apply(user_id)
    assert raised.value.reason == reason


async def test_the_largest_batch_is_taken_and_a_larger_one_refused(desk: Desk) -> None:
    assert (await desk.apply(*range(1, 1001))).applied == 1000
    with pytest.raises(InvalidArgument):
        await desk.apply(*range(1, 1002))
    assert (await desk.apply()).applied == 0


async def test_the_largest_id_is_kept(desk: Desk) -> None:
    await desk.fill(unsigned(2**63 - 1))
    assert (await desk.claim("agent")).assignment.user_id == 2**63 - 1
