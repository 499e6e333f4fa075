"""Accepts messages, has their people refreshed and applied in batches, settles the messages."""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from datetime import datetime
from typing import Any

from servicekit.backoff import SERVICE_FAULTS, Backoff
from servicekit.clock import Clock
from servicekit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ServiceError,
)
from services.cdc_ingest import metrics
from services.cdc_ingest.domain.backlog import (
    Backlog,
    Lane,
    MessageTicket,
    RefreshBatch,
    lane_to_serve,
)
from services.cdc_ingest.domain.dead_letters import DeadLetterRateLimit
from services.cdc_ingest.domain.messages import Arrival
from services.cdc_ingest.domain.rereading import Rereadings, StalenessCheck, Step
from services.cdc_ingest.domain.staleness import ReadingVerdict
from services.cdc_ingest.refresh.readings import FactsReading
from services.cdc_ingest.refresh.refresher import Refresher
from services.cdc_ingest.sqs.in_flight import InFlight
from services.cdc_ingest.sqs.receive_gate import CloseReason, ReceiveGate

HOPELESS = (InvalidArgument, FailedPrecondition, NotFound, AlreadyExists)
"""Failures that a retry does not cure."""

# Under load, one call for many people costs less than several calls for few.
_SMALL_BATCH = 4
_GATHERED = 100
# So many people are read, rendered and applied within about a tenth of a second.
_BULK_BESIDE_FRESH = 100
# Small changes that came so lately are likely to come again.
_FRESH_SECONDS = 1.0
# Readings that are due at nearly the same time share a batch.
_SHORTEST_WAIT_SECONDS = 0.02
_PROBE_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=10.0)

_log = logging.getLogger(__name__)


class RefreshPipeline:
    """Refreshes the people of messages in batches; settles a message when all its people are done.

    A single change begins at once; while batches run, the next one gathers. Everything runs on one
    event loop.
    """

    def __init__(
        self,
        refresher: Refresher,
        in_flight: InFlight,
        gate: ReceiveGate,
        pipeline_metrics: metrics.PipelineMetrics,
        staleness_check: StalenessCheck,
        clock: Clock,
        *,
        batch_users: int,
        batches_in_flight: int,
        bulk_above_users: int,
        max_receives: int,
        dead_letters_per_minute: int,
    ) -> None:
        self._refresher = refresher
        self._in_flight = in_flight
        self._gate = gate
        self._metrics = pipeline_metrics
        self._staleness_check = staleness_check
        self._clock = clock
        self._batch_users = batch_users
        self._batches_in_flight = batches_in_flight
        self._max_receives = max_receives
        self._dead_letter_limit = DeadLetterRateLimit(dead_letters_per_minute)
        self._backlog = Backlog(bulk_above_users)
        self._rereadings = Rereadings()
        self._latest_sizes: Counter[Lane] = Counter()
        self._fresh_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._running: Counter[Lane] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_unavailable = False
        self._failed_probes = 0
        self._is_stopping = False
        self._waiting: asyncio.Task[None] | None = None

    def accept(self, arrivals: Sequence[Arrival]) -> None:
        """Accept messages just received."""
        self._in_flight.hold(arrivals)
        self._metrics.arrived(arrivals)
        for arrival in arrivals:
            demand = arrival.demand
            ticket = MessageTicket(
                arrival.message,
                arrival.times,
                demand.owners,
                arrival.observations,
                fault=demand.fault,
            )
            if self._is_stopping:
                self._return([ticket])
                continue
            self._staleness_check.note(arrival.observations)
            if demand.lost_track is not None:
                ticket.outstanding += 1
                reason = f"cdc_ingest: {demand.lost_track.cause} {demand.lost_track.table}".strip()
                self._spawn(self._want_full_run(ticket, reason))
            self._backlog.add(ticket, demand.by_transaction)
            if not ticket.outstanding:
                self._settle(ticket)
        self._begin_batches()

    async def stop(self, seconds: float) -> None:
        """Finish the batches under way within `seconds`; return all other messages to SQS."""
        self._is_stopping = True
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.wait((self._waiting,))
        if self._timer is not None:
            self._timer.cancel()
        self._return(self._backlog.drain())
        self._return(self._rereadings.drain())
        self._begin_batches()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=seconds)
            for task in unfinished:
                task.cancel()
            if unfinished:
                await asyncio.wait(unfinished)

    def resume(self) -> None:
        """Receive again after an operator's pause or a dead-letter alarm."""
        self._dead_letter_limit.reset()
        self._metrics.dead_letter_alarm(is_on=False)
        for reason in (CloseReason.OPERATOR, CloseReason.DEAD_LETTERS):
            self._gate.open(reason)

    def waiting(self, lane: Lane) -> int:
        """Return how many people and rows wait in a lane, without those to be read again later."""
        return self._backlog.waiting(lane)

    def _begin_batches(self) -> None:
        """Begin all batches that may run, and set the gauges of what waits."""
        while not self._is_unavailable and not self._is_stopping:
            gathering = {
                each: _GATHERED if size > _SMALL_BATCH else 1
                for each, size in self._latest_sizes.items()
            }
            lane = lane_to_serve(self._backlog, self._running, self._batches_in_flight, gathering)
            if lane is None:
                break
            batch = self._backlog.take(lane, self._size_limit(lane))
            if batch.waiting:
                self._running[lane] += 1
                self._latest_sizes[lane] = len(batch.waiting)
                self._metrics.batch_started(lane.value, len(batch.waiting))
                self._spawn(self._run(batch))
        for lane in Lane:
            metrics.waiting(lane.value, self._backlog.waiting(lane))

    def _size_limit(self, lane: Lane) -> int:
        """Return how many people the next batch may have.

        Bulk batches are smaller while small changes come: those share the processor, the event
        loops and the database with them.
        """
        now = self._clock.monotonic()
        if lane is Lane.FRESH:
            self._fresh_until = now + _FRESH_SECONDS
        elif now < self._fresh_until:
            return min(_BULK_BESIDE_FRESH, self._batch_users)
        return self._batch_users

    async def _run(self, batch: RefreshBatch) -> None:
        try:
            await self._process(batch)
        except asyncio.CancelledError:
            self._return(_open(batch))
            raise
        except Exception:
            # A message that is never finished would stay invisible for ever.
            _log.exception("batch_failed")
            self._retry(_open(batch))
        finally:
            self._running[batch.lane] -= 1
            self._begin_batches()

    async def _process(self, batch: RefreshBatch) -> None:
        """Refresh a batch; when it is refused, refresh its halves, to find the key that fails."""
        began_at = self._clock.now()
        try:
            reading = await self._refresher.refresh(batch)
        except SERVICE_FAULTS as error:
            if not self._is_unavailable and not self._is_stopping:
                _log.warning("downstream_away", extra={"error": str(error)})
                self._is_unavailable = True
                self._gate.close(CloseReason.DOWNSTREAM)
                self._metrics.downstream(is_unavailable=True)
                self._waiting = asyncio.create_task(self._wait_for_downstream())
            self._retry(_open(batch))
        except Exception as error:
            if len(batch.waiting) > 1:
                for half in batch.halves():
                    await self._process(half)
                return
            # One key fails by itself: dead-letter its messages, or retry if that may help.
            reason = error.reason if isinstance(error, ServiceError) else "INGEST_FAILED"
            cause = None if isinstance(error, ServiceError) else error
            _log.warning("refresh_failed", exc_info=cause, extra={"error": reason})
            for ticket in _open(batch):
                is_last_try = ticket.message.receive_count >= self._max_receives
                if isinstance(error, HOPELESS) or is_last_try:
                    ticket.fault = ticket.fault or reason
                    self._finish_one(ticket)
                else:
                    self._retry([ticket])
        else:
            self._failed_probes = 0
            self._advance(batch, reading, began_at)

    async def _want_full_run(self, ticket: MessageTicket, reason: str) -> None:
        self._metrics.full_run_wanted()
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

    def _advance(self, batch: RefreshBatch, reading: FactsReading, read_at: datetime) -> None:
        """Finish the keys whose changes the reading shows; the others are read again."""
        now = self._clock.now()
        verdicts: Counter[ReadingVerdict] = Counter()
        for key, tickets in batch.waiting.items():
            for ticket in tickets:
                # A ticket with a fault goes to the dead-letter queue, whatever the reading shows.
                if ticket.fault is not None or ticket.is_abandoned:
                    self._finish_one(ticket)
                    continue
                decision = self._staleness_check.decide(ticket, key, reading, read_at, now)
                verdicts[decision.verdict] += 1
                if decision.at is not None:
                    if self._is_stopping:
                        self._return([ticket])
                    else:
                        self._rereadings.add(decision.at, batch.lane, key, ticket)
                    continue
                if decision.step is Step.PUT_BACK:
                    self._retry([ticket])
                    continue
                extra = {
                    "message_id": ticket.message.message_id,
                    "verdict": decision.verdict.name,
                }
                if decision.step is Step.DEAD_LETTER:
                    ticket.fault = "READING_STALE"
                    _log.error("reading_stale", extra=extra)
                elif decision.verdict is ReadingVerdict.DOUBTFUL:
                    _log.info("reading_doubtful", extra=extra)
                self._finish_one(ticket)
        self._metrics.judged(verdicts)
        self._set_timer()

    def _set_timer(self) -> None:
        """Set the timer for the next key that is to be read again."""
        next_at = self._rereadings.next_at
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if next_at is not None and not self._is_stopping:
            seconds = max(_SHORTEST_WAIT_SECONDS, (next_at - self._clock.now()).total_seconds())
            self._timer = asyncio.get_running_loop().call_later(seconds, self._reread_due)

    def _reread_due(self) -> None:
        self._timer = None
        for lane, key, ticket in self._rereadings.take_due(self._clock.now()):
            self._backlog.again(lane, key, ticket)
        self._set_timer()
        self._begin_batches()

    def _finish_one(self, ticket: MessageTicket) -> None:
        ticket.outstanding -= 1
        if not ticket.outstanding and not ticket.is_abandoned:
            self._settle(ticket)

    def _settle(self, ticket: MessageTicket) -> None:
        if ticket.fault is not None and not self._dead_letter_limit.admit(self._clock.now()):
            if not self._gate.is_closed_for(CloseReason.DEAD_LETTERS):
                _log.error("dead_letter_alarm", extra={"dead_reason": ticket.fault})
                self._gate.close(CloseReason.DEAD_LETTERS)
                self._metrics.dead_letter_alarm(is_on=True)
            self._retry([ticket])
            return
        ticket.is_settled = True
        if ticket.fault is None:
            self._in_flight.delete(ticket.message)
        else:
            self._in_flight.dead_letter(ticket.message, ticket.fault)

    def _retry(self, tickets: Iterable[MessageTicket]) -> None:
        self._put_back(tickets, None)

    def _return(self, tickets: Iterable[MessageTicket]) -> None:
        self._put_back(tickets, 0)

    def _put_back(self, tickets: Iterable[MessageTicket], seconds: int | None) -> None:
        for ticket in tickets:
            # Several keys of one message may fail, but the message is put back only once.
            if not ticket.is_abandoned and not ticket.is_settled:
                ticket.is_abandoned = True
                self._in_flight.put_back(ticket.message, seconds)

    async def _wait_for_downstream(self) -> None:
        while True:
            self._failed_probes += 1
            await asyncio.sleep(_PROBE_BACKOFF.delay_seconds(self._failed_probes))
            try:
                await self._refresher.probe()
            except SERVICE_FAULTS as error:
                _log.debug("downstream_still_away", extra={"error": str(error)})
            except ServiceError:
                # Any other answer shows that the services are available.
                break
            except Exception:
                # Without further probes the pipeline would never go on.
                _log.exception("probe_failed")
            else:
                break
        _log.info("downstream_back")
        self._is_unavailable = False
        self._metrics.downstream(is_unavailable=False)
        self._gate.open(CloseReason.DOWNSTREAM)
        self._begin_batches()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _open(batch: RefreshBatch) -> list[MessageTicket]:
    return [ticket for ticket in batch.tickets() if not ticket.is_abandoned]
