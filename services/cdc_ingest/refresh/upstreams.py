"""The calls of the ingest to user_context, the queue and the reconciler."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc.aio
from dialler.model.v1.change_pb2 import ChangeTimeline
from dialler.model.v1.facts_pb2 import UserFacts
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc
from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from services.cdc_ingest.domain.messages import ChangeTimes
from services.cdc_ingest.domain.people import RowKey

_MAX_REASON_CHARACTERS = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RefreshedFacts:
    """The facts of a refresh, when they were read, and what MySQL had executed before."""

    facts: Collection[UserFacts]
    refreshed_at: datetime
    executed_gtids: str = ""


class Upstreams:
    """Calls user_context, queue and the reconciler, if any; every method raises ServiceError."""

    def __init__(
        self,
        user_context: grpc.aio.Channel,
        queue: grpc.aio.Channel,
        reconciler: grpc.aio.Channel | None,
    ) -> None:
        self._user_context = user_context_pb2_grpc.UserContextServiceStub(user_context)
        self._queue = queue_pb2_grpc.QueueServiceStub(queue)
        self._reconciler = (
            None if reconciler is None else reconciler_pb2_grpc.ReconcilerServiceStub(reconciler)
        )

    async def resolve(self, rows: Iterable[RowKey]) -> set[int]:
        """Return the people of up to 10,000 rows; a deleted row has none."""
        request = user_context_pb2.ResolveUsersRequest(
            rows=[user_context_pb2.RowReference(table=row.table, key=row.key) for row in rows]
        )
        response = await self._user_context.ResolveUsers(request)
        return set(response.user_ids)

    async def refresh(self, user_ids: Iterable[int]) -> RefreshedFacts:
        """Have user_context read up to 1,000 people."""
        request = user_context_pb2.RefreshUsersRequest(user_ids=user_ids)
        response = await self._user_context.RefreshUsers(request)
        refreshed_at = response.refreshed_at.ToDatetime(tzinfo=UTC)
        return RefreshedFacts(response.facts, refreshed_at, response.executed_gtids)

    async def apply(self, refreshed: RefreshedFacts, times: Mapping[int, ChangeTimes]) -> None:
        """Have the queue apply the facts; returns once that is durable."""
        request = queue_pb2.ApplyUserFactsRequest(facts=refreshed.facts)
        refreshed_at = timestamp(refreshed.refreshed_at)
        for user_id, each in times.items():
            timeline = ChangeTimeline(
                committed_at=timestamp(each.committed_at),
                captured_at=timestamp(each.captured_at),
                received_at=timestamp(each.received_at),
                refreshed_at=refreshed_at,
            )
            request.timelines[user_id].CopyFrom(timeline)
        await self._queue.ApplyUserFacts(request)

    async def probe(self) -> None:
        """Send a small request to user_context and the queue that reaches their databases."""
        people = await self._user_context.ListUserIds(
            user_context_pb2.ListUserIdsRequest(page_size=1)
        )
        await self._queue.BatchGetCallStates(
            queue_pb2.BatchGetCallStatesRequest(user_ids=people.user_ids or [1])
        )

    async def ask_full_run(self, reason: str) -> bool:
        """Ask the reconciler for a full run; False when there is no reconciler."""
        if self._reconciler is None:
            return False
        await self._reconciler.StartRun(
            reconciler_pb2.StartRunRequest(
                kind=reconciler_pb2.RUN_KIND_FULL, reason=reason[:_MAX_REASON_CHARACTERS]
            )
        )
        return True


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the time as protobuf has it; None for None."""
    if moment is None:
        return None
    # Called several times for each person: Timestamp.FromDatetime takes three times as long.
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)
