"""The state of the pipeline: ingest, relay, cache, reconciliation, and the data's health."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self, TypeVar

from dialler.binlog_relay.v1 import binlog_relay_pb2
from dialler.cdc_ingest.v1 import cdc_ingest_pb2
from dialler.queue.v1 import queue_pb2
from dialler.reconciler.v1 import reconciler_pb2
from dialler.user_context.v1 import user_context_pb2
from pydantic import BaseModel, Field

from gateway.channels import configured
from gateway.resources.fields import Id, Moment
from gateway.resources.reconciliations import Freshness, FreshnessMode, Reconciliation
from servicekit import deadline
from servicekit.call_state_json import moment_in
from servicekit.errors import ServiceError

if TYPE_CHECKING:
    from dialler.binlog_relay.v1.binlog_relay_pb2_grpc import BinlogRelayServiceAsyncStub
    from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceAsyncStub
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub
    from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceAsyncStub
    from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceAsyncStub

PART_SECONDS = 1.0
# Replicas answer in turn: of three, as during a roll-out, one is the active one.
RELAYS_ASKED = 3
# Changes take about a second; a capture this far ahead of what is applied means a backlog.
LATE = timedelta(seconds=30)
# Synchronised clocks differ by milliseconds.
SKEWED = timedelta(seconds=1)

T = TypeVar("T")


class Latency(BaseModel):
    """Percentiles of a latency."""

    count: int
    p50_seconds: float
    p99_seconds: float


class Ingest(BaseModel):
    """What one replica of cdc_ingest does and has done since it started."""

    paused: bool
    messages_received: int
    messages_done: int
    messages_retried: int
    messages_dead: int
    records: int
    records_ignored: int
    users_refreshed: int
    change_latency: Latency = Field(
        description="From the capture of a change to its application in the queue."
    )
    backlog_messages: int
    dead_letter_messages: int
    last_captured_at: Moment | None
    downstream_away: bool = Field(description="user_context or queue cannot be used.")
    dead_letter_alarm: bool = Field(
        description="Too many dead letters: nothing is received until a supervisor resumes it."
    )
    messages_held: int
    waiting_fresh: int = Field(description="People waiting on behalf of small changes.")
    waiting_bulk: int = Field(description="People waiting on behalf of bulk changes.")
    readings_stale: int = Field(description="Readings older than their change, and repeated.")
    capture_alive_at: Moment | None = Field(
        description="Capture time of the newest message, heartbeats included; null: none yet."
    )
    applied_through: Moment | None = Field(
        description="Every received change committed before this has been applied; null: unknown."
    )
    capture_ahead_seconds: float = Field(
        description="By how much a message of the last ten minutes was captured after its receipt, "
        "because of a clock that is ahead. 0: none was."
    )

    @classmethod
    def of(cls, message: cdc_ingest_pb2.GetStatusResponse) -> Self:
        """Return what the message says."""
        latency = message.change_latency
        return cls(
            paused=message.paused,
            messages_received=message.messages_received,
            messages_done=message.messages_done,
            messages_retried=message.messages_retried,
            messages_dead=message.messages_dead,
            records=message.records,
            records_ignored=message.records_ignored,
            users_refreshed=message.users_refreshed,
            change_latency=Latency(
                count=latency.count,
                p50_seconds=latency.p50_seconds,
                p99_seconds=latency.p99_seconds,
            ),
            backlog_messages=message.backlog_messages,
            dead_letter_messages=message.dead_letter_messages,
            last_captured_at=moment_in(message, "last_captured_at"),
            downstream_away=message.downstream_unavailable,
            dead_letter_alarm=message.dead_letter_alarm,
            messages_held=message.messages_held,
            waiting_fresh=message.waiting_fresh,
            waiting_bulk=message.waiting_bulk,
            readings_stale=message.readings_stale,
            capture_alive_at=moment_in(message, "capture_alive_at"),
            applied_through=moment_in(message, "applied_through"),
            capture_ahead_seconds=message.capture_ahead_seconds,
        )


class Relay(BaseModel):
    """The position of the active relay in MySQL's binlog."""

    active: bool = Field(description="False when only standby replicas answered.")
    file: str
    offset: Id
    gtid: str | None
    saved_at: Moment | None
    last_event_at: Moment | None
    records_published: int
    messages_published: int
    gaps: int

    @classmethod
    def of(cls, message: binlog_relay_pb2.GetPositionResponse) -> Self:
        """Return what the message says."""
        return cls(
            active=message.active,
            file=message.file,
            offset=str(message.offset),
            gtid=message.gtid or None,
            saved_at=moment_in(message, "saved_at"),
            last_event_at=moment_in(message, "last_event_at"),
            records_published=message.records_published,
            messages_published=message.messages_published,
            gaps=message.gaps,
        )


class Cache(BaseModel):
    """What the context cache of one replica has answered since it started."""

    hits: int
    misses: int
    stale_serves: int
    fenced_fills: int
    errors: int
    distrust_reason: str | None = Field(
        description="Why every context is read from the databases now, such as READONLY or "
        "UNREACHABLE; null while the cache is used."
    )

    @classmethod
    def of(cls, message: user_context_pb2.GetCacheStatsResponse) -> Self:
        """Return what the message says."""
        return cls(
            hits=message.hits,
            misses=message.misses,
            stale_serves=message.stale_serves,
            fenced_fills=message.fenced_fills,
            errors=message.errors,
            distrust_reason=message.distrust_reason or None,
        )


class DataHealth(BaseModel):
    """Whether desks see the main app's present data."""

    fresh: bool = Field(description="True while changes are applied as they happen.")
    summary: str = Field(
        description="One line for people: whether the data is fresh, and if not, why."
    )


class Pipeline(BaseModel):
    """The parts of the pipeline; null where a service could not be asked."""

    health: DataHealth
    ingest: Ingest | None
    relay: Relay | None
    cache: Cache | None
    reconciliation: Reconciliation | None = Field(description="The latest; null for none so far.")
    freshness: Freshness | None = Field(
        description="Whether changes arrive as they happen, or reconciliations replace them."
    )
    old_phone_lists: list[str] | None = Field(
        description="Lists of numbers that must not be called that are older than the rules have "
        "it; null when the queue could not be asked."
    )
    events_lost: str | None = Field(
        description="Why this replica of the gateway cannot read the event stream now, such as "
        "READONLY or UNREACHABLE; null while it does."
    )
    unavailable: dict[str, str] = Field(
        description="Reason code by part that is null because its service could not be asked."
    )


class PipelineReader:
    """Asks each service for its part, all at once; a service that fails costs only its own part.

    A stub is None for a service whose address is not configured.
    """

    def __init__(
        self,
        user_context: "UserContextServiceAsyncStub",
        queue: "QueueServiceAsyncStub",
        ingest: "CdcIngestServiceAsyncStub | None",
        relay: "BinlogRelayServiceAsyncStub | None",
        reconciler: "ReconcilerServiceAsyncStub | None",
        *,
        events_lost: Callable[[], str],
    ) -> None:
        self._events_lost = events_lost
        self._user_context = user_context
        self._queue = queue
        self._ingest = ingest
        self._relay = relay
        self._reconciler = reconciler

    async def read(self) -> Pipeline:
        """Return every part, within little more than `PART_SECONDS`."""

        async def read_ingest() -> Ingest:
            request = cdc_ingest_pb2.GetStatusRequest()
            return Ingest.of(await configured(self._ingest).GetStatus(request))

        async def read_relay() -> Relay:
            # The active replica's answer; a standby's when no active one answers.
            relay, request = configured(self._relay), binlog_relay_pb2.GetPositionRequest()
            for _ in range(RELAYS_ASKED - 1):
                answer = await relay.GetPosition(request)
                if answer.active:
                    return Relay.of(answer)
            return Relay.of(await relay.GetPosition(request))

        async def read_cache() -> Cache:
            request = user_context_pb2.GetCacheStatsRequest()
            return Cache.of(await self._user_context.GetCacheStats(request))

        async def read_latest() -> Reconciliation | None:
            request = reconciler_pb2.ListRunsRequest(page_size=1)
            runs = (await configured(self._reconciler).ListRuns(request)).runs
            return Reconciliation.of(runs[0]) if runs else None

        async def read_freshness() -> Freshness:
            request = reconciler_pb2.GetFreshnessRequest()
            return Freshness.of(await configured(self._reconciler).GetFreshness(request))

        async def read_old_lists() -> list[str]:
            answer = await self._queue.ListPhoneLists(queue_pb2.ListPhoneListsRequest())
            return [it.list_name for it in answer.lists if it.is_old]

        unavailable: dict[str, str] = {}
        ingest, relay, cache, reconciliation, freshness, old_lists = await asyncio.gather(
            part("ingest", read_ingest, unavailable),
            part("relay", read_relay, unavailable),
            part("cache", read_cache, unavailable),
            part("reconciliation", read_latest, unavailable),
            part("freshness", read_freshness, unavailable),
            part("old_phone_lists", read_old_lists, unavailable),
        )
        events_lost = self._events_lost() or None
        distrust_reason = cache.distrust_reason if cache else None
        return Pipeline(
            health=data_health(
                ingest,
                freshness,
                unavailable,
                cache_distrusted=distrust_reason,
                events_lost=events_lost,
                old_phone_lists=old_lists or (),
            ),
            ingest=ingest,
            relay=relay,
            cache=cache,
            reconciliation=reconciliation,
            freshness=freshness,
            old_phone_lists=old_lists,
            events_lost=events_lost,
            unavailable=unavailable,
        )


class PipelineRoutes:
    """The state of the pipeline."""

    def __init__(self, reader: PipelineReader) -> None:
        self._reader = reader

    async def pipeline(self) -> Pipeline:
        """State of cdc_ingest, relay, cache and latest reconciliation, and the freshness mode."""
        return await self._reader.read()


async def part(
    name: str, read: Callable[[], Awaitable[T]], unavailable: dict[str, str]
) -> T | None:
    """Return what `read` does within `PART_SECONDS`; else None, and the reason in `unavailable`."""
    try:
        with deadline.limit(PART_SECONDS):
            return await read()
    except ServiceError as error:
        unavailable[name] = error.reason
        return None


def data_health(
    ingest: Ingest | None,
    freshness: Freshness | None,
    unavailable: dict[str, str],
    *,
    cache_distrusted: str | None = None,
    events_lost: str | None = None,
    old_phone_lists: Sequence[str] = (),
) -> DataHealth:
    """Return whether data is fresh; claims are right either way, each is checked against MySQL.

    `cache_distrusted` and `events_lost` are the reasons why Redis cannot be used for contexts and
    for events. Old lists of numbers are said in any case.
    """
    old = f" Old lists of numbers: {', '.join(old_phone_lists)}." if old_phone_lists else ""
    why_not = _why_not(ingest, freshness, unavailable, cache_distrusted, events_lost)
    if why_not is not None:
        return DataHealth(fresh=False, summary=why_not + old)
    through = f" up to {ingest.applied_through}" if ingest and ingest.applied_through else ""
    summary = f"Fresh: changes of the main app are applied{through}."
    if ingest is not None and ingest.capture_ahead_seconds >= SKEWED.total_seconds():
        summary += (
            f" Times of changes are up to {ingest.capture_ahead_seconds:.0f} s ahead of the "
            "ingest's clock, and are not believed."
        )
    return DataHealth(fresh=True, summary=summary + old)


def _why_not(
    ingest: Ingest | None,
    freshness: Freshness | None,
    unavailable: dict[str, str],
    cache_distrusted: str | None,
    events_lost: str | None,
) -> str | None:
    if freshness is None:
        reason = unavailable.get("freshness", "UNKNOWN")
        return f"Unknown: the reconciler cannot be asked ({reason})."
    if freshness.mode is FreshnessMode.BATCH:
        return (
            f"Batch: change capture is unavailable ({freshness.reason}) since {freshness.since}; "
            f"every user was last compared at {freshness.verified_at or 'no time yet'}."
        )
    if ingest is None:
        reason = unavailable.get("ingest", "UNKNOWN")
        return f"Unknown: the ingest cannot be asked ({reason})."
    if ingest.downstream_away:
        return "Late: user_context or queue cannot be reached; changes wait in SQS."
    if ingest.dead_letter_alarm or ingest.paused:
        return "Late: the ingest is paused; changes wait in SQS."
    if ingest.capture_alive_at is not None and ingest.applied_through is not None:
        alive = datetime.fromisoformat(ingest.capture_alive_at)
        if alive - datetime.fromisoformat(ingest.applied_through) > LATE:
            return (
                f"Late: changes are applied up to {ingest.applied_through}, "
                f"{ingest.backlog_messages} messages wait."
            )
    if events_lost:
        return (
            f"Late: events stand still, Redis cannot be used ({events_lost}); desks see a change "
            "when they read again."
        )
    if cache_distrusted:
        return (
            f"Slow: the cache cannot be used ({cache_distrusted}); every context is read from the "
            "main app's MySQL."
        )
    return None
