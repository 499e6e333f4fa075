"""The calls that the reconciler makes to the other services."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc.aio
from dialler.cdc_ingest.v1 import cdc_ingest_pb2, cdc_ingest_pb2_grpc
from dialler.model.v1 import call_state_pb2
from dialler.model.v1.facts_pb2 import UserFacts
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.errors import Unavailable
from services.reconciler.domain.drift import AppliedUser, CachedUser
from services.reconciler.domain.fingerprints import ComparedTable, are_records
from services.reconciler.domain.freshness import IngestStatus

if TYPE_CHECKING:
    from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceAsyncStub

QUEUES = (
    call_state_pb2.QUEUE_CALLBACKS,
    call_state_pb2.QUEUE_UNSIGNED_USERS,
    call_state_pb2.QUEUE_OUTSTANDING_REQUESTS,
)

_WATCH_SECONDS = 2.0
_IDS_PER_PAGE = 10_000
_ENTRIES_PER_PAGE = 200


@dataclass(frozen=True, slots=True)
class MySqlCost:
    """What a read cost MySQL."""

    statements: int = 0
    seconds: float = 0.0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class TableRangeChunk:
    """Fingerprints of part of a table by range; the next part begins after `after_key`."""

    ranges: Sequence[int]
    fingerprints: Sequence[int]
    after_key: str
    is_last: bool
    cost: MySqlCost


class CacheUnavailableError(Exception):
    """user_context has no cache to read."""


class ReconcilerUpstreams:
    """user_context, queue and cdc_ingest; every method raises ServiceError, `inspect` and
    `stream_cached` CacheUnavailableError as well."""

    def __init__(
        self,
        user_context: grpc.aio.Channel,
        queue: grpc.aio.Channel,
        cdc_ingest: grpc.aio.Channel | None,
    ) -> None:
        self._user_context = user_context_pb2_grpc.UserContextServiceStub(user_context)
        self._queue = queue_pb2_grpc.QueueServiceStub(queue)
        self._ingest: CdcIngestServiceAsyncStub | None = None
        if cdc_ingest is not None:
            self._ingest = cdc_ingest_pb2_grpc.CdcIngestServiceStub(cdc_ingest)

    @property
    def is_watching(self) -> bool:
        """True when the address of an ingest is configured."""
        return self._ingest is not None

    async def stream_ranges(
        self, table: ComparedTable, after_key: str, load_share: float
    ) -> AsyncIterator[TableRangeChunk]:
        """Yield fingerprints of the table's rows above a key, chunk by chunk, to the table's end.

        Raises Unavailable (RANGES_INCOMPLETE) for a stream that ends before its last chunk: rows
        that were not read must not count as missing rows.
        """
        request = user_context_pb2.StreamRangeFingerprintsRequest(
            table=table,
            range_size=table.range_size,
            after_key=after_key,
            load_share=load_share,
        )
        is_whole = False
        async for chunk in self._user_context.StreamRangeFingerprints(request):
            cost = MySqlCost(chunk.statements, chunk.mysql_seconds, sum(chunk.row_counts))
            yield TableRangeChunk(
                chunk.ranges, chunk.fingerprints, chunk.through_key, chunk.last, cost
            )
            is_whole = chunk.last
        if not is_whole:
            raise Unavailable("RANGES_INCOMPLETE", "a table was not added up to its end")

    async def read_owners(
        self, table: ComparedTable, numbers: Sequence[int]
    ) -> tuple[dict[int, int], MySqlCost]:
        """Return the fingerprint of each owner's rows in these ranges."""
        answer = await self._user_context.ReadOwnerFingerprints(
            user_context_pb2.ReadOwnerFingerprintsRequest(
                table=table, range_size=table.range_size, ranges=numbers
            )
        )
        found = dict(zip(answer.owner_ids, answer.fingerprints, strict=True))
        return found, MySqlCost(answer.statements, answer.mysql_seconds)

    async def read_rows(self, user_ids: Sequence[int]) -> tuple[dict[int, bytes], MySqlCost]:
        """Return the row fingerprints of these users, of each user that exists."""
        answer = await self._user_context.ReadRowFingerprints(
            user_context_pb2.ReadRowFingerprintsRequest(user_ids=user_ids)
        )
        found = dict(zip(answer.user_ids, answer.row_fingerprints, strict=True))
        return found, MySqlCost(answer.statements, answer.mysql_seconds)

    async def stream_changed(
        self, since: datetime, load_share: float
    ) -> AsyncIterator[tuple[Sequence[int], MySqlCost]]:
        """Yield users whose rows have a change time since `since`."""
        moment = Timestamp()
        moment.FromDatetime(since)
        request = user_context_pb2.StreamChangedUsersRequest(since=moment, load_share=load_share)
        async for chunk in self._user_context.StreamChangedUsers(request):
            yield chunk.user_ids, MySqlCost(chunk.statements, chunk.mysql_seconds, chunk.rows_read)

    async def inspect(self, user_ids: Sequence[int]) -> dict[int, CachedUser]:
        """Return what the cache would serve as fresh of these users."""
        request = user_context_pb2.InspectCachedContextsRequest(user_ids=user_ids)
        with _named_cache_failures():
            answer = await self._user_context.InspectCachedContexts(request)
        return {it.user_id: CachedUser(it.fingerprint, it.intact) for it in answer.contexts}

    async def stream_cached(self) -> AsyncIterator[dict[int, CachedUser]]:
        """Yield the same of every user with a cached context."""
        request = user_context_pb2.StreamCachedContextsRequest()
        with _named_cache_failures():
            async for page in self._user_context.StreamCachedContexts(request):
                altered = set(page.altered_user_ids)
                yield {
                    user_id: CachedUser(fingerprint, user_id not in altered)
                    for user_id, fingerprint in zip(page.user_ids, page.fingerprints, strict=True)
                }

    async def users_of_claims(self, claim_ids: Collection[int]) -> set[int]:
        """Return the users of these claims; a claim that is gone has none."""
        rows = [
            user_context_pb2.RowReference(table=ComparedTable.CLAIMS, key=str(claim_id))
            for claim_id in claim_ids
        ]
        answer = await self._user_context.ResolveUsers(
            user_context_pb2.ResolveUsersRequest(rows=rows)
        )
        return set(answer.user_ids)

    async def list_users(self, after_user_id: int, page_size: int = _IDS_PER_PAGE) -> Sequence[int]:
        """Return the main app's next users by id; an empty page is the end."""
        answer = await self._user_context.ListUserIds(
            user_context_pb2.ListUserIdsRequest(after_user_id=after_user_id, page_size=page_size)
        )
        return answer.user_ids

    async def stream_applied(self, after_user_id: int) -> AsyncIterator[queue_pb2.AppliedFacts]:
        """Yield what the queue applied of every user above an id, block by block."""
        request = queue_pb2.StreamAppliedFactsRequest(after_user_id=after_user_id)
        async for block in self._queue.StreamAppliedFacts(request):
            yield block.applied

    async def read_applied(self, user_ids: Sequence[int]) -> dict[int, AppliedUser]:
        """Return what the queue applied of these users, of each user that it has facts of."""
        answer = await self._queue.ReadAppliedFacts(
            queue_pb2.ReadAppliedFactsRequest(user_ids=user_ids)
        )
        facts = answer.applied
        absent, altered = set(facts.absent_user_ids), set(facts.altered_user_ids)
        found: dict[int, AppliedUser] = {}
        start = 0
        for user_id, version, context, size in zip(
            facts.user_ids,
            facts.versions,
            facts.fingerprints,
            facts.row_fingerprint_bytes,
            strict=True,
        ):
            end = start + size
            rows = facts.row_fingerprints[start:end] if are_records(size) else b""
            start = end
            found[user_id] = AppliedUser(
                version, context, rows, user_id in absent, user_id in altered
            )
        return found

    async def refresh(self, user_ids: Sequence[int]) -> Sequence[UserFacts]:
        """Have user_context read these users from MySQL; return their facts."""
        answer = await self._user_context.RefreshUsers(
            user_context_pb2.RefreshUsersRequest(user_ids=user_ids)
        )
        return answer.facts

    async def apply(self, facts: Sequence[UserFacts]) -> int:
        """Have the queue apply facts; return how many users it moved."""
        applied = await self._queue.ApplyUserFacts(queue_pb2.ApplyUserFactsRequest(facts=facts))
        return applied.moved

    async def rebuild(self) -> AsyncIterator[queue_pb2.RebuildResponse]:
        """Have the queue place all users of the main app; yields its progress."""
        async for progress in self._queue.Rebuild(queue_pb2.RebuildRequest(actor_id="reconciler")):
            yield progress

    async def head(
        self, queue: call_state_pb2.Queue.ValueType, page_token: str
    ) -> tuple[list[int], str]:
        """Return a page of the users whom a queue offers next, and the next page's token."""
        answer = await self._queue.ListEntries(
            queue_pb2.ListEntriesRequest(
                queue=queue, page_size=_ENTRIES_PER_PAGE, page_token=page_token
            )
        )
        return [entry.user_id for entry in answer.entries], answer.next_page_token

    async def warm(self, user_ids: Sequence[int]) -> tuple[int, int]:
        """Cache these users' contexts; return how many were cached, and how many are too large."""
        warmed = too_large = 0
        while user_ids:
            answer = await self._user_context.BatchGetUserContexts(
                user_context_pb2.BatchGetUserContextsRequest(user_ids=user_ids)
            )
            warmed += len(answer.contexts)
            too_large += len(answer.too_large_user_ids)
            user_ids = answer.remaining_user_ids
        return warmed, too_large

    async def purge_expired(self) -> tuple[dict[str, int], bool]:
        """Run one batch of the queue's housekeeping; return its counts, and whether more is due."""
        answer = await self._queue.PurgeExpired(queue_pb2.PurgeExpiredRequest())
        return dict(answer.done), answer.more

    async def check_entries(self, after_user_id: int) -> queue_pb2.CheckEntriesResponse:
        """Have the queue check the entries of the next users by id."""
        return await self._queue.CheckEntries(
            queue_pb2.CheckEntriesRequest(after_user_id=after_user_id)
        )

    async def ingest_status(self) -> IngestStatus | None:
        """Return the status of the ingest; None when no ingest is configured."""
        if self._ingest is None:
            return None
        answer = await self._ingest.GetStatus(
            cdc_ingest_pb2.GetStatusRequest(), timeout=_WATCH_SECONDS
        )
        return IngestStatus(
            capture_alive_at=_moment(answer, "capture_alive_at"),
            applied_through=_moment(answer, "applied_through"),
            is_paused=answer.paused or answer.dead_letter_alarm,
        )


@contextmanager
def _named_cache_failures() -> Iterator[None]:
    """Raise CacheUnavailableError, which no retry helps, for an unavailable cache."""
    try:
        yield
    except Unavailable as error:
        if error.reason != "CACHE_UNAVAILABLE":
            raise
        raise CacheUnavailableError from error


def _moment(message: cdc_ingest_pb2.GetStatusResponse, name: str) -> datetime | None:
    if not message.HasField(name):  # type: ignore[arg-type]
        return None
    found: datetime = getattr(message, name).ToDatetime(UTC)
    return found
