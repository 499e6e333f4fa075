"""One person, or one agent, at fault never holds up the others."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import Internal, Unavailable
from services.queue.rules import DEFAULT_PATH
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_context import FakeUserContext
from tests.fakes.user_facts import done, give_phones, outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

UNSIGNED = call_state_pb2.QUEUE_UNSIGNED_USERS
OUTSTANDING = call_state_pb2.QUEUE_OUTSTANDING_REQUESTS
OTHER_NUMBER = "+447700900555"
QUARANTINED = (
    "SELECT user_id FROM queue.entries WHERE reserved_until IS NOT NULL AND reserved_by IS NULL"
    " ORDER BY user_id"
)


async def _quarantined(tables: Tables) -> list[int]:
    return [row[0] for row in await tables.rows(QUARANTINED)]


@pytest.fixture
def rules_path() -> Path:
    return DEFAULT_PATH


@pytest.fixture
async def queue(
    queue_url: str, redis_url: str, clock: FakeClock, rules_path: Path, refreshes: "_Refreshes"
) -> Any:
    async with running_queue(
        queue_url,
        redis_url,
        clock=clock,
        main_app=refreshes,
        rules_path=rules_path,
        promotion_interval_seconds=0.02,
        # On a machine that is busy with other tests, too.
        live_check_seconds=5.0,
        housekeeping_interval_seconds=0.05,
    ) as running:
        yield running


class _Refreshes(FakeUserContext):
    """A main app whose refreshes may go wrong while its live reads work."""

    is_refresh_away = False
    unrefreshable: frozenset[int] = frozenset()
    # Refreshes read these people from a copy that lags behind.
    lagging: frozenset[int] = frozenset()

    async def RefreshUsers(self, request: Any, context: Any) -> Any:
        """Answer a refresh, or fail as the test wants it."""
        if self.is_refresh_away:
            raise Unavailable("MAIN_APP_UNAVAILABLE", "away on purpose")
        if not self.unrefreshable.isdisjoint(request.user_ids):
            raise Internal("DATABASE_ERROR", "a row that cannot be read")
        answer = await super().RefreshUsers(request, context)
        for facts in answer.facts:
            if facts.user_id in self.lagging:
                give_phones(facts, unsigned(facts.user_id).phone_e164)
        return answer


@pytest.fixture
def refreshes() -> _Refreshes:
    return _Refreshes()  # type: ignore[abstract]


async def test_agents_get_past_a_head_full_of_people_who_cannot_be_read(
    desk: Desk, queue: RunningQueue, clock: FakeClock, tables: Tables
) -> None:
    await desk.fill(*(unsigned(user_id) for user_id in range(1, 61)))
    faulty = queue.main_app.faulty = set(range(48, 61))
    answers = await asyncio.gather(desk.claim("a"), desk.claim("b"))
    held = {it.assignment.user_id for it in answers}
    assert len(held) == 2
    assert held < set(range(1, 48))
    assert await _quarantined(tables) == sorted(faulty)
    queue.main_app.faulty = set()
    clock.advance(timedelta(seconds=60))
    await until(lambda: _quarantined(tables), lambda it: not it)
    assert (await desk.claim("c")).assignment.user_id == 60


async def test_more_faulty_people_than_a_claim_tries_do_not_block_the_head_for_ever(
    desk: Desk, queue: RunningQueue
) -> None:
    """No person has been read before, so that the first claims must doubt the reader itself."""
    await desk.fill(*(unsigned(user_id) for user_id in range(1, 31)))
    queue.main_app.faulty = set(range(2, 31))
    with pytest.raises(Unavailable):
        await desk.claim("agent")
    assert (await _claimed_within(desk, 10)).assignment.user_id == 1


async def _claimed_within(desk: Desk, claims: int) -> queue_pb2.ClaimNextResponse:
    for _ in range(claims):
        try:
            return await desk.claim("agent")
        except Unavailable:
            continue
    raise AssertionError("the head is blocked")


async def test_that_another_person_can_be_read_proves_the_fault_to_be_theirs(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(*(unsigned(user_id) for user_id in range(1, 62)))
    assert (await desk.claim("first")).assignment.user_id == 61
    queue.main_app.faulty = set(range(2, 61))
    assert (await desk.claim("agent")).assignment.user_id == 1
    assert await _quarantined(tables) == list(range(2, 61))


async def test_a_reader_that_reads_no_person_costs_the_queue_next_to_nothing(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    all_people = range(1, 62)
    await desk.fill(*(unsigned(user_id) for user_id in all_people))
    assert (await desk.claim("first")).assignment.user_id == 61
    queue.main_app.faulty = set(all_people)
    with pytest.raises(Unavailable):
        await desk.claim("agent")
    # Of the twenty tried.
    assert await _quarantined(tables) == [58, 59, 60]
    # More agents at once than a claim tries people.
    answers = await asyncio.gather(
        *(desk.claim(f"agent-{it}") for it in range(40)), return_exceptions=True
    )
    assert {it.reason for it in answers if isinstance(it, Unavailable)} == {"MAIN_APP_UNAVAILABLE"}
    assert len(await _quarantined(tables)) < 30
    queue.main_app.faulty = set()
    assert (await desk.claim("agent")).HasField("assignment")


async def test_the_main_app_going_away_quarantines_no_person(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    queue.main_app.faulty = {2}

    async def go_away(_: Sequence[int]) -> None:
        queue.main_app.is_unavailable = len(queue.main_app.reads) >= 2

    # The reading after that of the faulty one.
    queue.main_app.before_read = go_away
    with pytest.raises(Unavailable):
        await desk.claim("agent")
    assert await _quarantined(tables) == []
    # Given back at once: no reservation lapses while the clock stands still.
    queue.main_app.before_read, queue.main_app.is_unavailable, queue.main_app.faulty = (
        None,
        False,
        set(),
    )
    assert (await desk.claim("agent")).assignment.user_id == 2


@pytest.mark.parametrize("trouble", ["away", "unreadable", "lagging"])
async def test_a_renumbered_person_whose_refresh_does_not_help_gives_way(
    desk: Desk, refreshes: _Refreshes, clock: FakeClock, tables: Tables, trouble: str
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 6)))
    renumbered = unsigned(5)
    give_phones(renumbered, OTHER_NUMBER)
    refreshes.put(renumbered)
    refreshes.is_refresh_away = trouble == "away"
    refreshes.unrefreshable = frozenset({5} if trouble == "unreadable" else ())
    refreshes.lagging = frozenset({5} if trouble == "lagging" else ())
    held = [(await desk.claim(f"agent-{it}")).assignment.user_id for it in range(3)]
    assert held == [4, 3, 2]
    assert await _quarantined(tables) == [5]
    refreshes.is_refresh_away, refreshes.unrefreshable = False, frozenset()
    refreshes.lagging = frozenset()
    clock.advance(60)
    await until(lambda: _quarantined(tables), lambda it: not it)
    assert (await desk.claim("last")).assignment.user_id == 5
    number = "SELECT lines FROM queue.assignments WHERE user_id = 5"
    assert await tables.value(number) == [OTHER_NUMBER]


async def test_one_whose_refresh_fails_keeps_no_conversion_of_another_from_being_recorded(
    desk: Desk, refreshes: _Refreshes, tables: Tables
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 9)))
    refreshes.put(*(done(it) for it in range(2, 9)))
    refreshes.unrefreshable = frozenset({6})
    assert (await desk.claim("agent")).assignment.user_id == 1
    converted = await tables.rows("SELECT user_id FROM queue.conversions ORDER BY user_id")
    assert [row[0] for row in converted] == [2, 3, 4, 5, 7, 8]
    assert await _quarantined(tables) == [6]


@pytest.mark.parametrize("how", ["RETURN NULL", "RAISE 'no call to this person'"])
async def test_a_person_whom_the_hand_out_itself_refuses_gives_way(
    desk: Desk, tables: Tables, how: str
) -> None:
    """Whatever PostgreSQL has against that assignment: it leaves it out, or fails over it."""
    await desk.fill(*(unsigned(it) for it in range(1, 6)))
    await tables.rows(
        "CREATE FUNCTION queue.refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN IF NEW.user_id = 4 THEN {how}; END IF; RETURN NEW; END $$"
    )
    await tables.rows(
        "CREATE TRIGGER refuse BEFORE INSERT ON queue.assignments"
        " FOR EACH ROW EXECUTE FUNCTION queue.refuse()"
    )
    answers = await asyncio.gather(*(desk.claim(f"agent-{it}") for it in range(4)))
    assert {it.assignment.user_id for it in answers} == {1, 2, 3, 5}
    assert await _quarantined(tables) == [4]


async def test_a_head_that_cannot_be_read_fails_no_agent_of_another_queue(
    desk: Desk, queue: RunningQueue
) -> None:
    """They are served in one batch, since they all wait for a claim under way."""
    await desk.fill(*(unsigned(it) for it in range(1, 31)), outstanding(40), outstanding(41))
    queue.main_app.faulty = set(range(1, 31))
    release = await _occupy(desk, queue, OUTSTANDING)
    claims = asyncio.gather(
        desk.claim("unlucky", UNSIGNED), desk.claim("lucky", OUTSTANDING), return_exceptions=True
    )
    unlucky, lucky = await claims
    release.set()
    assert isinstance(unlucky, Unavailable)
    assert isinstance(lucky, queue_pb2.ClaimNextResponse)
    assert lucky.assignment.user_id == 40


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE queue.requests SET response = '\\xff' WHERE agent_id = 'odd'",
        "UPDATE queue.agents SET allowed_queues = '{77}' WHERE agent_id = 'odd'",
    ],
)
async def test_an_agent_whose_records_cannot_be_read_fails_no_other(
    desk: Desk, queue: RunningQueue, tables: Tables, damage: str
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 6)))
    request_id = str(uuid4())
    await desk.claim("odd", request_id=request_id)
    await tables.rows(damage)
    release = await _occupy(desk, queue, UNSIGNED)
    odd, *others = await asyncio.gather(
        desk.claim("odd", request_id=request_id),
        desk.claim("a"),
        desk.claim("b"),
        return_exceptions=True,
    )
    release.set()
    assert isinstance(odd, Internal)
    assert all(isinstance(it, queue_pb2.ClaimNextResponse) for it in others)


async def _occupy(desk: Desk, queue: RunningQueue, kind: Any) -> asyncio.Event:
    """Have a claim wait in its live check, so that the next agents are served together."""
    checking, may_answer = asyncio.Event(), asyncio.Event()

    async def hold(_: Sequence[int]) -> None:
        queue.main_app.before_read = None
        checking.set()
        await may_answer.wait()

    queue.main_app.before_read = hold
    queue.occupying = asyncio.create_task(desk.claim("occupier", kind))  # type: ignore[attr-defined]
    await checking.wait()
    return may_answer


class TestAgeBoundaries:
    """People whose points change with their age, of whom some cannot be read."""

    @pytest.fixture
    def rules_path(self, tmp_path: Path) -> Path:
        rules = tmp_path / "rules.yaml"
        shipped = DEFAULT_PATH.read_text()
        rules.write_text(shipped.replace("ages: []", "ages: [{from_age: 65, add: -5}]"))
        return rules

    async def test_faulty_people_hold_up_no_birthday_of_others(
        self,
        desk: Desk,
        queue: RunningQueue,
        clock: FakeClock,
        tables: Tables,
    ) -> None:
        """More than a batch of them, all before the others."""
        tomorrow = (clock.now() + timedelta(days=1)).date()
        people = [unsigned(user_id) for user_id in range(1, 221)]
        for facts in people:
            day = tomorrow if facts.user_id <= 210 else tomorrow + timedelta(days=1)
            facts.date_of_birth = day.replace(year=day.year - 65).isoformat()
        await desk.fill(*people)
        faulty = queue.main_app.faulty = set(range(1, 211)) - {100}
        clock.advance(timedelta(days=2))
        aged = "SELECT user_id FROM queue.entries WHERE age_points < 0 ORDER BY user_id"
        await until(lambda: tables.rows(aged), lambda it: len(it) == 11)
        assert [row[0] for row in await tables.rows(aged)] == [100, *range(211, 221)]
        # Put off for an hour, not for ever.
        queue.main_app.faulty = set()
        clock.advance(timedelta(hours=1))
        await until(lambda: tables.rows(aged), lambda it: len(it) == 11 + len(faulty))
