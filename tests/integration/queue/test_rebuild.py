"""A rebuild applies the main app and the rules to all people, and the queue is whole meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from dialler.model.v1 import call_state_pb2
from dialler.model.v1.facts_pb2 import UserFacts
from dialler.queue.v1 import queue_pb2

from servicekit.errors import Conflict, Unavailable
from services.queue.rules import DEFAULT_PATH
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_context import FakeUserContext
from tests.fakes.user_facts import done, give_phones, outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY
ASSIGNED = call_state_pb2.ENTRY_STATE_ASSIGNED
OUT = call_state_pb2.ENTRY_STATE_OUT
SUPPRESSED = call_state_pb2.ENTRY_STATE_SUPPRESSED
PHASE_DONE = queue_pb2.REBUILD_PHASE_DONE

# All that applying facts one by one and rebuilding must agree on; not versions, nor moments of
# the machine that differ between two runs.
_PLACES = (
    "SELECT user_id, phones, lines, time_zone, eligible_queue, eligible_reason, open_case_queue,"
    " case_number, queue, state, reason, hold, rank_key, due_at, entered_at, outcome_points,"
    " attempt_points, lender_points, age_points, age_points_until, claimed_at, rest_until,"
    " phone_block, block"
    " FROM queue.entries ORDER BY user_id"
)


# 0 once the rules of that rate are in force and all people are placed by them.
_UNAPPLIED = (
    "SELECT 1 - count(*) FROM queue.rule_editions"
    " WHERE points_per_week = :rate AND applied_at IS NOT NULL"
)


def _any_person(user_id: int, dice: random.Random) -> UserFacts:
    facts: UserFacts = dice.choice((unsigned, outstanding, done))(user_id)
    facts.is_enabled = dice.random() < 0.9
    if dice.random() < 0.2:
        facts.status = dice.choice(("inactive", "active", "Inactive "))
    if dice.random() < 0.2:
        give_phones(facts)
    if dice.random() < 0.2:
        give_phones(facts, f"+3021012345{user_id % 100:02d}")
    if dice.random() < 0.3:
        facts.date_of_birth = f"{dice.randint(1930, 2005)}-0{dice.randint(1, 9)}-15"
    if dice.random() < 0.2:
        facts.ClearField("created_at")
        facts.claims[0].ClearField("created_at")
    for _ in range(dice.randint(0, 2)):
        facts.claims.add(claim_id=user_id * 10, lender=dice.choice(("Alpha", "beta ", "Gamma")))
        if dice.random() < 0.5:
            facts.claims[-1].status = dice.choice(("complete", "cancelled", "open"))
        facts.claims[-1].created_at.FromSeconds(dice.randint(1_600_000_000, 1_700_000_000))
    if dice.random() < 0.1:
        del facts.claims[:]
    return facts


def _rules(path: Path, **score: object) -> Path:
    content = yaml.safe_load(DEFAULT_PATH.read_text(encoding="utf-8"))
    content["score"] |= score
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


async def test_a_rebuild_from_nothing_ends_where_facts_one_by_one_end(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    dice = random.Random(7)
    people = [_any_person(user_id, dice) for user_id in range(1, 60)]
    queue.main_app.put(*people)
    await desk.import_phones(b"07700900003\n07700900005\n")
    told = await desk.rebuild()
    rebuilt = await tables.rows(_PLACES)
    assert (told[-1].phase, told[-1].people_read, told[-1].people_new) == (PHASE_DONE, 59, 59)
    assert told[-1].through_user_id == told[-1].last_user_id == 59
    await tables.rows("DELETE FROM queue.entries")
    await desk.fill(*people)
    assert rebuilt == await tables.rows(_PLACES)


async def test_a_rebuild_puts_right_what_no_event_told_of(
    desk: Desk, queue: RunningQueue, clock: FakeClock, tables: Tables
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 9)))
    await desk.record((await desk.claim("ann")).assignment, call_state_pb2.OUTCOME_HUNG_UP)
    held = (await desk.claim("ben")).assignment
    disabled = unsigned(5)
    disabled.is_enabled = False
    queue.main_app.put(outstanding(8), done(6), disabled, unsigned(20))
    del queue.main_app.people[4]
    before = await tables.rows("SELECT user_id, state_version FROM queue.entries")
    told = (await desk.rebuild())[-1]
    assert (told.people_read, told.people_new) == (8, 1)
    assert (told.people_different, told.conversions) == (4, 2)
    found = {it: await desk.state(it) for it in (8, 6, 5, 4, 20)}
    assert found[8].queue == call_state_pb2.QUEUE_OUTSTANDING_REQUESTS
    reasons = [found[it].reason for it in (6, 5, 4)]
    assert reasons == ["NOTHING_OUTSTANDING", "USER_DISABLED", "USER_NOT_FOUND"]
    assert found[20].state == READY
    # People who do not differ were not written.
    after = await tables.rows("SELECT user_id, state_version FROM queue.entries")
    same = {tuple(row) for row in before} & {tuple(row) for row in after}
    assert {row[0] for row in same} == {1, 2, 3, 7}
    assert (await desk.current("ben")).user_id == held.user_id == 7
    credited = await tables.rows("SELECT user_id, agent_id FROM queue.conversions ORDER BY 1")
    assert [tuple(row) for row in credited] == [(6, None), (8, "ann")]
    assert (await desk.rebuild())[-1].people_different == 0


async def test_live_assignments_are_left_alone(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    held = (await desk.claim("agent")).assignment
    disabled = unsigned(held.user_id)
    disabled.is_enabled = False
    queue.main_app.put(disabled)
    await desk.rebuild()
    assert await desk.current("agent") == held
    assert (await desk.state(held.user_id)).state == ASSIGNED
    after = await desk.record(held, call_state_pb2.OUTCOME_HUNG_UP)
    assert (after.call_state.state, after.call_state.reason) == (OUT, "USER_DISABLED")


async def test_the_queue_is_never_empty_or_half_built_meanwhile(
    desk: Desk, queue: RunningQueue
) -> None:
    """After every block the test looks: no new person is there until all of them are."""
    await desk.fill(*(unsigned(it) for it in range(1, 5)))
    queue.main_app.put(*(unsigned(it) for it in range(5, 31)))
    seen: list[int] = []

    async def look(_: object) -> None:
        seen.append((await desk.stats()).queues[0].ready)

    queue.main_app.after_block = look
    await desk.rebuild()
    assert set(seen) == {4}
    assert (await desk.stats()).queues[0].ready == 30


async def test_a_change_during_a_rebuild_wins_over_what_the_rebuild_has_read(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    queue.main_app.put(outstanding(1), unsigned(3))

    async def changed(read: object) -> None:
        if read == [1, 2]:
            queue.main_app.put(done(1), done(3))
            await desk.apply(1, 3)

    queue.main_app.after_block = changed
    await desk.rebuild()
    assert (await desk.state(1)).state == OUT
    assert (await desk.state(3)).state == OUT


async def test_there_is_one_rebuild_at_a_time(desk: Desk, queue: RunningQueue) -> None:
    queue.main_app.put(unsigned(1))
    entered, may_end = asyncio.Event(), asyncio.Event()

    async def wait(_: object) -> None:
        entered.set()
        await may_end.wait()

    queue.main_app.after_block = wait
    first = asyncio.create_task(desk.rebuild())
    await entered.wait()
    with pytest.raises(Conflict) as raised:
        await desk.rebuild()
    assert raised.value.reason == "REBUILD_UNDER_WAY"
    may_end.set()
    assert (await first)[-1].phase == PHASE_DONE


async def test_a_main_app_that_goes_away_leaves_the_queue_as_it_was(
    desk: Desk, queue: RunningQueue
) -> None:
    await desk.fill(unsigned(1))
    queue.main_app.put(unsigned(2), unsigned(3), unsigned(4))
    queue.main_app.is_unavailable = True
    with pytest.raises(Unavailable):
        await desk.rebuild()
    assert (await desk.stats()).queues[0].ready == 1
    queue.main_app.is_unavailable = False
    assert (await desk.rebuild())[-1].people_new == 3


_READ = """SELECT phones FROM queue.rebuilt_people
    UNION ALL SELECT phones FROM queue.rebuilt_entries"""


async def _forgotten(queue: RunningQueue) -> int:
    done = (await queue.stub.PurgeExpired(queue_pb2.PurgeExpiredRequest())).done
    return done["rebuild_leftovers_deleted"]


async def test_what_a_rebuild_without_an_end_has_read_is_forgotten(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    """Else people erased since would stay there, with their numbers, until the next one."""
    await desk.fill(unsigned(1))
    queue.main_app.put(unsigned(2), unsigned(3), unsigned(4))

    async def fail(_: object) -> None:
        raise Unavailable("MAIN_APP_UNAVAILABLE", "away")

    queue.main_app.after_block = fail
    with pytest.raises(Unavailable):
        await desk.rebuild()
    left = await tables.rows(_READ)
    assert left
    assert await _forgotten(queue) == len(left)
    assert await tables.rows(_READ) == []
    assert await _forgotten(queue) == 0


async def test_what_a_rebuild_under_way_has_read_is_left_alone(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    queue.main_app.put(*(unsigned(it) for it in range(1, 31)))
    forgotten: list[int] = []

    async def purge_expired(_: object) -> None:
        forgotten.append(await _forgotten(queue))

    queue.main_app.after_block = purge_expired
    assert (await desk.rebuild())[-1].people_new == 30
    assert len(forgotten) > 1
    assert not any(forgotten)


@pytest.fixture
async def ruled(
    queue_url: str, redis_url: str, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[tuple[RunningQueue, Path]]:
    """A queue whose rules file is ours to change."""
    path = _rules(tmp_path / "rules.yaml")
    async with running_queue(
        queue_url,
        redis_url,
        clock=clock,
        rules_path=path,
        rules_interval_seconds=0.02,
        promotion_interval_seconds=0.02,
    ) as running:
        yield running, path


async def test_other_rules_take_effect_without_a_restart_and_for_all_people(
    ruled: tuple[RunningQueue, Path],
) -> None:
    running, path = ruled
    desk = Desk(running)
    slow = unsigned(1)
    slow.claims[0].lender = "Alpha Finance"
    await desk.fill(slow, unsigned(2))
    assert (await desk.explain(2)).people_ahead == 0
    _rules(path, lenders={"alpha finance": -50})
    first = await until(lambda: desk.explain(1), lambda it: it.score == -50)
    assert first.people_ahead == 0
    await until(lambda: desk.explain(2), lambda it: it.people_ahead == 1)
    assert (await desk.claim("agent")).assignment.user_id == 1


async def test_another_rate_of_ageing_freezes_no_person_and_keeps_the_order(
    ruled: tuple[RunningQueue, Path], clock: FakeClock, tables: Tables
) -> None:
    running, path = ruled
    desk = Desk(running)
    for user_id in (1, 2, 3):
        await desk.fill(unsigned(user_id))
        clock.advance(timedelta(days=3))
    for rate in (9, 2):
        _rules(path, ageing_per_week=rate)

        async def unapplied(rate: int = rate) -> int:
            return int(await tables.value(_UNAPPLIED, rate=rate))

        await until(unapplied, lambda found: found == 0)
        clock.advance(timedelta(days=1))
        assert [(await desk.explain(it)).people_ahead for it in (3, 2, 1)] == [0, 1, 2]
        assert (await desk.stats()).queues[0].ready == 3
    factors = {it.factor: it for it in (await desk.explain(1)).factors}
    assert factors["AGEING"].words.startswith("2 points a week")


async def test_rules_that_are_not_valid_change_nothing(
    ruled: tuple[RunningQueue, Path],
) -> None:
    running, path = ruled
    desk = Desk(running)
    await desk.fill(unsigned(1))
    path.write_text("score: {fresh: 300}", encoding="utf-8")

    async def fresh() -> float:
        newest = max(running.main_app.people) + 1
        await desk.fill(unsigned(newest))
        return (await desk.state(newest)).score

    for _ in range(20):
        assert await fresh() == pytest.approx(0, abs=0.01)
    _rules(path, fresh=7)
    assert await until(fresh, lambda it: it > 1) == pytest.approx(7, abs=0.01)


async def test_rules_changed_while_the_queue_was_down_reach_all_people_at_the_next_start(
    queue_url: str, redis_url: str, clock: FakeClock, tmp_path: Path
) -> None:
    fake = FakeUserContext()  # type: ignore[abstract]
    path = _rules(tmp_path / "rules.yaml")
    async with running_queue(
        queue_url, redis_url, clock=clock, main_app=fake, rules_path=path
    ) as running:
        desk = Desk(running)
        await desk.fill(unsigned(1))
        for _ in range(3):
            held = (await desk.claim("agent")).assignment
            await desk.record(held, call_state_pb2.OUTCOME_MISSED_CALL)
        assert (await desk.state(1)).hold == call_state_pb2.HOLD_DAILY_CAP
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["calls"]["attempts_per_day"] = 5
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    async with running_queue(
        queue_url, redis_url, clock=clock, main_app=fake, rules_path=path
    ) as running:
        await Desk(running).becomes(1, READY)
