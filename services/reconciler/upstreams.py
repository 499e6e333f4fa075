"""What the reconciler asks of the other services."""

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc.aio
from dialler.cdc_ingest.v1 import cdc_ingest_pb2, cdc_ingest_pb2_grpc
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from services.reconciler.domain.drift import Applied, Cached
from services.reconciler.domain.fingerprints import Table, are_records
from services.reconciler.domain.freshness import Pipeline

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
class Cost:
    """What something took of MySQL."""

    statements: int = 0
    seconds: float = 0.0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class RangeChunk:
    """What some of a table's rows come to by number of range; `after_key` is where to go on."""

    ranges: Sequence[int]
    fingerprints: Sequence[int]
    after_key: str
    is_last: bool
    cost: Cost


class Upstreams:
    """user_context, queue and cdc_ingest; every method raises ServiceError."""

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
        """True when there is an ingest to be asked."""
        return self._ingest is not None

    async def stream_ranges(
        self, table: Table, after_key: str, load_share: float
    ) -> AsyncIterator[RangeChunk]:
        """Yield what the table's rows above a key come to, chunk by chunk."""
        request = user_context_pb2.StreamRangeFingerprintsRequest(
            table=table,
            range_size=table.range_size,
            after_key=after_key,
            load_share=load_share,
        )
        async for chunk in self._user_context.StreamRangeFingerprints(request):
            cost = Cost(chunk.statements, chunk.mysql_seconds, sum(chunk.row_counts))
            yield RangeChunk(chunk.ranges, chunk.fingerprints, chunk.through_key, chunk.last, cost)

    async def read_owners(
        self, table: Table, numbers: Sequence[int]
    ) -> tuple[dict[int, int], Cost]:
        """Return what the rows of each owner in these ranges come to."""
        answer = await self._user_context.ReadOwnerFingerprints(
            user_context_pb2.ReadOwnerFingerprintsRequest(
                table=table, range_size=table.range_size, ranges=numbers
            )
        )
        found = dict(zip(answer.owner_ids, answer.fingerprints, strict=True))
        return found, Cost(answer.statements, answer.mysql_seconds)

    async def read_rows(self, user_ids: Sequence[int]) -> tuple[dict[int, bytes], Cost]:
        """Return what the rows of each of these people come to, of those who exist."""
        answer = await self._user_context.ReadRowFingerprints(
            user_context_pb2.ReadRowFingerprintsRequest(user_ids=user_ids)
        )
        found = dict(zip(answer.user_ids, answer.row_fingerprints, strict=True))
        return found, Cost(answer.statements, answer.mysql_seconds)

    async def stream_changed(
        self, since: datetime, load_share: float
    ) -> AsyncIterator[tuple[Sequence[int], Cost]]:
        """Yield people whose rows say that they changed since then."""
        moment = Timestamp()
        moment.FromDatetime(since)
        request = user_context_pb2.StreamChangedUsersRequest(since=moment, load_share=load_share)
        async for chunk in self._user_context.StreamChangedUsers(request):
            yield chunk.user_ids, Cost(chunk.statements, chunk.mysql_seconds, chunk.rows_read)

    async def inspect(self, user_ids: Sequence[int]) -> dict[int, Cached]:
        """Return what the cache would serve as fresh of these people."""
        answer = await self._user_context.InspectCachedContexts(
            user_context_pb2.InspectCachedContextsRequest(user_ids=user_ids)
        )
        return {it.user_id: Cached(it.fingerprint, it.intact) for it in answer.contexts}

    async def stream_cached(self) -> AsyncIterator[dict[int, Cached]]:
        """Yield the same of everybody of whom anything is cached."""
        request = user_context_pb2.StreamCachedContextsRequest()
        async for page in self._user_context.StreamCachedContexts(request):
            altered = set(page.altered_user_ids)
            yield {
                user_id: Cached(fingerprint, user_id not in altered)
                for user_id, fingerprint in zip(page.user_ids, page.fingerprints, strict=True)
            }

    async def people_of_claims(self, claim_ids: Collection[int]) -> set[int]:
        """Return whose these claims are; a claim that is gone is nobody's."""
        rows = [
            user_context_pb2.RowReference(table=Table.CLAIMS, key=str(claim_id))
            for claim_id in claim_ids
        ]
        answer = await self._user_context.ResolveUsers(
            user_context_pb2.ResolveUsersRequest(rows=rows)
        )
        return set(answer.user_ids)

    async def list_users(self, after_user_id: int) -> Sequence[int]:
        """Return the next of the main app's people by id; none means that there are no more."""
        answer = await self._user_context.ListUserIds(
            user_context_pb2.ListUserIdsRequest(
                after_user_id=after_user_id, page_size=_IDS_PER_PAGE
            )
        )
        return answer.user_ids

    async def stream_applied(self, after_user_id: int) -> AsyncIterator[queue_pb2.AppliedFacts]:
        """Yield what was applied of everybody above an id, block by block."""
        request = queue_pb2.StreamAppliedFactsRequest(after_user_id=after_user_id)
        async for block in self._queue.StreamAppliedFacts(request):
            yield block.applied

    async def read_applied(self, user_ids: Sequence[int]) -> dict[int, Applied]:
        """Return what was applied of these people, of those the queue has heard of."""
        answer = await self._queue.ReadAppliedFacts(
            queue_pb2.ReadAppliedFactsRequest(user_ids=user_ids)
        )
        facts = answer.applied
        absent, altered = set(facts.absent_user_ids), set(facts.altered_user_ids)
        found: dict[int, Applied] = {}
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
            found[user_id] = Applied(version, context, rows, user_id in absent, user_id in altered)
        return found

    async def reconcile(self, user_ids: Sequence[int]) -> int:
        """Read people anew and have the queue apply them; return how many it had to move."""
        refreshed = await self._user_context.RefreshUsers(
            user_context_pb2.RefreshUsersRequest(user_ids=user_ids)
        )
        applied = await self._queue.ApplyUserFacts(
            queue_pb2.ApplyUserFactsRequest(facts=refreshed.facts)
        )
        return applied.moved

    async def head(
        self, queue: call_state_pb2.Queue.ValueType, page_token: str
    ) -> tuple[list[int], str]:
        """Return a page of the people whom a queue offers next, and the next page's token."""
        answer = await self._queue.ListEntries(
            queue_pb2.ListEntriesRequest(
                queue=queue, page_size=_ENTRIES_PER_PAGE, page_token=page_token
            )
        )
        return [entry.user_id for entry in answer.entries], answer.next_page_token

    async def warm(self, user_ids: Sequence[int]) -> int:
        """Have these people's contexts cached; return how many there are."""
        answer = await self._user_context.BatchGetUserContexts(
            user_context_pb2.BatchGetUserContextsRequest(user_ids=user_ids)
        )
        return len(answer.contexts)

    async def keep_house(self) -> tuple[dict[str, int], bool]:
        """Do one round of the queue's housekeeping; return what was done, and if there is more."""
        answer = await self._queue.KeepHouse(queue_pb2.KeepHouseRequest())
        return dict(answer.done), answer.more

    async def check_entries(self, after_user_id: int) -> queue_pb2.CheckEntriesResponse:
        """Have the queue check the entries of the next people by id."""
        return await self._queue.CheckEntries(
            queue_pb2.CheckEntriesRequest(after_user_id=after_user_id)
        )

    async def pipeline(self) -> Pipeline | None:
        """Return how change capture stands; None where there is no ingest to be asked."""
        if self._ingest is None:
            return None
        answer = await self._ingest.GetStatus(
            cdc_ingest_pb2.GetStatusRequest(), timeout=_WATCH_SECONDS
        )
        return Pipeline(
            capture_alive_at=_moment(answer, "capture_alive_at"),
            applied_through=_moment(answer, "applied_through"),
            is_paused=answer.paused or answer.dead_letter_alarm,
        )


def _moment(message: cdc_ingest_pb2.GetStatusResponse, name: str) -> datetime | None:
    if not message.HasField(name):  # type: ignore[arg-type]
        return None
    found: datetime = getattr(message, name).ToDatetime(UTC)
    return found
