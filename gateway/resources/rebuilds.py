"""Rebuilds of the queues: started and followed by one replica, looked up at any."""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from dialler.queue.v1 import queue_pb2
from fastapi import Path, Query
from pydantic import BaseModel, Field
from redis.exceptions import RedisError

from gateway.resources.fields import CallerOf, EnumNames, Id, IdempotencyKey, Moment
from servicekit import deadline
from servicekit.clock import Clock
from servicekit.errors import Exhausted, NotFound, ServiceError, Unavailable
from servicekit.redis_client import RedisClient

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

# How long a request waits to see whether the queue refuses the rebuild.
REFUSAL_SECONDS = 1.0
KEPT_SECONDS = 86_400
SHARED_EVERY_SECONDS = 0.25
# A rebuild without progress for so long has lost the replica that followed it.
SILENT_SECONDS = 120.0
MOST_AT_ONCE = 4

_log = logging.getLogger(__name__)

RebuildId = Annotated[UUID, Path(description="The rebuild's id: its `Idempotency-Key`.")]
AllowGone = Annotated[
    bool,
    Query(
        description="Treat missing people as deleted from the main app even if they are an"
        " implausible share of all: after a rebuild that failed with REBUILD_TOO_MANY_GONE, once"
        " they are known to be deleted."
    ),
]


class RebuildState(StrEnum):
    """The state of a rebuild."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"


class RebuildPhase(StrEnum):
    """The phase of a rebuild."""

    READING = "reading"
    WRITING = "writing"
    DONE = "done"


REBUILD_PHASES = EnumNames(RebuildPhase, queue_pb2.RebuildPhase)


class Rebuild(BaseModel):
    """One rebuild and its progress."""

    rebuild_id: str
    state: RebuildState = Field(
        description="lost: the gateway that followed it has stopped; what was written is correct."
    )
    requested_by: str
    started_at: Moment
    updated_at: Moment
    phase: RebuildPhase | None = Field(description="null before it has begun.")
    people_read: int
    people_new: int
    people_different: int
    people_written: int
    conversions: int
    through_user_id: Id = Field(description="Highest id read, of `last_user_id`.")
    last_user_id: Id
    seconds: float
    error: str | None = Field(description="Reason code of the failure.")


class RebuildRoutes:
    """Starts rebuilds and reports their progress.

    The progress is kept in Redis for all replicas; without Redis each replica knows only its own
    rebuilds. The queue decides whether another rebuild may start.
    """

    def __init__(self, queue: "QueueServiceAsyncStub", redis: RedisClient, clock: Clock) -> None:
        self._queue = queue
        self._redis = redis
        self._clock = clock
        self._known: dict[str, Rebuild] = {}
        self._following: set[asyncio.Task[ServiceError | None]] = set()

    async def start(
        self, caller: CallerOf, key: IdempotencyKey, allow_gone: AllowGone = False
    ) -> Rebuild:
        """Place every person anew by the main app and the present rules; 409 while one runs."""
        rebuild_id = str(key)
        known = await self._found(rebuild_id)
        # The same request may have been sent twice at once, and the other one be ahead.
        known = known or self._known.get(rebuild_id)
        if known is not None:
            return known
        if len(self._following) >= MOST_AT_ONCE:
            raise Exhausted("REBUILDS_EXHAUSTED", "too many rebuilds are requested at once")
        now = self._now()
        rebuild = Rebuild(
            rebuild_id=rebuild_id, state=RebuildState.RUNNING, requested_by=caller.subject,
            started_at=now, updated_at=now, phase=None, people_read=0, people_new=0,
            people_different=0, people_written=0, conversions=0, through_user_id="0",
            last_user_id="0", seconds=0.0, error=None,
        )  # fmt: skip
        self._known[rebuild_id] = rebuild
        # The rebuild outlives the request.
        with deadline.detached():
            task = asyncio.create_task(self._follow(rebuild, allow_gone), name="rebuild")
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        done, _ = await asyncio.wait((task,), timeout=REFUSAL_SECONDS)
        refusal = task.result() if done else None
        if refusal is not None and self._known[rebuild_id].phase is None:
            # Another try under the same key may succeed.
            del self._known[rebuild_id]
            raise refusal
        return self._known.get(rebuild_id, rebuild)

    async def rebuild(self, rebuild_id: RebuildId) -> Rebuild:
        """One rebuild, with its progress while it runs; kept for a day."""
        found = await self._found(str(rebuild_id), must_know=True)
        if found is None:
            raise NotFound("REBUILD_NOT_FOUND", "there is no such rebuild")
        return found

    async def close(self) -> None:
        """Stop following; the queue ends a rebuild that no client follows."""
        for task in self._following:
            task.cancel()
        if self._following:
            await asyncio.wait(self._following)

    async def _follow(self, rebuild: Rebuild, allow_gone: bool) -> ServiceError | None:
        """Record its progress until its end; returns the error it failed with."""
        call = self._queue.Rebuild(
            queue_pb2.RebuildRequest(actor_id=rebuild.requested_by, allow_gone=allow_gone)
        )
        try:
            shared_at = float("-inf")
            async for message in call:
                rebuild = rebuild.model_copy(
                    update={
                        "phase": REBUILD_PHASES.name(message.phase),
                        "updated_at": self._now(),
                        "people_read": message.people_read,
                        "people_new": message.people_new,
                        "people_different": message.people_different,
                        "people_written": message.people_written,
                        "conversions": message.conversions,
                        "through_user_id": str(message.through_user_id),
                        "last_user_id": str(message.last_user_id),
                        "seconds": message.seconds,
                    }
                )
                self._known[rebuild.rebuild_id] = rebuild
                if self._clock.monotonic() - shared_at >= SHARED_EVERY_SECONDS:
                    shared_at = self._clock.monotonic()
                    await self._share(rebuild)
        except ServiceError as error:
            await self._ended(rebuild, RebuildState.FAILED, error.reason)
            return error
        except asyncio.CancelledError:
            call.cancel()
            await self._ended(rebuild, RebuildState.LOST, "GATEWAY_STOPPED")
            raise
        await self._ended(rebuild, RebuildState.SUCCEEDED, None)
        return None

    async def _ended(self, rebuild: Rebuild, state: RebuildState, error: str | None) -> None:
        changed = {"state": state, "error": error, "updated_at": self._now()}
        ended = rebuild.model_copy(update=changed)
        self._known[rebuild.rebuild_id] = ended
        while len(self._known) > MOST_AT_ONCE * 10:
            del self._known[next(iter(self._known))]
        await self._share(ended)

    async def _share(self, rebuild: Rebuild) -> None:
        with contextlib.suppress(RedisError, OSError):
            text = rebuild.model_dump_json()
            await self._redis.set(_key(rebuild.rebuild_id), text, ex=KEPT_SECONDS)

    async def _found(self, rebuild_id: str, *, must_know: bool = False) -> Rebuild | None:
        own = self._known.get(rebuild_id)
        if own is not None:
            return own
        try:
            # GETEX is a write: a demoted server refuses it instead of answering with old data.
            text = await self._redis.getex(_key(rebuild_id))
        except (RedisError, OSError) as error:
            if not must_know:
                return None
            raise Unavailable(
                "REBUILDS_UNAVAILABLE", "rebuilds of other replicas cannot be looked up now"
            ) from error
        if text is None:
            return None
        found = Rebuild.model_validate_json(text)
        silent_since = self._clock.now() - timedelta(seconds=SILENT_SECONDS)
        is_silent = datetime.fromisoformat(found.updated_at) < silent_since
        if found.state is RebuildState.RUNNING and is_silent:
            return found.model_copy(update={"state": RebuildState.LOST})
        return found

    def _now(self) -> str:
        return self._clock.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _key(rebuild_id: str) -> str:
    return f"dialler:rebuild:{rebuild_id}"
