"""Which people's data an agent may see: assigned, found by search, or to be called back by them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2
from redis.exceptions import RedisError

from gateway.access.auth import Caller, Role
from servicekit.backoff import UNAVAILABLE
from servicekit.clock import Clock
from servicekit.errors import (
    NotFound,
    PermissionDenied,
    ServiceError,
    Unavailable,
)
from servicekit.redis_client import RedisClient, drop_idle_connections

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

# For how long a permission is not checked again: the person of an assignment that ended elsewhere
# stays readable for so long.
GRANTED_SECONDS = 5.0
MOST_AGENTS = 10_000


class FoundPeople:
    """The people that each agent has found by a recent search, kept in Redis for all replicas."""

    def __init__(self, redis: RedisClient, seconds: int) -> None:
        self._redis = redis
        self._seconds = seconds

    async def remember(self, subject: str, user_ids: "Iterable[int]") -> None:
        """Let the agent read these people for some time; raises Unavailable without Redis."""
        pipeline = self._redis.pipeline(transaction=False)
        for user_id in user_ids:
            pipeline.set(_key(subject, user_id), b"", ex=self._seconds)
        try:
            await pipeline.execute()
        except (RedisError, OSError) as error:
            raise Unavailable(
                "SEARCH_UNAVAILABLE",
                "search results cannot be stored now, so that they could not be opened",
                retry_after_seconds=1.0,
            ) from error

    async def holds(self, subject: str, user_id: int) -> bool:
        """Return whether the agent has found the person; raises Unavailable without Redis."""
        key = _key(subject, user_id)
        # GETEX is a write, which a demoted server refuses; it would answer EXISTS.
        try:
            return await self._redis.getex(key) is not None
        except (RedisError, OSError):
            # A connection that a restarted Redis has closed fails at its first use.
            await drop_idle_connections(self._redis)
        try:
            return await self._redis.getex(key) is not None
        except (RedisError, OSError) as error:
            raise Unavailable("FOUND_UNKNOWN", "searches cannot be looked up now") from error


@dataclass(frozen=True, slots=True)
class _HeldPerson:
    """The person of an assignment as last seen; the lease ends at a Unix time."""

    user_id: int
    lease_ends_at: float


class PersonAccess:
    """Lets supervisors and services read every person, and agents some people.

    An agent reads the assigned person, people found by search, and people with an open callback
    that prefers the agent. Without Redis the assigned person stays readable; without the queue,
    too, until the lease seen last has expired. Any other person is then refused as uncertain.
    """

    def __init__(self, queue: "QueueServiceAsyncStub", found: FoundPeople, clock: Clock) -> None:
        self._queue = queue
        self._found = found
        self._clock = clock
        self._granted: dict[str, dict[int, float]] = {}
        self._held: dict[str, _HeldPerson] = {}

    def is_granted(self, caller: Caller, user_id: int) -> bool:
        """Return whether the caller may read the person, as far as known without a call."""
        if caller.role is not Role.AGENT:
            return True
        granted = self._granted.get(caller.subject)
        return granted is not None and granted.get(user_id, 0.0) > self._clock.monotonic()

    async def require(self, caller: Caller, user_id: int) -> None:
        """Raise PermissionDenied (PERSON_NOT_YOURS) unless the caller may read the person.

        Raises Unavailable (ACCESS_UNCERTAIN) when that cannot be determined.
        """
        if self.is_granted(caller, user_id):
            return
        is_uncertain = False
        for ask in (self._is_held, self._found.holds, self._is_to_be_called_back):
            try:
                if await ask(caller.subject, user_id):
                    self._grant(caller.subject, user_id)
                    return
            except UNAVAILABLE:
                is_uncertain = True
        if is_uncertain:
            raise Unavailable(
                "ACCESS_UNCERTAIN",
                "whether you may see this person cannot be determined now",
                retry_after_seconds=1.0,
            )
        raise PermissionDenied(
            "PERSON_NOT_YOURS",
            "the person is neither assigned to you nor found by you recently nor your callback",
        )

    def begin(self, subject: str, assignment: queue_pb2.Assignment) -> None:
        """Record that the agent holds a person; without effect once the lease has expired."""
        self._limit()
        ends_at = float(assignment.lease_expires_at.seconds)
        if ends_at <= self._clock.now().timestamp():
            return
        self._held[subject] = _HeldPerson(assignment.user_id, ends_at)
        self._grant(subject, assignment.user_id)

    def end(self, subject: str, user_id: int) -> None:
        """Record that the agent no longer holds the person."""
        held = self._held.get(subject)
        if held is not None and held.user_id == user_id:
            del self._held[subject]
        self._granted.get(subject, {}).pop(user_id, None)

    async def _is_held(self, subject: str, user_id: int) -> bool:
        request = queue_pb2.GetCurrentAssignmentRequest(agent_id=subject)
        try:
            answer = await self._queue.GetCurrentAssignment(request)
        except NotFound:
            self._held.pop(subject, None)
            return False
        except ServiceError:
            held = self._held.get(subject)
            if held is None or held.user_id != user_id:
                raise
            if held.lease_ends_at <= self._clock.now().timestamp():
                raise
            return True
        ends_at = float(answer.assignment.lease_expires_at.seconds)
        self._held[subject] = _HeldPerson(answer.assignment.user_id, ends_at)
        return bool(answer.assignment.user_id == user_id)

    async def _is_to_be_called_back(self, subject: str, user_id: int) -> bool:
        answer = await self._queue.ListCallbacks(
            queue_pb2.ListCallbacksRequest(
                preferred_agent_id=subject,
                user_id=user_id,
                state=call_state_pb2.CALLBACK_STATE_OPEN,
                page_size=1,
            )
        )
        return bool(answer.callbacks)

    def _grant(self, subject: str, user_id: int) -> None:
        self._limit()
        now = self._clock.monotonic()
        former = self._granted.get(subject, {})
        kept = {known: until for known, until in former.items() if until > now}
        self._granted[subject] = kept | {user_id: now + GRANTED_SECONDS}

    def _limit(self) -> None:
        for each in (self._granted, self._held):
            if len(each) >= MOST_AGENTS:
                each.clear()


def _key(subject: str, user_id: int) -> str:
    return f"dialler:found:{subject}:{user_id}"
