"""Agents as they are: diligent, impatient, forgetful, and at times simply gone."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from random import Random

from simulation.callback_times import wanted_time
from simulation.change_schedule import ChangeSchedule
from simulation.desk import SimulatedDesk, request_id
from simulation.history import (
    CALLBACKS,
    OUTSTANDING,
    UNSIGNED,
    ClaimRecord,
    HandOutRecord,
    OutcomeRecord,
)
from simulation.phone_fields import any_number, labelled
from simulation.plan import Plan
from simulation.simulated_time import SimulatedTime

HEARTBEAT_SECONDS = 60.0

# Of a thousand calls.
OUTCOMES = {
    "no_answer": 400,
    "voicemail_left": 60,
    "voicemail_not_left": 40,
    "call_back": 105,
    "going_to_complete": 95,
    "hung_up": 80,
    "might_complete": 70,
    "completed_form": 55,
    "bad_number": 30,
    "wrong_person": 6,
    "language_barrier": 4,
    "not_interested": 20,
    "no_claim": 15,
    "missed_call": 12,
    "do_not_contact": 8,
}
_UNTALKED = (
    *("no_answer", "bad_number", "missed_call", "voicemail_left", "voicemail_not_left"),
    "wrong_person",
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What agents act on: the plan, the time, the queue and the changes."""

    plan: Plan
    time: SimulatedTime
    desk: SimulatedDesk
    schedule: ChangeSchedule
    # Who holds whom, for supervisors to look at.
    held: dict[str, HandOutRecord] = field(default_factory=dict)
    # People whose calls an agent or a supervisor ended, for supervisors to look at.
    stopped: deque[int] = field(default_factory=lambda: deque(maxlen=200))


class SimulatedAgent:
    """One agent through the whole week, with habits of their own."""

    def __init__(self, agent_id: str, around: Surroundings) -> None:
        self.agent_id = agent_id
        self._around = around
        self._time = around.time
        self._desk = around.desk
        self._rng = Random(f"{around.plan.seed}/{agent_id}")
        # Hand-outs of before, the latest last, and the calls to be reported late.
        self._past: deque[HandOutRecord] = deque(maxlen=40)
        self._unreported: list[tuple[datetime, HandOutRecord]] = []
        self._is_early_bird = self._chance(0.07)
        self._is_owl = self._chance(0.07)

    async def run(self) -> None:
        """Work every day of the week, days off and holidays included, to be refused."""
        for day in range(self._around.plan.days):
            starts, ends = self._shift(day)
            await self._time.sleep_until(starts)
            await self._work(ends)

    def _shift(self, day: int) -> tuple[datetime, datetime]:
        opens = self._around.plan.moment(day, time(8))
        minutes = self._rng.uniform(0, 30) if self._chance(0.6) else self._rng.uniform(60, 240)
        if self._is_early_bird:
            minutes = -25.0
        starts = opens + timedelta(minutes=minutes)
        ends = min(starts + timedelta(hours=8), opens + timedelta(hours=12))
        return starts, opens + timedelta(hours=12, minutes=8) if self._is_owl else ends

    async def _work(self, ends: datetime) -> None:
        await self._desk.say(self.agent_id, "available")
        while self._time.now() < ends:
            claimed = await self._claim()
            if claimed.hand_out is not None:
                await self._handle(claimed.hand_out)
            else:
                await self._time.sleep(self._rng.uniform(40, 200))
            await self._catch_up()
            if self._chance(0.02):
                await self._rest()
        # Some just close the lid.
        if self._chance(0.8):
            await self._desk.say(self.agent_id, "offline")

    async def _rest(self) -> None:
        await self._desk.say(self.agent_id, "break")
        if self._chance(0.2):
            claimed = await self._claim()
            if claimed.hand_out is not None:
                await self._handle(claimed.hand_out)
        await self._time.sleep(self._rng.uniform(300, 1500))
        await self._desk.say(self.agent_id, "available")

    async def _claim(self) -> ClaimRecord:
        queues = self._queues()
        given_id = request_id(self._rng)
        roll = self._rng.random()
        if roll < 0.02:
            answers = await asyncio.gather(
                self._desk.claim(self.agent_id, given_id, queues),
                self._desk.claim(self.agent_id, given_id, queues),
            )
            return answers[0]
        if roll < 0.03:
            other_id = request_id(self._rng)
            answers = await asyncio.gather(
                self._desk.claim(self.agent_id, given_id, queues),
                self._desk.claim(self.agent_id, other_id, queues),
            )
            return next((it for it in answers if it.hand_out is not None), answers[0])
        if roll < 0.035:
            # The answer is lost on its way, and the desk asks again.
            await self._desk.claim(self.agent_id, given_id, queues, timeout_seconds=0.004)
        return await self._desk.claim(self.agent_id, given_id, queues)

    def _queues(self) -> Sequence[str]:
        if self._chance(0.9):
            return ()
        choices = ((UNSIGNED,), (OUTSTANDING,), (CALLBACKS,), (CALLBACKS, OUTSTANDING, UNSIGNED))
        return self._rng.choice(choices)

    async def _handle(self, given: HandOutRecord) -> None:
        self._around.held[self.agent_id] = given
        self._around.schedule.was_called(given.user_id)
        roll = self._rng.random()
        if roll < 0.03:
            await self._time.sleep(self._rng.uniform(5, 30))
            await self._desk.release(given, "skipped", request_id(self._rng))
        elif roll < 0.033:
            await self._desk.release(given, "leaving", request_id(self._rng))
            await self._time.sleep(self._rng.uniform(300, 3000))
        elif roll < 0.06:
            await self._vanish(given)
        else:
            await self._call(given)
        self._around.held.pop(self.agent_id, None)
        self._past.append(given)

    async def _vanish(self, given: HandOutRecord) -> None:
        """The browser closes, mostly during the call; some outcomes come in after all."""
        if self._chance(0.8):
            await self._talk(given, HEARTBEAT_SECONDS * self._rng.randint(1, 4) + 1)
        await self._time.sleep(self._rng.uniform(100, 400))
        if self._chance(0.3):
            await self._record(given, self._outcome())
        elif self._chance(0.3):
            # A report is taken for an hour.
            minutes = self._rng.uniform(*self._rng.choice(((5, 50), (66, 90))))
            reports_at = self._time.now() + timedelta(minutes=minutes)
            self._unreported.append((reports_at, given))

    async def _catch_up(self) -> None:
        """Report late what is due, and objections that were heard at other times."""
        due = [given for at, given in self._unreported if at <= self._time.now()]
        self._unreported = [it for it in self._unreported if it[1] not in due]
        for given in due:
            await self._record(given, self._outcome())
        if self._past and self._chance(0.012):
            await self._object(self._rng.choice(self._past))

    async def _object(self, given: HandOutRecord) -> None:
        """A person of before objects: in a call, by letter, or where a stranger answers."""
        minutes = (self._time.now() - given.started_at) / timedelta(minutes=1)
        roll = self._rng.random()
        if roll < 0.7 and not 55 < minutes < 75:
            notes = f"call of {given.user_id}"
            given_id = request_id(self._rng)
            await self._desk.record(given, "do_not_contact", given_id, notes=notes)
        elif roll < 0.85:
            await self._desk.object_to_calls(given.user_id, self.agent_id, request_id(self._rng))
        else:
            text = labelled(self._rng, any_number(self._rng))
            await self._desk.object_to_number(text, self.agent_id, request_id(self._rng))
        self._around.stopped.append(given.user_id)

    async def _call(self, given: HandOutRecord) -> None:
        outcome = self._outcome()
        if outcome in _UNTALKED:
            seconds = self._rng.uniform(20, 60)
        else:
            seconds = min(1500.0, 30 + self._rng.expovariate(1 / 230))
        if outcome == "completed_form" and self._chance(0.4):
            self._around.schedule.follow_up(self._deed(given), given.user_id, seconds / 2)
        if await self._talk(given, seconds):
            await self._record(given, outcome)
        await self._time.sleep(self._rng.expovariate(1 / (45 if outcome in _UNTALKED else 150)))

    async def _talk(self, given: HandOutRecord, seconds: float) -> bool:
        """Return whether the call is still ours at its end."""
        while seconds > HEARTBEAT_SECONDS:
            await self._time.sleep(HEARTBEAT_SECONDS)
            seconds -= HEARTBEAT_SECONDS
            if not await self._desk.heartbeat(given):
                return False
        await self._time.sleep(seconds)
        return True

    async def _record(self, given: HandOutRecord, outcome: str) -> None:
        notes = f"call of {given.user_id}" if outcome == "do_not_contact" else ""
        if outcome == "do_not_contact" and self._chance(0.3):
            await self._desk.record(given, outcome, request_id(self._rng))
        callback_at = self._callback_at(outcome)
        given_id = request_id(self._rng)

        def record() -> Awaitable[OutcomeRecord]:
            return self._desk.record(given, outcome, given_id, notes=notes, callback_at=callback_at)

        if self._chance(0.04):
            recorded, _ = await asyncio.gather(record(), record())
        else:
            recorded = await record()
        if recorded.error.startswith("CALLBACK_"):
            # The agent leaves the time to the queue, or takes another outcome.
            instead = outcome if self._chance(0.6) else "no_answer"
            await self._desk.record(given, instead, request_id(self._rng))
        if outcome in ("do_not_contact", "no_claim"):
            self._around.stopped.append(given.user_id)
        self._follow_up(given, outcome)

    def _outcome(self) -> str:
        return self._rng.choices(list(OUTCOMES), weights=list(OUTCOMES.values()))[0]

    def _callback_at(self, outcome: str) -> datetime | None:
        shares = {"call_back": 0.85, "going_to_complete": 0.3, "might_complete": 0.3}
        if not self._chance(shares.get(outcome, 0.0)):
            return None
        return wanted_time(self._rng, self._time.now())

    def _follow_up(self, given: HandOutRecord, outcome: str) -> None:
        schedule = self._around.schedule
        if outcome == "completed_form" and self._chance(0.6):
            schedule.follow_up(self._deed(given), given.user_id, self._rng.uniform(0, 1800))
        elif outcome in ("going_to_complete", "might_complete") and self._chance(0.3):
            hours = self._rng.uniform(1, 60)
            schedule.follow_up(self._deed(given), given.user_id, hours * 3600)
        elif outcome == "bad_number" and self._chance(0.4):
            hours = self._rng.uniform(1, 30)
            schedule.follow_up("phone_changed", given.user_id, hours * 3600)

    @staticmethod
    def _deed(given: HandOutRecord) -> str:
        return "requirement_completed" if given.queue == OUTSTANDING else "signed"

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability
