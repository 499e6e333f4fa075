"""One term as the active copy: reads, publishes, saves, and reconnects after whatever happens."""

import asyncio
import contextlib
import logging
import random
import time
from dataclasses import dataclass, field

import pymysql

from mainapp.description import Description
from servicekit.errors import Conflict, FailedPrecondition, ServiceError
from services.binlog_relay import metrics
from services.binlog_relay.backlog import Backlog, BacklogClosedError
from services.binlog_relay.binlog import (
    CAUGHT_UP,
    BinlogReader,
    PositionLostError,
    Start,
    StreamEndedError,
)
from services.binlog_relay.dms import heartbeat_record
from services.binlog_relay.domain.ledger import Entry, Ledger
from services.binlog_relay.domain.packing import Beat, Change, Limits, Load, Message
from services.binlog_relay.domain.positions import Position, Resume, way_to_resume
from services.binlog_relay.mysql_server import ServerState, Source, examine
from services.binlog_relay.publisher import Publisher
from services.binlog_relay.repairs import Repairs
from services.binlog_relay.store import PositionStore

_log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.1
_POISONED_AFTER = 3
_SETTLE_SECONDS = 5.0
_SMALL_SENDS = 2


@dataclass(frozen=True, slots=True)
class Pace:
    """How the relay reads, sends and saves."""

    limits: Limits
    server_id: int
    heartbeat_seconds: float
    capture_heartbeat_seconds: float
    sends_in_flight: int
    backlog_bytes: int
    save_interval_seconds: float
    retry_longest_seconds: float


@dataclass(slots=True)
class Progress:
    """What has happened since the process started; `heard_at` is of the monotonic clock."""

    records: int = 0
    messages: int = 0
    heard_at: float | None = None


@dataclass(frozen=True, slots=True)
class Tools:
    """What a term works with; it owns none of it."""

    source: Source
    description: Description
    store: PositionStore
    publisher: Publisher
    repairs: Repairs
    pace: Pace
    progress: Progress = field(default_factory=Progress)


class Term:
    """`run` until cancelled; `abandon` first when others may be active already."""

    def __init__(self, tools: Tools, epoch: int, saved: Position | None) -> None:
        self._tools = tools
        self._epoch = epoch
        self._saved = saved
        self._resume_at = saved
        self._ledger: Ledger | None = None
        self._reader: BinlogReader | None = None
        self._sends: set[asyncio.Task[None]] = set()
        self._beat: asyncio.Task[None] | None = None
        self._is_beat_due = False
        self._broken: asyncio.Future[None] | None = None
        self._saved_records = tools.progress.records
        self._failures = 0
        self._puzzles = 0
        self._is_abandoned = False
        self._is_stopping = False

    @property
    def heard_at(self) -> float | None:
        """When the binlog was last heard, by the monotonic clock."""
        return self._reader.last_event_at if self._reader else None

    def abandon(self) -> None:
        """Publish and save nothing more."""
        self._is_abandoned = True
        for send in self._sends:
            send.cancel()
        if self._beat is not None:
            self._beat.cancel()

    async def run(self) -> None:
        """Work; raises Conflict when another copy has taken over."""
        saving = asyncio.create_task(self._save_forever(), name="save-position")
        following = asyncio.create_task(self._follow_forever(), name="follow")
        try:
            await asyncio.wait((saving, following), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._is_stopping = True
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
                self._ended("position_lost", error)
                lost = "position_lost"
            except FailedPrecondition as error:
                self._ended(error.reason, error)
            except (pymysql.err.MySQLError, StreamEndedError, BacklogClosedError, OSError) as error:
                self._ended(type(error).__name__, error)
            except Exception as error:
                _log.exception("stream_failed")
                self._ended("unexpected", error)
                self._puzzles += 1
                lost = "unreadable_event" if self._puzzles >= _POISONED_AFTER else None
            if time.monotonic() - began > self._tools.pace.retry_longest_seconds:
                self._failures = 1
            await self._rest()

    def _ended(self, cause: str, error: Exception) -> None:
        metrics.STREAM_ENDS.labels(cause).inc()
        self._failures += 1
        level = logging.WARNING if self._failures == 1 else logging.DEBUG
        _log.log(level, "stream_ended", extra={"cause": cause, "error": _named(error)})

    async def _rest(self) -> None:
        longest = self._tools.pace.retry_longest_seconds
        pause = min(longest, _FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 16))
        # Spreading retries needs no secrecy.
        await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311

    async def _begin(self, lost: str | None) -> Start:
        """Return where to read from; what cannot be resumed becomes a gap and a new beginning."""
        state: ServerState = await asyncio.to_thread(examine, self._tools.source)
        position = self._resume_at
        if position is None:
            self._tools.repairs.want("first_start", is_gap=False)
            return Start(state.position, Resume.BY_FILE, state)
        resume = way_to_resume(position, state.identity, has_gtids=state.has_gtids)
        if lost is not None or resume is Resume.LOST:
            self._tools.repairs.want(lost or "another_server")
            return Start(state.position, Resume.BY_FILE, state)
        return Start(position, resume, state)

    async def _session(self, start: Start) -> None:
        """Read one connection to its end and raise what ended it."""
        tools, pace = self._tools, self._tools.pace
        ledger = self._ledger = Ledger(start.position)
        backlog = Backlog(pace.backlog_bytes, pace.limits)
        reader = self._reader = BinlogReader(
            tools.source,
            start,
            tools.description,
            backlog.put,
            server_id=pace.server_id,
            heartbeat_seconds=pace.heartbeat_seconds,
        )
        _log.info("reading", extra={"file": start.position.file, "offset": start.position.offset})
        reading = asyncio.get_running_loop().run_in_executor(None, reader.run)
        pumping = asyncio.create_task(self._pump(backlog, ledger), name="pump")
        beating = asyncio.create_task(self._beat_forever(reader, backlog), name="beat")
        self._broken = asyncio.get_running_loop().create_future()
        ends = (reading, pumping, self._broken)
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tools.progress.heard_at = reader.last_event_at
            reader.stop()
            backlog.close()
            await _cancel(pumping)
            await self._end_beats(beating)
            await self._settle(reading)
            self._resume_at = ledger.published
            if ledger.published != start.position:
                self._failures = self._puzzles = 0
            _note_failures(*ends)
        _raise_what_failed(*ends)

    async def _settle(self, reading: "asyncio.Future[None]") -> None:
        """Wait for the reading thread and for sends under way, which retry as long as it takes."""
        await asyncio.wait((reading,), timeout=_SETTLE_SECONDS)
        await self._end_sends(_SETTLE_SECONDS if self._is_stopping else None)

    async def _end_sends(self, timeout_seconds: float | None) -> None:
        if self._sends:
            await asyncio.wait(self._sends, timeout=timeout_seconds)
        for send in self._sends:
            send.cancel()

    async def _pump(self, backlog: Backlog, ledger: Ledger) -> None:
        while True:
            await self._room_to_send(backlog)
            load = await backlog.take()
            for reason in load.blind_spots:
                self._tools.repairs.want(reason)
            entry = ledger.open(load.position)
            if load.messages:
                send = asyncio.create_task(self._send(load, ledger, entry), name="send")
                self._sends.add(send)
                send.add_done_callback(self._sent)
            else:
                ledger.close(entry)
            if load.beat is not None:
                beat = self._publish_beat(load.beat, frozenset(self._sends))
                self._beat = asyncio.create_task(beat, name="send-beat")

    async def _beat_forever(self, reader: BinlogReader, backlog: Backlog) -> None:
        """Have a heartbeat follow what has been read, whenever the binlog was heard since the last.

        None while a gap waits for its repair: not everything read before is on its way.
        """
        seconds, last = self._tools.pace.capture_heartbeat_seconds, 0.0
        while seconds:
            await asyncio.sleep(seconds)
            heard_at, written = reader.last_event_at, reader.last_event_seconds
            if heard_at is None or heard_at == last or not written or self._is_beat_due:
                continue
            if not self._tools.repairs.is_wanted:
                last, self._is_beat_due = heard_at, True
                heard_at_us = time.time_ns() // 1000 - int((time.monotonic() - heard_at) * 1e6)
                through = heard_at_us if written == CAUGHT_UP else written * 1_000_000
                backlog.beat(Beat(heard_at_us, through))

    async def _publish_beat(self, beat: Beat, earlier: "frozenset[asyncio.Task[None]]") -> None:
        if earlier:
            await asyncio.wait(earlier)
        if self._broken is None or self._broken.done() or any(s.cancelled() for s in earlier):
            return
        if self._tools.repairs.is_wanted:
            self._is_beat_due = False
            return
        body = heartbeat_record(self._tools.source.database, *beat)
        await self._tools.publisher.publish([Message([Change(body, *beat)])])
        metrics.HEARTBEATS.inc()
        self._is_beat_due = False

    async def _end_beats(self, beating: "asyncio.Task[None]") -> None:
        await _cancel(beating)
        if self._beat is not None:
            await _cancel(self._beat)
        self._is_beat_due = False

    async def _room_to_send(self, backlog: Backlog) -> None:
        """Wait while changes had better gather: small loads overlap a little, full ones more."""
        pace = self._tools.pace
        while len(self._sends) >= min(_SMALL_SENDS, pace.sends_in_flight):
            is_full = backlog.waiting_bytes >= pace.limits.max_message_bytes
            if is_full and len(self._sends) < pace.sends_in_flight:
                return
            await asyncio.wait(self._sends, return_when=asyncio.FIRST_COMPLETED)

    def _sent(self, send: "asyncio.Task[None]") -> None:
        self._sends.discard(send)
        error = None if send.cancelled() else send.exception()
        if error is not None and self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)

    async def _send(self, load: Load, ledger: Ledger, entry: Entry) -> None:
        for code in await self._tools.publisher.publish(load.messages):
            self._tools.repairs.want(f"sqs_refused_{code}")
        ledger.close(entry)
        self._count(load)

    def _count(self, load: Load) -> None:
        now_us = time.time_ns() // 1000
        progress = self._tools.progress
        progress.records += load.records
        progress.messages += len(load.messages)
        metrics.RECORDS.inc(load.records)
        metrics.MESSAGES.inc(len(load.messages))
        for message in load.messages:
            metrics.PUBLISH_SECONDS.observe((now_us - message.captured_at_us) / 1e6)
        newest = load.messages[-1].changes[-1].committed_at_us
        metrics.COMMIT_LAG_SECONDS.set((now_us - newest) / 1e6)

    async def _save_forever(self) -> None:
        is_failing = False
        while True:
            await asyncio.sleep(self._tools.pace.save_interval_seconds)
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
        # Beyond a gap nothing may be saved before somebody has promised to repair it.
        if self._ledger is None or self._tools.repairs.is_wanted:
            return
        position = self._ledger.published
        if position == self._saved:
            return
        records = self._tools.progress.records
        await self._tools.store.save(self._epoch, position, records - self._saved_records)
        self._saved, self._saved_records = position, records


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait((task,))


def _raise_what_failed(*ended: "asyncio.Future[None]") -> None:
    for one in ended:
        if one.done() and not one.cancelled():
            one.result()


def _note_failures(*ended: "asyncio.Future[None]") -> None:
    """Keep asyncio from reporting failures that nobody asks for when we were cancelled."""
    for one in ended:
        if one.done() and not one.cancelled():
            one.exception()


def _named(error: BaseException) -> str:
    if isinstance(error, pymysql.err.MySQLError) and error.args:
        return f"{type(error).__name__} {error.args[0]}"
    return str(error) or type(error).__name__
