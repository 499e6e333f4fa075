"""Reads people's present facts from `user_context`."""

from collections.abc import Sequence

from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc

from servicekit import deadline
from servicekit.backoff import TRY_AGAIN
from servicekit.errors import ServiceError, Unavailable
from services.queue.domain.facts import UserFacts
from services.queue.types import UserId
from services.queue.wire.requests import facts_of

RETRY_AFTER_SECONDS = 1.0


class UserContextClient:
    """Reads facts from the main app's database through `user_context`, never from a cache."""

    def __init__(
        self,
        user_context: "user_context_pb2_grpc.UserContextServiceAsyncStub",
        timeout_seconds: float,
    ) -> None:
        self._user_context = user_context
        self._timeout_seconds = timeout_seconds
        self._read_last: UserId | None = None

    async def read(self, user_ids: Sequence[UserId]) -> dict[UserId, UserFacts]:
        """Return the facts of these people as they are now; they have no version.

        Raises Unavailable (MAIN_APP_UNAVAILABLE) when no person can be read, and any other
        ServiceError when these people cannot.
        """
        request = user_context_pb2.ReadUserFactsRequest(user_ids=user_ids)
        try:
            with deadline.limit(self._timeout_seconds):
                answer = await self._user_context.ReadUserFacts(request)
        except TRY_AGAIN as error:
            raise _unavailable(error) from error
        found = {UserId(it.user_id): facts_of(it) for it in answer.facts}
        self._read_last = next(iter(found), self._read_last)
        return found

    async def is_readable(self) -> bool:
        """Return whether the person read last can be read again; False before any reading.

        Distinguishes single people who cannot be read from a service that reads no person. Raises
        Unavailable as `read` does.
        """
        last = self._read_last
        if last is None:
            return False
        try:
            await self.read([last])
        except Unavailable:
            raise
        except Exception:
            # The failure may concern this person alone: the next reading names another one.
            if self._read_last == last:
                self._read_last = None
            return False
        return True

    async def refresh(self, user_ids: Sequence[UserId]) -> list[UserFacts]:
        """Have `user_context` read these people anew, and return their versioned facts.

        Raises as `read` does.
        """
        request = user_context_pb2.RefreshUsersRequest(user_ids=user_ids)
        try:
            with deadline.limit(self._timeout_seconds):
                answer = await self._user_context.RefreshUsers(request)
        except TRY_AGAIN as error:
            raise _unavailable(error) from error
        return [facts_of(it) for it in answer.facts]


def _unavailable(error: ServiceError) -> Unavailable:
    return Unavailable(
        "MAIN_APP_UNAVAILABLE",
        "the main app cannot be asked, so no person is handed out",
        retry_after_seconds=error.retry_after_seconds or RETRY_AFTER_SECONDS,
        cause=error.reason,
    )
