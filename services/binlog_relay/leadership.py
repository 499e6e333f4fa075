"""The work of the active replica: it reads, publishes, saves, and reconnects after a failure."""

import asyncio
import contextlib
import logging
import math
import time
from dataclasses import dataclass, field

import pymysql

from mainapp.description import Description
from servicekit.backoff import Backoff
from servicekit.errors import Conflict, FailedPrecondition, ServiceError, Unavailable
from services.binlog_relay import metrics
from services.binlog_relay.binlog.reader import (
    CAUGHT_UP,
    BinlogReader,
    StreamEndedError,
    StreamStart,
)
from services.binlog_relay.binlog.server import MySqlSource, ServerState, examine
from services.binlog_relay.domain.packing import (
    Heartbeat,
    PackedMessage,
    PackingLimits,
    RowChange,
)
from services.binlog_relay.domain.positions import (
    BINLOG_RESET,
    BinlogPosition,
    PositionLostError,
    Resume,
    is_before,
    way_to_resume,
)
from services.binlog_relay.full_run_requests import FullRunRequests
from services.binlog_relay.publish.backlog import (
    BacklogClosedError,
    PackedRequest,
    SendBacklog,
    SendLane,
)
from services.binlog_relay.publish.dms import heartbeat_record
from services.binlog_relay.publish.publisher import Publisher
from services.binlog_relay.store import PositionStore

_log = logging.getLogger(__name__)

_POISONED_AFTER = 3
_SETTLE_SECONDS = 5.0
_SMALL_SENDS = 2
_CONFIRM_SECONDS = 5.0
_SETTINGS = "settings"


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """The limits and intervals by which the relay reads, sends and saves."""

    limits: PackingLimits
    max_record_bytes: int
    bulk_above_bytes: int
    server_id: int
    heartbeat_seconds: float
    capture_heartbeat_seconds: float
    sends_in_flight: int
    backlog_bytes: int
    save_interval_seconds: float
    retry_longest_seconds: float


@dataclass(slots=True)
class RelayProgress:
    """What has happened since the process started; `heard_at` is of the monotonic clock."""

    records: int = 0
    messages: int = 0
    heard_at: float | None = None


@dataclass(frozen=True, slots=True)
class RelayResources:
    """What the active replica works with; it owns none of it."""

    source: MySqlSource
    description: Description
    store: PositionStore
    publisher: Publisher
    full_runs: FullRunRequests
    options: RelayOptions
    progress: RelayProgress = field(default_factory=RelayProgress)


class RelayLeadership:
    """Works until `run` is cancelled; call `abandon` first when another replica may be active."""

    def __init__(self, resources: RelayResources, epoch: int, saved: BinlogPosition | None) -> None:
        self._resources = resources
        self._epoch = epoch
        self._saved = saved
        self._resume_at = saved
        self._backlog: SendBacklog | None = None
        self._published: BinlogPosition | None = None
        self._reader: BinlogReader | None = None
        self._sends: set[asyncio.Task[None]] = set()
        self._heartbeat: asyncio.Task[None] | None = None
        self._is_heartbeat_pending = False
        self._broken: asyncio.Future[None] | None = None
        self._saved_records = resources.progress.records
        self._failures = 0
        self._unreadable_events = 0
        self._is_abandoned = False
        self._is_stopping = False
        self._server = saved.server if saved else None
        self._doubt: str | None = None
        self.obstacle: ServiceError | None = None
        """Why no change can come from the server although it answers."""

    @property
    def heard_at(self) -> float | None:
        """When the last event was read, by the monotonic clock."""
        return self._reader.last_event_at if self._reader else None

    def abandon(self) -> None:
        """Publish and save nothing more."""
        self._is_abandoned = True
        for send in self._sends:
            send.cancel()
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    async def run(self) -> None:
        """Work; raises Conflict when another replica has taken over."""
        saving = asyncio.create_task(self._save_forever(), name="save-position")
        following = asyncio.create_task(self._follow_forever(), name="follow")
        try:
            await asyncio.wait((saving, following), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._is_stopping = True
            metrics.SOURCE_IS_UNFIT.set(0)
            await _cancel(following)
            await _cancel(saving)
            await self._end_sends(0.0)
            if saving.cancelled() and not self._is_abandoned:
                with contextlib.suppress(ServiceError):
                    await self._save()
        _raise_what_failed(saving, following)

    async def _follow_forever(self) -> None:
        lost: str | None = None
        while True:
            began = time.monotonic()
            try:
                start = await self._begin(lost)
                lost = None
                await self._session(start)
            except PositionLostError as error:
                self._ended(error.reason, error)
                lost = error.reason
            except FailedPrecondition as error:
                self._ended(error.reason, error)
                lost = _SETTINGS
                self._obstruct(error)
                # The position says nothing of the changes that the settings hide.
                self._backlog = self._published = None
                await self._resources.store.invalidate()
            except (pymysql.err.MySQLError, StreamEndedError, BacklogClosedError, OSError) as error:
                self._ended(type(error).__name__, error)
            except Exception as error:
                _log.exception("stream_failed")
                self._ended("unexpected", error)
                self._unreadable_events += 1
                lost = "unreadable_event" if self._unreadable_events >= _POISONED_AFTER else lost
            longest = self._resources.options.retry_longest_seconds
            if time.monotonic() - began > longest:
                self._failures = 1
            backoff = Backoff(0.1, longest, jitter=(0.8, 1.2))
            await asyncio.sleep(backoff.delay_seconds(self._failures))

    def _ended(self, cause: str, error: Exception) -> None:
        metrics.STREAM_ENDS.labels(cause).inc()
        self._failures += 1
        level = logging.WARNING if self._failures == 1 else logging.DEBUG
        text = str(error) or type(error).__name__
        if isinstance(error, pymysql.err.MySQLError) and error.args:
            text = f"{type(error).__name__} {error.args[0]}"
        _log.log(level, "stream_ended", extra={"cause": cause, "error": text})

    async def _begin(self, lost: str | None) -> StreamStart:
        """Return where to read from; the present end, after a gap, when the position is lost."""
        state = await self._examine()
        self._note(state)
        position, known, self._server = self._resume_at, self._server, state.identity
        if position is None:
            self._resources.full_runs.request("first_start", is_gap=False)
            return StreamStart(state.position, Resume.BY_FILE, state)
        resume = way_to_resume(position, state.identity, has_gtids=state.has_gtids)
        if not known:
            lost = lost or _SETTINGS
        if lost is not None or known != state.identity:
            # This server may lack the last transactions of the one before, which have been sent.
            self._resources.full_runs.request(lost or "another_server")
        if lost is not None or resume is Resume.LOST:
            return StreamStart(state.position, Resume.BY_FILE, state)
        return StreamStart(position, resume, state)

    async def _examine(self) -> ServerState:
        resources = self._resources
        return await asyncio.to_thread(examine, resources.source, resources.description.tables)

    def _note(self, state: ServerState) -> None:
        if state.doubt is not None and state.doubt != self._doubt:
            _log.warning("source_doubtful", extra={"error": state.doubt})
        self._doubt, reason = state.doubt, state.standstill
        self._obstruct(Unavailable("SOURCE_STANDS_STILL", reason) if reason else None)

    def _obstruct(self, error: ServiceError | None) -> None:
        if error is not None and self.obstacle is None:
            _log.warning("source_unfit", extra={"error": str(error)})
        self.obstacle = error
        metrics.SOURCE_IS_UNFIT.set(error is not None)

    async def _session(self, start: StreamStart) -> None:
        """Read one connection to its end and raise what ended it."""
        resources, options = self._resources, self._resources.options
        self._published = start.position
        backlog = self._backlog = SendBacklog(options.backlog_bytes, options.limits)
        reader = self._reader = BinlogReader(
            resources.source,
            start,
            resources.description,
            backlog.put,
            server_id=options.server_id,
            heartbeat_seconds=options.heartbeat_seconds,
            max_record_bytes=options.max_record_bytes,
            bulk_above_bytes=options.bulk_above_bytes,
        )
        _log.info("reading", extra={"file": start.position.file, "offset": start.position.offset})
        reading = asyncio.get_running_loop().run_in_executor(None, reader.run)
        sending = [
            asyncio.create_task(self._send_forever(backlog, lane), name=f"send-{lane.value}")
            for lane in SendLane
        ]
        heartbeats = asyncio.create_task(self._send_heartbeats(reader, backlog), name="heartbeat")
        self._broken = asyncio.get_running_loop().create_future()
        ends = (reading, *sending, heartbeats, self._broken)
        try:
            first, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            resources.progress.heard_at = reader.last_event_at
            reader.stop()
            backlog.close()
            for task in (*sending, heartbeats):
                await _cancel(task)
            if self._heartbeat is not None:
                await _cancel(self._heartbeat)
            self._is_heartbeat_pending = False
            await asyncio.wait((reading,), timeout=_SETTLE_SECONDS)
            # Sends under way retry as long as it takes, unless this replica stops.
            await self._end_sends(_SETTLE_SECONDS if self._is_stopping else None)
            self._advance()
            self._resume_at = self._published
            if self._published != start.position:
                self._failures = self._unreadable_events = 0
            for end in ends:
                # asyncio reports a failure that is never asked for, as after a cancellation.
                if end.done() and not end.cancelled():
                    end.exception()
        # Reading fails too, after another end has closed its connection.
        _raise_what_failed(*first, *ends)

    async def _end_sends(self, timeout_seconds: float | None) -> None:
        if self._sends:
            await asyncio.wait(self._sends, timeout=timeout_seconds)
        for send in self._sends:
            send.cancel()

    async def _send_forever(self, backlog: SendBacklog, lane: SendLane) -> None:
        most = self._resources.options.sends_in_flight
        bulk = max(1, most - _SMALL_SENDS)
        sends: set[asyncio.Task[None]] = set()
        while True:
            # Changes gather while sends are under way: two small requests overlap, full ones more.
            while sends:
                limit = most if backlog.is_full(lane) else min(_SMALL_SENDS, most)
                if len(sends) < (bulk if lane is SendLane.BULK else limit):
                    break
                await asyncio.wait(sends, return_when=asyncio.FIRST_COMPLETED)
            request = await backlog.take(lane)
            send = asyncio.create_task(self._send(request, backlog), name="send")
            for group in (sends, self._sends):
                group.add(send)
            send.add_done_callback(sends.discard)
            send.add_done_callback(self._sent)

    def _advance(self) -> None:
        """Request full runs for gaps, note the published position, send a heartbeat now due."""
        if self._backlog is None:
            return
        progress = self._backlog.progress()
        for reason in progress.gaps:
            self._resources.full_runs.request(reason)
        self._published = progress.position or self._published
        if progress.heartbeat is not None and self._is_heartbeat_pending:
            heartbeat = self._publish_heartbeat(progress.heartbeat)
            self._heartbeat = asyncio.create_task(heartbeat, name="send-heartbeat")

    async def _send_heartbeats(self, reader: BinlogReader, backlog: SendBacklog) -> None:
        """Examine the server regularly, and put heartbeats behind the changes read so far.

        The server is examined every five seconds at least, however seldom heartbeats are sent. A
        heartbeat needs an event since the last one, and a server that confirms that its binlog goes
        on where this replica reads. While a gap waits for a full run there is none, since not every
        change before it will be sent.
        """
        seconds, last = self._resources.options.capture_heartbeat_seconds, 0.0
        looks = max(1, math.ceil(seconds / _CONFIRM_SECONDS))
        due_at = time.monotonic() + seconds
        while True:
            await asyncio.sleep(seconds / looks or _CONFIRM_SECONDS)
            heard_at, written = reader.last_event_at, reader.last_event_seconds
            behind_seconds = await self._confirmed(reader)
            if not seconds or behind_seconds is None or self._is_heartbeat_pending:
                continue
            if heard_at is None or heard_at == last or not written or time.monotonic() < due_at:
                continue
            if not self._resources.full_runs.is_pending:
                last, self._is_heartbeat_pending = heard_at, True
                due_at = time.monotonic() + seconds
                heard_at_us = time.time_ns() // 1000 - int((time.monotonic() - heard_at) * 1e6)
                through = heard_at_us - int(behind_seconds * 1e6)
                if written != CAUGHT_UP:
                    through = min(through, written * 1_000_000)
                backlog.put_heartbeat(Heartbeat(heard_at_us, through))
                self._advance()

    async def _confirmed(self, reader: BinlogReader) -> float | None:
        """Return how far a replica is behind; None when the server is unreachable or stands still.

        Raises:
            StreamEndedError: another server answers at the address, as after a fail-over that left
                our connection open.
            PositionLostError: the binlog has begun anew, or has lost its end.
            FailedPrecondition: the settings have been changed to some that lose changes.
        """
        read_to = reader.read_to
        try:
            state = await self._examine()
        except (pymysql.err.MySQLError, OSError):
            return None
        self._note(state)
        if state.identity != self._server:
            raise StreamEndedError("another server answers at the address")
        if read_to is not None and is_before(state.position, *read_to):
            raise PositionLostError("the binlog ends before what was read", BINLOG_RESET)
        return None if state.standstill else state.behind_seconds

    async def _publish_heartbeat(self, heartbeat: Heartbeat) -> None:
        if self._broken is None or self._broken.done():
            return
        if self._resources.full_runs.is_pending:
            self._is_heartbeat_pending = False
            return
        body = heartbeat_record(self._resources.source.database, *heartbeat)
        if not await self._resources.publisher.publish(
            [PackedMessage([RowChange(body, *heartbeat)])]
        ):
            metrics.HEARTBEATS.inc()
        self._is_heartbeat_pending = False

    def _sent(self, send: "asyncio.Task[None]") -> None:
        self._sends.discard(send)
        error = None if send.cancelled() else send.exception()
        if error is not None and self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)

    async def _send(self, packed: PackedRequest, backlog: SendBacklog) -> None:
        for code in await self._resources.publisher.publish(packed.messages):
            self._resources.full_runs.request(f"sqs_refused_{code}")
        backlog.published(packed)
        self._advance()
        now_us = time.time_ns() // 1000
        progress = self._resources.progress
        progress.records += packed.rows
        progress.messages += len(packed.messages)
        metrics.RECORDS.inc(packed.rows)
        metrics.MESSAGES.inc(len(packed.messages))
        for message in packed.messages:
            metrics.PUBLISH_SECONDS.observe((now_us - message.captured_at_us) / 1e6)
        newest = packed.messages[-1].changes[-1].committed_at_us
        metrics.COMMIT_LAG_SECONDS.set((now_us - newest) / 1e6)

    async def _save_forever(self) -> None:
        is_failing = False
        while True:
            await asyncio.sleep(self._resources.options.save_interval_seconds)
            try:
                await self._save()
                is_failing = False
            except Conflict:
                raise
            except ServiceError as error:
                if not is_failing:
                    _log.warning("position_not_saved", extra={"error": str(error)})
                is_failing = True

    async def _save(self) -> None:
        # Beyond a gap no position is saved before the reconciler has accepted a full run.
        self._advance()
        position = self._published
        if position is None or position == self._saved or self._resources.full_runs.is_pending:
            return
        records = self._resources.progress.records
        await self._resources.store.save(self._epoch, position, records - self._saved_records)
        self._saved, self._saved_records = position, records


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait((task,))


def _raise_what_failed(*ended: "asyncio.Future[None]") -> None:
    for one in ended:
        if one.done() and not one.cancelled():
            one.result()
