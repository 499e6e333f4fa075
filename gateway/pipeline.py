"""How the suite itself is doing: change ingest, relay, cache, reconciliations."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self, TypeVar

from dialler.binlog_relay.v1 import binlog_relay_pb2
from dialler.cdc_ingest.v1 import cdc_ingest_pb2
from dialler.reconciler.v1 import reconciler_pb2
from dialler.user_context.v1 import user_context_pb2
from pydantic import BaseModel, Field

from gateway.channels import configured
from gateway.data_health import DataHealth, data_health
from gateway.reconciliations import Freshness, Reconciliation
from gateway.schemas import Id, Moment, moment_in
from servicekit import deadline
from servicekit.errors import ServiceError

if TYPE_CHECKING:
    from dialler.binlog_relay.v1.binlog_relay_pb2_grpc import BinlogRelayServiceAsyncStub
    from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceAsyncStub
    from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceAsyncStub
    from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceAsyncStub

PART_SECONDS = 1.0
# Copies answer in turn: among three, as during a roll-out, the active one is met.
RELAYS_ASKED = 3

T = TypeVar("T")


class Latency(BaseModel):
    """Percentiles of a latency."""

    count: int
    p50_seconds: float
    p99_seconds: float


class Ingest(BaseModel):
    """What one copy of the ingest is doing and has done since it started."""

    paused: bool
    messages_received: int
    messages_done: int
    messages_retried: int
    messages_dead: int
    records: int
    records_ignored: int
    users_refreshed: int
    change_latency: Latency = Field(description="From capture to the queue having applied.")
    backlog_messages: int
    dead_letter_messages: int
    last_captured_at: Moment | None
    downstream_away: bool = Field(description="user_context or queue cannot be used.")
    dead_letter_alarm: bool = Field(
        description="Too many dead letters: nothing is received until somebody resumes it."
    )
    messages_held: int
    waiting_fresh: int = Field(description="People waiting on behalf of small changes.")
    waiting_bulk: int = Field(description="People waiting on behalf of bulk changes.")
    readings_stale: int = Field(description="Readings older than their change, and repeated.")
    capture_alive_at: Moment | None = Field(
        description="Capture time of the newest message, heartbeats included; null: none yet."
    )
    applied_through: Moment | None = Field(
        description="All that was committed before and received has been applied; null: not known."
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
            downstream_away=message.downstream_away,
            dead_letter_alarm=message.dead_letter_alarm,
            messages_held=message.messages_held,
            waiting_fresh=message.waiting_fresh,
            waiting_bulk=message.waiting_bulk,
            readings_stale=message.readings_stale,
            capture_alive_at=moment_in(message, "capture_alive_at"),
            applied_through=moment_in(message, "applied_through"),
        )


class Relay(BaseModel):
    """Where the active copy of the relay stands in MySQL's binlog."""

    active: bool = Field(description="False when only standby copies were met.")
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
    """What one copy's cache of contexts has answered since it started."""

    hits: int
    misses: int
    stale_serves: int
    fenced_fills: int
    errors: int

    @classmethod
    def of(cls, message: user_context_pb2.GetCacheStatsResponse) -> Self:
        """Return what the message says."""
        return cls(
            hits=message.hits,
            misses=message.misses,
            stale_serves=message.stale_serves,
            fenced_fills=message.fenced_fills,
            errors=message.errors,
        )


class Pipeline(BaseModel):
    """The parts of the pipeline; null where a service could not be asked."""

    health: DataHealth
    ingest: Ingest | None
    relay: Relay | None
    cache: Cache | None
    reconciliation: Reconciliation | None = Field(description="The latest; null for none so far.")
    freshness: Freshness | None = Field(
        description="Whether changes arrive as they happen, or reconciliations stand in for them."
    )
    unavailable: dict[str, str] = Field(
        description="Reason code by part that is null because its service could not be asked."
    )


class PipelineReader:
    """Asks each service for its part, all at once; one that does not answer spoils only its own.

    A stub is None for a service whose address is not configured.
    """

    def __init__(
        self,
        user_context: "UserContextServiceAsyncStub",
        ingest: "CdcIngestServiceAsyncStub | None",
        relay: "BinlogRelayServiceAsyncStub | None",
        reconciler: "ReconcilerServiceAsyncStub | None",
    ) -> None:
        self._user_context = user_context
        self._ingest = ingest
        self._relay = relay
        self._reconciler = reconciler

    async def read(self) -> Pipeline:
        """Return every part, within `PART_SECONDS` and a little."""
        unavailable: dict[str, str] = {}
        ingest, relay, cache, reconciliation, freshness = await asyncio.gather(
            part("ingest", self._read_ingest, unavailable),
            part("relay", self._read_relay, unavailable),
            part("cache", self._read_cache, unavailable),
            part("reconciliation", self._read_latest, unavailable),
            part("freshness", self._read_freshness, unavailable),
        )
        return Pipeline(
            health=data_health(ingest, freshness, unavailable),
            ingest=ingest,
            relay=relay,
            cache=cache,
            reconciliation=reconciliation,
            freshness=freshness,
            unavailable=unavailable,
        )

    async def _read_ingest(self) -> Ingest:
        request = cdc_ingest_pb2.GetStatusRequest()
        return Ingest.of(await configured(self._ingest).GetStatus(request))

    async def _read_relay(self) -> Relay:
        """Return where the active copy stands; a standby's word when none is met."""
        relay, request = configured(self._relay), binlog_relay_pb2.GetPositionRequest()
        for _ in range(RELAYS_ASKED - 1):
            answer = await relay.GetPosition(request)
            if answer.active:
                return Relay.of(answer)
        return Relay.of(await relay.GetPosition(request))

    async def _read_cache(self) -> Cache:
        request = user_context_pb2.GetCacheStatsRequest()
        return Cache.of(await self._user_context.GetCacheStats(request))

    async def _read_latest(self) -> Reconciliation | None:
        request = reconciler_pb2.ListRunsRequest(page_size=1)
        runs = (await configured(self._reconciler).ListRuns(request)).runs
        return Reconciliation.of(runs[0]) if runs else None

    async def _read_freshness(self) -> Freshness:
        request = reconciler_pb2.GetFreshnessRequest()
        return Freshness.of(await configured(self._reconciler).GetFreshness(request))


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
