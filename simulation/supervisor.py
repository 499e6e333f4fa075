"""The supervisor: forced releases, objections, callbacks moved and called off, the TPS's list."""

from collections.abc import Awaitable, Callable
from datetime import time
from random import Random

from simulation.agents import Surroundings
from simulation.callback_times import wanted_time
from simulation.changes import ChangingPopulation
from simulation.desk import SUPERVISOR, SimulatedDesk, request_id
from simulation.history import CALLBACKS, OUTSTANDING, UNSIGNED
from simulation.phone_fields import any_number, labelled, spoilt, written

_LIMITS = ((UNSIGNED,), (OUTSTANDING,), (CALLBACKS, UNSIGNED), (CALLBACKS, OUTSTANDING))


class Supervisor:
    """Does something every few minutes of the working day."""

    def __init__(self, around: Surroundings, population: ChangingPopulation) -> None:
        self._around = around
        self._time = around.time
        self._desk: SimulatedDesk = around.desk
        self._population = population
        self._rng = Random(f"{around.plan.seed}/supervisor")
        self._deeds: tuple[Callable[[], Awaitable[None]], ...] = (
            self._force_release,
            self._object,
            self._object_to_number,
            self._lift,
            self._lift_number,
            self._schedule,
            self._schedule,
            self._move,
            self._cancel,
            self._clear_missed,
        )

    async def run(self) -> None:
        """Work every day; half-way through the week comes the TPS's list."""
        plan = self._around.plan
        for day in range(plan.days):
            await self._time.sleep_until(plan.moment(day, time(7, 30)))
            if day == 0:
                await self._limit_some()
            is_middle = day == plan.days // 2
            ends = min(plan.moment(day, time(20)), plan.ends)
            imports_at = plan.moment(day, time(11))
            while self._time.now() < ends:
                if is_middle and self._time.now() >= imports_at:
                    is_middle = False
                    await self._import_list()
                await self._rng.choice(self._deeds)()
                await self._time.sleep(self._rng.uniform(120, 600))

    async def watch(self) -> None:
        """Look at the heads of the queues now and then, by day."""
        plan = self._around.plan
        while self._time.now() < plan.ends:
            heads = [await self._desk.heads(queue) for queue in (UNSIGNED, OUTSTANDING)]
            self._population.next = heads[0] + heads[1]
            await self._time.sleep(600)

    async def _limit_some(self) -> None:
        for number in range(1, self._around.plan.agents + 1, 10):
            await self._desk.limit(agent_id(number), self._rng.choice(_LIMITS))

    async def _force_release(self) -> None:
        if self._around.held:
            name = self._rng.choice(sorted(self._around.held))
            await self._desk.force_release(self._around.held[name], request_id(self._rng))

    async def _object(self) -> None:
        """A person objects in writing, some of them after a call that ended all calls."""
        stopped = self._around.stopped
        is_stopped = stopped and self._rng.random() < 0.4
        user_id = self._lately_stopped() if is_stopped else self._random_person()
        stopped.append(user_id)
        await self._desk.object_to_calls(user_id, SUPERVISOR, request_id(self._rng))

    async def _object_to_number(self) -> None:
        phones = self._population.views[self._random_person()].phones
        phone = self._rng.choice(phones) if phones else any_number(self._rng)
        spell = self._rng.choice((written, labelled, spoilt))
        text = spell(self._rng, phone)
        await self._desk.object_to_number(text, SUPERVISOR, request_id(self._rng))

    async def _lift(self) -> None:
        if self._around.stopped and self._rng.random() < 0.6:
            user_id = self._lately_stopped()
            (what,) = self._rng.choices(("objection", "no_claim", ""), weights=(4, 3, 3))
            await self._desk.lift(user_id, what, request_id(self._rng))

    def _lately_stopped(self) -> int:
        """Return one of the last few, of whom some have objected and have no claim either."""
        stopped = self._around.stopped
        return stopped[-self._rng.randint(1, min(12, len(stopped)))]

    async def _lift_number(self) -> None:
        if self._desk.bare_objections and self._rng.random() < 0.5:
            phone = self._rng.choice(sorted(self._desk.bare_objections))
            await self._desk.lift_number(phone, request_id(self._rng))

    async def _schedule(self) -> None:
        moment = wanted_time(self._rng, self._time.now())
        agents = self._around.plan.agents
        preferred = agent_id(self._rng.randint(1, agents)) if self._rng.random() < 0.6 else ""
        await self._desk.schedule(self._random_person(), moment, preferred, request_id(self._rng))

    async def _move(self) -> None:
        callbacks = await self._desk.callbacks("open")
        if callbacks:
            moment = wanted_time(self._rng, self._time.now())
            chosen = self._rng.choice(callbacks)
            await self._desk.reschedule(chosen, moment, request_id(self._rng))

    async def _cancel(self) -> None:
        callbacks = await self._desk.callbacks("open")
        if callbacks:
            await self._desk.cancel(self._rng.choice(callbacks), request_id(self._rng))

    async def _clear_missed(self) -> None:
        for callback in (await self._desk.callbacks("missed"))[:5]:
            if self._rng.random() < 0.5:
                moment = wanted_time(self._rng, self._time.now())
                await self._desk.reschedule(callback, moment, request_id(self._rng))
            else:
                await self._desk.cancel(callback, request_id(self._rng))

    async def _import_list(self) -> None:
        """One in a hundred numbers, each in some form, and lines that are no number."""
        views = self._population.views.values()
        phones = sorted({phone for view in views for phone in view.phones})
        chosen = self._rng.sample(phones, max(1, len(phones) // 100))
        numbers = [written(self._rng, phone).strip() for phone in chosen]
        await self._desk.import_phones([*numbers, "n/a", ""])

    def _random_person(self) -> int:
        called = self._population.called
        if called and self._rng.random() < 0.5:
            return self._rng.choice(list(called))
        pool = self._rng.choice((UNSIGNED, OUTSTANDING, "all"))
        return self._population.pools[pool].pick(self._rng) or 1


def agent_id(number: int) -> str:
    """Return the id of the agent with that number, from 1."""
    return f"agent-{number:03}"
