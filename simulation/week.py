"""The week itself: the queue in simulated time, the tasks that use it, and their history."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from random import Random
from typing import Any

from dialler.binlog_relay.v1 import binlog_relay_pb2_grpc
from dialler.cdc_ingest.v1 import cdc_ingest_pb2_grpc
from dialler.queue.v1 import queue_pb2_grpc
from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc
from pydantic import SecretStr

from devstack.mysql_connection import connect as connect_mysql
from servicekit.client import connect
from services.queue.app import build
from services.queue.settings import QueueSettings
from simulation.agents import SimulatedAgent, Surroundings
from simulation.change_schedule import ChangeSchedule
from simulation.changes import ChangingPopulation, MainAppChanges
from simulation.desk import SimulatedDesk
from simulation.history import OUTSTANDING, UNSIGNED, CaptureStopped, Reconciled, WeekHistory
from simulation.main_app_rows import MainAppRows
from simulation.pacing import CaptureWatch, LoopsWatch
from simulation.plan import Plan
from simulation.servers import Servers
from simulation.simulated_time import SimulatedTime
from simulation.supervisor import Supervisor, agent_id
from simulation.tables import count_blocked, read_tables
from tests.fakes.clock import FakeClock

Progress = Callable[[datetime, WeekHistory, Counter[str]], None]

_PROGRESS_SECONDS = 1.0
_STOPS_A_DAY = 3
# Changes that end an open case.
_DEEDS = {UNSIGNED: "signed", OUTSTANDING: "claim_ended"}
_CALL_SECONDS = 20.0


@dataclass(slots=True)
class WeekResult:
    """A week that is over."""

    history: WeekHistory
    changes: Counter[str]
    errors: Counter[str]
    blocked: dict[str, int]
    messages: int
    real_seconds: float = 0.0


@dataclass(slots=True)
class Week:
    """Runs one week on running servers."""

    plan: Plan
    servers: Servers
    progress: Progress = lambda _at, _history, _changes: None
    _looks: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self) -> WeekResult:
        """Return the week once it is over and every change has arrived."""
        clock = FakeClock(self.plan.begins)
        addresses = self.servers.addresses
        async with AsyncExitStack() as running:
            for host in addresses.hosts:
                queue = build(self._queue_settings(host), clock)
                await queue.start()
                running.push_async_callback(queue.stop)
            channels = {name: await _open(running, it) for name, it in addresses.grpc.items()}
            copies = {
                name: [await _open(running, it) for it in addresses.copies_of(name)]
                for name in ("binlog_relay", "cdc_ingest")
            }
            return await self._run(clock, channels, copies)

    def _queue_settings(self, host: str) -> QueueSettings:
        addresses = self.servers.addresses
        return QueueSettings(
            postgres_url=SecretStr(addresses.postgres),
            redis_url=SecretStr(addresses.redis),
            user_context_target=addresses.grpc["user_context"],
            bind_host=host,
            grpc_port=int(addresses.grpc["queue"].rpartition(":")[2]),
            rules_path=self.plan.rules_path,
            promotion_interval_seconds=self.plan.loop_seconds,
            lease_sweep_interval_seconds=self.plan.loop_seconds,
            live_check_seconds=10.0,
            default_deadline_seconds=_CALL_SECONDS,
            statement_timeout_seconds=30.0,
            drain_seconds=1.0,
        )

    async def _run(
        self, clock: FakeClock, channels: dict[str, Any], copies: dict[str, list[Any]]
    ) -> WeekResult:
        addresses = self.servers.addresses
        history = WeekHistory(clock.now())
        rows = MainAppRows(addresses.mysql_writer)
        # In a thread: for a large main app it takes longer than the queue's loops may stand still.
        history.people = await asyncio.to_thread(rows.all_views)
        rows.close()
        population = ChangingPopulation(dict(history.people))
        reconciler = reconciler_pb2_grpc.ReconcilerServiceStub(channels["reconciler"])
        await self._reconcile(reconciler, clock, history)

        loops = LoopsWatch(clock, self.plan.copies)
        await loops.settle(runs=2)
        capture = CaptureWatch(
            clock,
            connect_mysql(self.servers.unlogged_url),
            [binlog_relay_pb2_grpc.BinlogRelayServiceStub(it) for it in copies["binlog_relay"]],
            [cdc_ingest_pb2_grpc.CdcIngestServiceStub(it) for it in copies["cdc_ingest"]],
        )

        async def before_step(when: datetime) -> None:
            await loops.keep_up(when)
            if not any(it.at <= clock.now() < it.until for it in history.stops):
                await capture.keep_up(when)

        simulated = SimulatedTime(clock, self.plan.tick_seconds, before_step)
        desk = SimulatedDesk(queue_pb2_grpc.QueueServiceStub(channels["queue"]), history, clock)
        with self._changes(population, clock, history) as changes:
            schedule = ChangeSchedule(self.plan, simulated, population, changes)
            around = Surroundings(self.plan, simulated, desk, schedule)
            for number in range(1, self.plan.agents + 1):
                simulated.start(SimulatedAgent(agent_id(number), around).run())
            supervisor = Supervisor(around, population)
            simulated.start(supervisor.run())
            simulated.start(supervisor.watch())
            simulated.start(schedule.run())
            stops = self._stop_capture(simulated, capture, history, population, schedule)
            simulated.start(stops)
            simulated.start(self._look_at_every_person(simulated, reconciler, clock, history))
            simulated.start(self._rebuild(simulated, desk))
            capture.start()
            told = asyncio.create_task(self._tell(clock, history, changes.made))
            try:
                await simulated.run_until(self.plan.ends)
                await simulated.stop()
                await capture.drain()
                await asyncio.gather(*self._looks)
                await self._reconcile(reconciler, clock, history)
                await loops.settle(runs=20)
            finally:
                told.cancel()
                await simulated.stop()
                await capture.stop()
                schedule.stop()
            history.ended_at = clock.now()
            tables = await read_tables(addresses.postgres)
            history.tables = replace(tables, objections=await desk.objections())
            blocked = await count_blocked(addresses.postgres)
            return WeekResult(history, changes.made, desk.errors, blocked, capture.messages)

    @contextmanager
    def _changes(
        self, population: ChangingPopulation, clock: FakeClock, history: WeekHistory
    ) -> Iterator[MainAppChanges]:
        changes = MainAppChanges(
            self.servers.addresses.mysql_writer,
            self.servers.unlogged_url,
            population,
            clock,
            self.plan.seed,
            history.records.append,
        )
        try:
            yield changes
        finally:
            changes.close()

    async def _tell(self, clock: FakeClock, history: WeekHistory, made: Counter[str]) -> None:
        while True:
            self.progress(clock.now(), history, made)
            await asyncio.sleep(_PROGRESS_SECONDS)

    async def _stop_capture(
        self,
        simulated: SimulatedTime,
        capture: CaptureWatch,
        history: WeekHistory,
        population: ChangingPopulation,
        schedule: ChangeSchedule,
    ) -> None:
        """Hold capture up for a while, several times a day, while many at the heads do their part.

        The live check has to do without capture then.
        """
        rng = Random(f"{self.plan.seed}/stops")
        for day in range(self.plan.days):
            for part in range(_STOPS_A_DAY):
                begins = self.plan.moment(day, time(8 + 4 * part, rng.randint(20, 59)))
                ends = begins + timedelta(minutes=rng.randint(10, 40))
                if ends >= self.plan.ends:
                    return
                await simulated.sleep_until(begins)
                await capture.drain()
                history.stops.append(CaptureStopped(simulated.now(), ends))
                await capture.pause()
                for user_id in population.next[::3]:
                    deed = _DEEDS.get(population.views[user_id].matter or "")
                    if deed is not None:
                        schedule.follow_up(deed, user_id, rng.uniform(10, 300))
                await simulated.sleep_until(ends)
                await capture.resume()

    async def _look_at_every_person(
        self,
        simulated: SimulatedTime,
        reconciler: "reconciler_pb2_grpc.ReconcilerServiceAsyncStub",
        clock: FakeClock,
        history: WeekHistory,
    ) -> None:
        """Before each day and in its middle, the latter while the work goes on."""
        for day in range(self.plan.days):
            await simulated.sleep_until(self.plan.moment(day, time(7, 10)))
            await self._reconcile(reconciler, clock, history)
            if self.plan.moment(day, time(13)) < self.plan.ends:
                await simulated.sleep_until(self.plan.moment(day, time(13)))
                look = self._reconcile(reconciler, clock, history)
                self._looks.append(asyncio.create_task(look))

    async def _reconcile(
        self,
        reconciler: "reconciler_pb2_grpc.ReconcilerServiceAsyncStub",
        clock: FakeClock,
        history: WeekHistory,
    ) -> None:
        began_at = clock.now()
        request = reconciler_pb2.StartRunRequest(
            kind=reconciler_pb2.RUN_KIND_FULL, reason="simulation"
        )
        run = (await reconciler.StartRun(request)).run
        while run.state in (reconciler_pb2.RUN_STATE_PENDING, reconciler_pb2.RUN_STATE_RUNNING):
            await asyncio.sleep(0.1)
            question = reconciler_pb2.GetRunRequest(run_id=run.run_id)
            run = (await reconciler.GetRun(question)).run
        if run.state != reconciler_pb2.RUN_STATE_SUCCEEDED:
            raise RuntimeError(f"a reconciliation failed: {run.error}")
        history.reconciliations.append(Reconciled(began_at, clock.now()))

    async def _rebuild(self, simulated: SimulatedTime, desk: SimulatedDesk) -> None:
        """Have the whole queue rebuilt in the middle of the week, while the work goes on."""
        await simulated.sleep_until(self.plan.moment(self.plan.days // 2, time(10)))
        self._looks.append(asyncio.create_task(desk.rebuild()))


async def _open(running: AsyncExitStack, address: str) -> Any:
    """Return a channel that `running` closes."""
    channel = connect(address, name=address, default_timeout_seconds=_CALL_SECONDS)
    return await running.enter_async_context(channel)
