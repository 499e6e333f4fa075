"""Agents as they are: diligent, impatient, forgetful, and at times simply gone."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from random import Random

from simulation.change_schedule import ChangeSchedule
from simulation.desk import Desk, request_id
from simulation.history import CALLBACKS, OUTSTANDING, UNSIGNED, Claimed, HandOut
from simulation.plan import Plan
from simulation.simulated_time import SimulatedTime

HEARTBEAT_SECONDS = 60.0

# Of a thousand calls.
OUTCOMES = {
    "no_answer": 510,
    "call_back": 105,
    "going_to_complete": 95,
    "hung_up": 80,
    "might_complete": 70,
    "completed_form": 55,
    "bad_number": 30,
    "not_interested": 20,
    "no_claim": 15,
    "missed_call": 12,
    "do_not_contact": 8,
}
_UNTALKED = ("no_answer", "bad_number", "missed_call")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an agent lives among."""

    plan: Plan
    time: SimulatedTime
    desk: Desk
    schedule: ChangeSchedule
    # Who holds whom, for supervisors to look at.
    held: dict[str, HandOut]


class Agent:
    """One agent through the whole week, with habits of their own."""

    def __init__(self, agent_id: str, around: Surroundings) -> None:
        self.agent_id = agent_id
        self._around = around
        self._time = around.time
        self._desk = around.desk
        self._rng = Random(f"{around.plan.seed}/{agent_id}")
        self._is_early_bird = self._chance(0.07)
        self._is_owl = self._chance(0.07)

    async def live(self) -> None:
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

    async def _claim(self) -> Claimed:
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

    async def _handle(self, given: HandOut) -> None:
        self._around.held[self.agent_id] = given
        self._around.schedule.was_called(given.user_id)
        roll = self._rng.random()
        if roll < 0.03:
            await self._time.sleep(self._rng.uniform(5, 30))
            await self._desk.release(given, "skipped", request_id(self._rng))
        elif roll < 0.033:
            await self._desk.release(given, "leaving", request_id(self._rng))
            await self._time.sleep(self._rng.uniform(300, 3000))
        elif roll < 0.041:
            await self._vanish(given)
        else:
            await self._call(given)
        self._around.held.pop(self.agent_id, None)

    async def _vanish(self, given: HandOut) -> None:
        """The browser closes; now and then the outcome comes in after all."""
        await self._time.sleep(self._rng.uniform(100, 400))
        if self._chance(0.6):
            await self._record(given, self._outcome())

    async def _call(self, given: HandOut) -> None:
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

    async def _talk(self, given: HandOut, seconds: float) -> bool:
        """Return whether the call is still ours at its end."""
        while seconds > HEARTBEAT_SECONDS:
            await self._time.sleep(HEARTBEAT_SECONDS)
            seconds -= HEARTBEAT_SECONDS
            if not await self._desk.heartbeat(given):
                return False
        await self._time.sleep(seconds)
        return True

    async def _record(self, given: HandOut, outcome: str) -> None:
        notes = f"call of {given.user_id}" if outcome == "do_not_contact" else ""
        if outcome == "do_not_contact" and self._chance(0.3):
            await self._desk.record(given, outcome, request_id(self._rng))
        callback_at = self._callback_at(outcome)
        given_id = request_id(self._rng)

        async def record() -> None:
            await self._desk.record(given, outcome, given_id, notes=notes, callback_at=callback_at)

        if callback_at is not None and callback_at <= self._time.now():
            # Refused: the agent takes another outcome.
            await record()
            await self._desk.record(given, "no_answer", request_id(self._rng))
        elif self._chance(0.04):
            await asyncio.gather(record(), record())
        else:
            await record()
        self._follow_up(given, outcome)

    def _outcome(self) -> str:
        return self._rng.choices(list(OUTCOMES), weights=list(OUTCOMES.values()))[0]

    def _callback_at(self, outcome: str) -> datetime | None:
        shares = {"call_back": 0.85, "going_to_complete": 0.3, "might_complete": 0.3}
        if not self._chance(shares.get(outcome, 0.0)):
            return None
        now = self._time.now()
        if self._chance(0.01):
            return now - timedelta(minutes=5)
        if self._chance(0.5):
            return now + timedelta(minutes=self._rng.randint(10, 240))
        return now + timedelta(hours=self._rng.randint(4, 100))

    def _follow_up(self, given: HandOut, outcome: str) -> None:
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
    def _deed(given: HandOut) -> str:
        return "requirement_completed" if given.queue == OUTSTANDING else "signed"

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability
