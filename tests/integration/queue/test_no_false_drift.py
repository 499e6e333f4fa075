"""No course of events is reported as drift.

Calls, facts, rules and rebuilds at random, each through the service's own calls; after every one of
them no entry may be reported as altered, and once the loops have run no user may be placed
elsewhere than the rules say.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from dialler.model.v1 import call_state_pb2, facts_pb2
from dialler.queue.v1 import queue_pb2
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import create_async_engine

from servicekit.errors import Internal, ServiceError, Unavailable
from services.queue.calls.callbacks import Callbacks
from services.queue.people.promotion import Promotion
from services.queue.people.rulebook import Rulebook
from services.queue.rules import DEFAULT_PATH
from services.queue.store.database import Database
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import give_phones, person
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

PEOPLE = range(1, 7)
AGENTS = ("anna", "bob")
PHONES = ("+447700900001", "+447700900002", "+447700900003", "")
OUTCOMES = [it for it in call_state_pb2.Outcome.values() if it]
SOON = (call_state_pb2.OUTCOME_GOING_TO_COMPLETE, call_state_pb2.OUTCOME_CALL_BACK)
_EMPTIED = """entries, queue.person_phones, queue.placeholder_phones, queue.unplaced_phones,
    queue.live_lines, queue.attempt_lines, queue.suppression_lines, queue.applied_facts,
    queue.assignments, queue.attempts, queue.amendments, queue.call_events, queue.callbacks,
    queue.notes, queue.pauses, queue.report_days, queue.report_figures,
    queue.conversions, queue.suppressions, queue.agents, queue.list_numbers, queue.requests,
    queue.phone_list_editions, queue.prevented_calls, queue.complaints, queue.audit, queue.outbox,
    queue.stale_call_states, queue.live_lines, queue.attempt_lines, queue.suppression_lines,
    queue.person_phones, queue.placeholder_phones, queue.unplaced_phones"""

Step = tuple[str, int, int]


def _rules(ageing: int, shared_hours: int) -> str:
    """Return rules under which people may be called at any hour."""
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    content["score"] |= {"ageing_per_week": ageing, "lenders": {"Blue Motor Finance": -ageing}}
    content["calls"]["shared_phone_hours"] = shared_hours
    days = content["calling_hours"]["days"]
    every = {"from": "00:00", "until": "24:00"}
    content["calling_hours"] |= {"days": {**dict.fromkeys(days, every), "sunday": every}}
    content["calling_hours"]["holidays"] = None
    return yaml.safe_dump(content)


def _facts(user_id: int, kind: int) -> facts_pb2.UserFacts:
    """Return one of many people, told apart by a number."""
    facts = person(
        user_id,
        has_signature=bool(kind & 1),
        requirement_status="PENDING" if kind & 2 else "APPROVED",
    )
    give_phones(facts, PHONES[(kind >> 2) % len(PHONES)])
    facts.row_fingerprints = bytes([kind % 256]) * 16 * (kind % 3)
    rare = kind >> 8
    if rare == 1:
        facts.is_enabled = False
    elif rare == 2:
        facts.status = "inactive"
    elif rare == 3:
        facts.claims[0].status = "complete"
    elif rare == 4:
        del facts.claims[:]
    return facts


class World:
    """A queue, its main app, its agents, and time."""

    def __init__(
        self, queue: RunningQueue, tables: Tables, database: Database, path: Path, clock: FakeClock
    ) -> None:
        self._queue = queue
        self._desk = Desk(queue)
        self._tables = tables
        self._path = path
        self._clock = clock
        self._rulebook = Rulebook(path, database, clock)
        self._promotion = Promotion(database, self._rulebook)
        self._callbacks = Callbacks(database, self._rulebook, clock)

    async def live(self, steps: Sequence[Step]) -> None:
        """Go through the steps from an empty queue."""
        await self._tables.rows(f"TRUNCATE queue.{_EMPTIED}")
        self._queue.main_app.people.clear()
        await self._rulebook.start()
        for number, (what, user_id, value) in enumerate(steps):
            try:
                await getattr(self, f"_{what}")(user_id, value)
            except (Internal, Unavailable):
                raise
            except ServiceError:
                # The rules refuse that now, which is as well.
                pass
            assert await self._altered() == [], (number, steps[: number + 1])
        await self._check(0, 0)

    async def _altered(self) -> list[int]:
        request = queue_pb2.ReadAppliedFactsRequest(user_ids=PEOPLE)
        answer = await self._queue.stub.ReadAppliedFacts(request)
        return list(answer.applied.altered_user_ids)

    async def _settle(self) -> None:
        """Do what the loops would have done by now."""
        now = self._clock.now()
        await self._queue.stub.PurgeExpired(queue_pb2.PurgeExpiredRequest())
        await self._promotion.run_once(now)
        await self._callbacks.close_once(now)

    async def _check(self, user_id: int, value: int) -> None:
        await self._settle()
        assert await self._altered() == []
        checked = await self._queue.stub.CheckEntries(queue_pb2.CheckEntriesRequest())
        assert list(checked.corrected_user_ids) == []

    async def _check_late(self, user_id: int, value: int) -> None:
        """The loops have not come to those whose time has passed yet."""
        checked = await self._queue.stub.CheckEntries(queue_pb2.CheckEntriesRequest())
        assert list(checked.corrected_user_ids) == []

    async def _change(self, user_id: int, value: int) -> None:
        """The main app changes without a notification."""
        self._queue.main_app.put(_facts(user_id, value))

    async def _facts(self, user_id: int, value: int) -> None:
        await self._desk.fill(_facts(user_id, value))

    async def _vanish(self, user_id: int, value: int) -> None:
        self._queue.main_app.people.pop(user_id, None)
        await self._desk.apply(user_id)

    async def _claim(self, user_id: int, value: int) -> None:
        await self._desk.claim(AGENTS[value % 2])

    async def _call(self, user_id: int, value: int) -> None:
        claimed = await self._desk.claim(AGENTS[value % 2])
        if not claimed.HasField("assignment"):
            return
        outcome = OUTCOMES[value % len(OUTCOMES)]
        at = self._clock.now() + timedelta(hours=1 + value % 5) if outcome in SOON else None
        await self._desk.record(claimed.assignment, outcome, notes="said so", callback_at=at)

    async def _give_back(self, user_id: int, value: int) -> None:
        held = await self._desk.current(AGENTS[value % 2])
        if value % 3 == 0:
            await self._desk.release(held, queue_pb2.RELEASE_REASON_SKIPPED)
        elif value % 3 == 1:
            await self._desk.release(held)
        else:
            await self._desk.record(held, OUTCOMES[value % len(OUTCOMES)], notes="said so")

    async def _schedule(self, user_id: int, value: int) -> None:
        preferred = AGENTS[0] if value % 3 == 0 else ""
        at = self._clock.now() + timedelta(minutes=1 + value)
        await self._desk.schedule(user_id, at, preferred=preferred)

    async def _move_callback(self, user_id: int, value: int) -> None:
        states = (call_state_pb2.CALLBACK_STATE_MISSED, call_state_pb2.CALLBACK_STATE_OPEN)
        state = states[bool(value % 4)]
        for callback in await self._desk.callbacks(state):
            if value % 2:
                at = self._clock.now() + timedelta(minutes=1 + value)
                await self._desk.reschedule(callback.callback_id, at)
            else:
                await self._desk.cancel(callback.callback_id)

    async def _suppress(self, user_id: int, value: int) -> None:
        await self._desk.suppress(user_id)

    async def _lift(self, user_id: int, value: int) -> None:
        await self._desk.lift(user_id)

    async def _list(self, user_id: int, value: int) -> None:
        csv = "".join(f"{it}\n" for it in PHONES[value % 3 :] if it) + "+447700900999\n"
        await self._desk.import_phones(csv.encode(), is_complete=bool(value % 2), cut=1_000)

    async def _wait(self, user_id: int, value: int) -> None:
        self._clock.advance(_WAITS[value % len(_WAITS)])
        if value % 3:
            await self._settle()

    async def _rebuild(self, user_id: int, value: int) -> None:
        await self._desk.rebuild()

    async def _rules(self, user_id: int, value: int) -> None:
        """Other rules come into force, and all users are placed by them."""
        before = await self._tables.value("SELECT count(*) FROM queue.rule_editions")
        text = _rules(4 + value % 3, value % 4)
        if text == self._path.read_text():
            return
        self._path.write_text(text)

        async def applied() -> int:
            sql = "SELECT count(*) FROM queue.rule_editions WHERE applied_at IS NOT NULL"
            return int(await self._tables.value(sql))

        await until(applied, lambda it: it > before)
        await self._rulebook.run_once(self._clock.now())


_WAITS = (1, 60, 130, 3_700, 8 * 3_600, 30 * 3_600, 5 * 86_400, 30 * 86_400, 300 * 86_400)
# Each as often as it is named.
_STEPS = [
    *["facts", "call"] * 5,
    *["wait"] * 4,
    *["give_back", "schedule", "move_callback", "check_late"] * 2,
    *["change", "vanish", "claim", "suppress", "lift", "list", "rebuild", "check"],
]
_KINDS = st.integers(0, 255) | st.integers(0, 5 * 256 - 1)
_STEP = st.tuples(st.sampled_from(_STEPS), st.sampled_from(PEOPLE), _KINDS)
_RULES = st.tuples(st.just("rules"), st.just(1), st.integers(0, 11))


@pytest.fixture
async def world(
    queue_url: str, redis_url: str, tables: Tables, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[World]:
    path = tmp_path / "rules.yaml"
    path.write_text(_rules(5, 2))
    # The loops that move people do nothing by themselves.
    intervals: dict[str, Any] = {
        "promotion_interval_seconds": 3_600.0,
        "lease_sweep_interval_seconds": 3_600.0,
        "rules_interval_seconds": 0.02,
    }
    engine = create_async_engine(queue_url)
    async with running_queue(
        queue_url, redis_url, clock=clock, rules_path=path, **intervals
    ) as queue:
        yield World(queue, tables, Database(engine), path, clock)
    await engine.dispose()


def _lives() -> list[list[Step]]:
    """Return many lives; drawn beforehand, since the loop's own threads use `random` as well."""
    drawn: list[list[Step]] = []

    @settings(
        max_examples=20,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        first=st.lists(_KINDS, min_size=6, max_size=6),
        steps=st.lists(_STEP, min_size=15, max_size=30),
        rules=st.lists(_RULES, max_size=1),
        rest=st.lists(_STEP, max_size=10),
    )
    def draw(
        first: Sequence[int], steps: Sequence[Step], rules: Sequence[Step], rest: Sequence[Step]
    ) -> None:
        known = [("facts", it, kind) for it, kind in zip(PEOPLE, first, strict=True)]
        drawn.append([*known, *steps, *rules, *rest])

    draw()
    return drawn


@pytest.mark.timeout(240)
async def test_nothing_that_happens_looks_like_damage(world: World) -> None:
    for life in _lives():
        await world.live(life)


_NO_ANSWER = OUTCOMES.index(call_state_pb2.OUTCOME_NO_ANSWER)
# Not settled.
_FIVE_DAYS: Step = ("wait", 1, 6)
_AN_HOUR: Step = ("wait", 1, 3)


@pytest.mark.parametrize(
    "steps",
    [
        [("facts", 1, 2), ("call", 1, _NO_ANSWER), _FIVE_DAYS],
        [("facts", 1, 2), ("schedule", 1, 1), _FIVE_DAYS],
        # From -5, for the lender, to 200 at five points a week.
        [("facts", 1, 2), *[_FIVE_DAYS] * 57, *[_AN_HOUR] * 47],
    ],
    ids=["due", "callback", "frozen"],
)
async def test_time_that_has_passed_is_no_damage(world: World, steps: list[Step]) -> None:
    """Users who fell due, or went cold, since the promoter last looked."""
    await world.live([*steps, ("check_late", 1, 0)])
