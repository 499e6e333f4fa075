"""Messages in, people refreshed and applied, messages settled."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from datetime import datetime
from typing import Any

from servicekit.clock import Clock
from servicekit.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServiceError,
    Unauthenticated,
    Unavailable,
)
from services.cdc_ingest import metrics
from services.cdc_ingest.custody import Custody
from services.cdc_ingest.domain.backlog import Backlog, Batch, Lane, Ticket, lane_to_serve
from services.cdc_ingest.domain.dead_letters import BurialLimit
from services.cdc_ingest.domain.messages import Arrival
from services.cdc_ingest.domain.people import Key
from services.cdc_ingest.domain.rereading import Decision, Guard, Rereadings, Step
from services.cdc_ingest.domain.retries import BackOff
from services.cdc_ingest.domain.staleness import Verdict
from services.cdc_ingest.intake import Intake, Stop
from services.cdc_ingest.metrics import Ledger
from services.cdc_ingest.readings import FactsReading
from services.cdc_ingest.refresher import Refresher

AWAY = (Unavailable, DeadlineExceeded, Exhausted, Unauthenticated, PermissionDenied)
"""Failures that say nothing about the people asked for: everybody else would fail alike."""

HOPELESS = (InvalidArgument, FailedPrecondition, NotFound, AlreadyExists)
"""Failures that another try will not cure."""

# When changes come thick, a call for many costs less than several for few.
_FEW = 4
_GATHERED = 100
# Those due at nearly the same time are read together.
_SHORTEST_NAP_SECONDS = 0.02
_PROBE_BACK_OFF = BackOff(first_seconds=0.2, longest_seconds=10.0)

_log = logging.getLogger(__name__)


class Pipeline:
    """Refreshes whom messages concern, in batches, and settles each message when all are done.

    A lone change is begun at once; while batches are under way the next gathers. Everything runs
    on one event loop.
    """

    def __init__(
        self,
        refresher: Refresher,
        custody: Custody,
        intake: Intake,
        ledger: Ledger,
        guard: Guard,
        clock: Clock,
        *,
        batch_users: int,
        batches_in_flight: int,
        bulk_above_users: int,
        max_receives: int,
        dead_letters_per_minute: int,
    ) -> None:
        self._refresher = refresher
        self._custody = custody
        self._intake = intake
        self._ledger = ledger
        self._guard = guard
        self._clock = clock
        self._batch_users = batch_users
        self._batches_in_flight = batches_in_flight
        self._max_receives = max_receives
        self._burials = BurialLimit(dead_letters_per_minute)
        self._backlog = Backlog(bulk_above_users)
        self._rereadings = Rereadings()
        self._latest_size = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._running: Counter[Lane] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_away = False
        self._setbacks = 0
        self._is_stopping = False
        self._waiting: asyncio.Task[None] | None = None

    def accept(self, arrivals: Sequence[Arrival]) -> None:
        """Take on messages just received."""
        self._custody.hold(arrivals)
        self._ledger.arrived(arrivals)
        for arrival in arrivals:
            self._take_on(arrival)
        self._pump()

    async def stop(self, seconds: float) -> None:
        """Finish the batches under way, within `seconds`; everything else goes back to SQS."""
        self._is_stopping = True
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.wait((self._waiting,))
        if self._alarm is not None:
            self._alarm.cancel()
        self._return(self._backlog.drain())
        self._return(self._rereadings.drain())
        self._pump()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=seconds)
            for task in unfinished:
                task.cancel()
            if unfinished:
                await asyncio.wait(unfinished)

    def resume(self) -> None:
        """Receive again, after an operator's pause or an alarm about dead letters."""
        self._burials.forgive()
        self._ledger.dead_letter_alarm(is_on=False)
        for why in (Stop.OPERATOR, Stop.DEAD_LETTERS):
            self._intake.go(why)

    def waiting(self, lane: Lane) -> int:
        """How many people and rows wait in a lane, those to be read again not counted."""
        return self._backlog.waiting(lane)

    def _take_on(self, arrival: Arrival) -> None:
        demand = arrival.demand
        ticket = Ticket(
            arrival.message, arrival.times, demand.owners, arrival.sightings, fault=demand.fault
        )
        if self._is_stopping:
            self._return([ticket])
            return
        self._guard.note(arrival.sightings)
        if demand.lost_track is not None:
            ticket.outstanding += 1
            reason = f"cdc_ingest: {demand.lost_track.cause} {demand.lost_track.table}".strip()
            self._spawn(self._want_full_run(ticket, reason))
        self._backlog.add(ticket, demand.by_transaction)
        if not ticket.outstanding:
            self._settle(ticket)

    def _pump(self) -> None:
        self._begin_batches()
        # Also while nothing is begun: that is when somebody looks.
        for lane in Lane:
            metrics.waiting(lane.value, self._backlog.waiting(lane))

    def _begin_batches(self) -> None:
        while not self._is_away and not self._is_stopping:
            gather = _GATHERED if self._latest_size > _FEW else 1
            lane = lane_to_serve(self._backlog, self._running, self._batches_in_flight, gather)
            if lane is None:
                return
            batch = self._backlog.take(lane, self._batch_users)
            if batch.waiting:
                self._running[lane] += 1
                self._latest_size = len(batch.waiting)
                self._ledger.batch_started(lane.value, len(batch.waiting))
                self._spawn(self._run(batch))

    async def _run(self, batch: Batch) -> None:
        try:
            await self._process(batch)
        except asyncio.CancelledError:
            self._return(_open(batch))
            raise
        except Exception:
            # A message nobody finishes would be kept hidden for ever.
            _log.exception("batch_failed")
            self._retry(_open(batch))
        finally:
            self._running[batch.lane] -= 1
            self._pump()

    async def _process(self, batch: Batch) -> None:
        """Refresh a batch; when it is refused, find out by halves who is to blame."""
        began_at = self._clock.now()
        try:
            reading = await self._refresher.refresh(batch)
        except AWAY as error:
            self._set_back(error)
            self._retry(_open(batch))
        except Exception as error:
            if len(batch.waiting) > 1:
                for half in batch.halves():
                    await self._process(half)
            else:
                self._failed_alone(batch, error)
        else:
            self._setbacks = 0
            self._advance(batch, reading, began_at)

    async def _want_full_run(self, ticket: Ticket, reason: str) -> None:
        self._ledger.full_run_wanted()
        try:
            asked = await self._refresher.ask_full_run(ticket, reason)
        except ServiceError as error:
            _log.warning("full_run_not_asked", extra={"error": str(error)})
            self._retry([ticket])
            return
        except asyncio.CancelledError:
            self._return([ticket])
            raise
        except Exception:
            _log.exception("full_run_not_asked")
            self._retry([ticket])
            return
        _log.warning("full_run_wanted", extra={"cause": reason, "asked": asked})
        self._finish_one(ticket)

    def _advance(self, batch: Batch, reading: FactsReading, read_at: datetime) -> None:
        """Finish what the reading shows; the rest is read again."""
        now = self._clock.now()
        verdicts: Counter[Verdict] = Counter()
        for key, tickets in batch.waiting.items():
            for ticket in tickets:
                # One that is to be buried has an end of its own.
                if ticket.fault is not None or ticket.is_abandoned:
                    self._finish_one(ticket)
                    continue
                decision = self._guard.decide(ticket, key, reading, read_at, now)
                verdicts[decision.verdict] += 1
                if decision.at is not None:
                    self._read_again(decision.at, batch.lane, key, ticket)
                elif decision.step is Step.PUT_BACK:
                    self._retry([ticket])
                else:
                    self._end(ticket, decision)
        self._ledger.judged(verdicts)
        self._set_alarm()

    def _end(self, ticket: Ticket, decision: Decision) -> None:
        extra = {"message_id": ticket.message.message_id, "verdict": decision.verdict.name}
        if decision.step is Step.BURY:
            ticket.fault = "READING_STALE"
            _log.error("reading_stale", extra=extra)
        elif decision.verdict is Verdict.DOUBTFUL:
            _log.info("reading_doubtful", extra=extra)
        self._finish_one(ticket)

    def _read_again(self, at: datetime, lane: Lane, key: Key, ticket: Ticket) -> None:
        if self._is_stopping:
            self._return([ticket])
        else:
            self._rereadings.add(at, lane, key, ticket)

    def _set_alarm(self) -> None:
        """Wake up when the next one is to be read again."""
        next_at = self._rereadings.next_at
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if next_at is not None and not self._is_stopping:
            seconds = max(_SHORTEST_NAP_SECONDS, (next_at - self._clock.now()).total_seconds())
            self._alarm = asyncio.get_running_loop().call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        for lane, key, ticket in self._rereadings.take_due(self._clock.now()):
            self._backlog.again(lane, key, ticket)
        self._set_alarm()
        self._pump()

    def _finish_one(self, ticket: Ticket) -> None:
        ticket.outstanding -= 1
        if not ticket.outstanding and not ticket.is_abandoned:
            self._settle(ticket)

    def _settle(self, ticket: Ticket) -> None:
        if ticket.fault is not None and not self._burials.admit(self._clock.now()):
            self._raise_alarm(ticket.fault)
            self._retry([ticket])
            return
        ticket.is_settled = True
        if ticket.fault is None:
            self._custody.delete(ticket.message)
        else:
            self._custody.bury(ticket.message, ticket.fault)

    def _raise_alarm(self, reason: str) -> None:
        if not self._intake.is_stopped(Stop.DEAD_LETTERS):
            _log.error("dead_letter_alarm", extra={"dead_reason": reason})
            self._intake.stop(Stop.DEAD_LETTERS)
            self._ledger.dead_letter_alarm(is_on=True)

    def _failed_alone(self, batch: Batch, error: Exception) -> None:
        """Somebody fails by himself: give his messages up, or try again if that may help."""
        reason = error.reason if isinstance(error, ServiceError) else "INGEST_FAILED"
        cause = None if isinstance(error, ServiceError) else error
        _log.warning("refresh_failed", exc_info=cause, extra={"error": reason})
        for ticket in _open(batch):
            spent = ticket.message.receive_count >= self._max_receives
            if isinstance(error, HOPELESS) or spent:
                ticket.fault = ticket.fault or reason
                self._finish_one(ticket)
            else:
                self._retry([ticket])

    def _retry(self, tickets: Iterable[Ticket]) -> None:
        self._put_back(tickets, None)

    def _return(self, tickets: Iterable[Ticket]) -> None:
        self._put_back(tickets, 0)

    def _put_back(self, tickets: Iterable[Ticket], seconds: int | None) -> None:
        for ticket in tickets:
            # Several things are done for one message: each may fail, but it ends only once.
            if not ticket.is_abandoned and not ticket.is_settled:
                ticket.is_abandoned = True
                self._custody.put_back(ticket.message, seconds)

    def _set_back(self, error: ServiceError) -> None:
        if self._is_away or self._is_stopping:
            return
        _log.warning("downstream_away", extra={"error": str(error)})
        self._is_away = True
        self._intake.stop(Stop.DOWNSTREAM)
        self._ledger.downstream(is_away=True)
        self._waiting = asyncio.create_task(self._wait_for_downstream())

    async def _wait_for_downstream(self) -> None:
        while True:
            self._setbacks += 1
            # Spreading retries needs no secrecy.
            luck = random.random()  # noqa: S311
            await asyncio.sleep(_PROBE_BACK_OFF.seconds(self._setbacks, luck))
            try:
                await self._refresher.probe()
            except AWAY as error:
                _log.debug("downstream_still_away", extra={"error": str(error)})
            except ServiceError:
                # An answer of any other kind is a sign of life.
                break
            except Exception:
                # Whoever stopped asking would wait for ever.
                _log.exception("probe_failed")
            else:
                break
        _log.info("downstream_back")
        self._is_away = False
        self._ledger.downstream(is_away=False)
        self._intake.go(Stop.DOWNSTREAM)
        self._pump()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _open(batch: Batch) -> list[Ticket]:
    return [ticket for ticket in batch.tickets() if not ticket.is_abandoned]
