"""What the ingest asks of the other services."""

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
class Refreshed:
    """Facts read anew, as they came, and when they were read."""

    facts: Collection[UserFacts]
    refreshed_at: datetime


class Upstreams:
    """user_context, queue and perhaps the reconciler; every method raises ServiceError."""

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
        """Return the people of up to 10,000 rows; a row that is gone has nobody."""
        request = user_context_pb2.ResolveUsersRequest(
            rows=[user_context_pb2.RowReference(table=row.table, key=row.key) for row in rows]
        )
        response = await self._user_context.ResolveUsers(request)
        return set(response.user_ids)

    async def refresh(self, user_ids: Iterable[int]) -> Refreshed:
        """Have up to 1,000 people read anew."""
        request = user_context_pb2.RefreshUsersRequest(user_ids=user_ids)
        response = await self._user_context.RefreshUsers(request)
        return Refreshed(response.facts, response.refreshed_at.ToDatetime(tzinfo=UTC))

    async def apply(self, refreshed: Refreshed, times: Mapping[int, ChangeTimes]) -> None:
        """Have the queue brought in line with the facts; returns once that is durable."""
        request = queue_pb2.ApplyUserFactsRequest(facts=refreshed.facts)
        refreshed_at = _timestamp(refreshed.refreshed_at)
        for user_id, each in times.items():
            request.timelines[user_id].CopyFrom(_timeline(each, refreshed_at))
        await self._queue.ApplyUserFacts(request)

    async def probe(self) -> None:
        """Ask both services for next to nothing, databases included; raise unless both answer."""
        people = await self._user_context.ListUserIds(
            user_context_pb2.ListUserIdsRequest(page_size=1)
        )
        await self._queue.BatchGetCallStates(
            queue_pb2.BatchGetCallStatesRequest(user_ids=people.user_ids or [1])
        )

    async def ask_full_run(self, reason: str) -> bool:
        """Have the reconciler look at everybody; False when there is no reconciler to ask."""
        if self._reconciler is None:
            return False
        await self._reconciler.StartRun(
            reconciler_pb2.StartRunRequest(
                kind=reconciler_pb2.RUN_KIND_FULL, reason=reason[:_MAX_REASON_CHARACTERS]
            )
        )
        return True


def _timeline(times: ChangeTimes, refreshed_at: Timestamp | None) -> ChangeTimeline:
    return ChangeTimeline(
        committed_at=_timestamp(times.committed_at),
        captured_at=_timestamp(times.captured_at),
        received_at=_timestamp(times.received_at),
        refreshed_at=refreshed_at,
    )


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    # Several for each person: Timestamp.FromDatetime takes three times as long.
    since = moment - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)
