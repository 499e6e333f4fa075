"""What the main app says of people now, asked of `user_context`."""

from collections.abc import Sequence

from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, Exhausted, ServiceError, Unavailable
from services.queue.domain.facts import UserFacts
from services.queue.domain.terms import UserId
from services.queue.requests import facts_of

RETRY_AFTER_SECONDS = 1.0

# The check cannot be made at all; anything else may lie with one person.
_AWAY = (Unavailable, DeadlineExceeded, Exhausted)


class MainApp:
    """Facts straight from the main app; never from a cache."""

    def __init__(
        self,
        user_context: "user_context_pb2_grpc.UserContextServiceAsyncStub",
        timeout_seconds: float,
    ) -> None:
        self._user_context = user_context
        self._timeout_seconds = timeout_seconds

    async def read(self, user_ids: Sequence[UserId]) -> dict[UserId, UserFacts]:
        """Return the facts of these people as they are now; they have no version.

        Raises Unavailable (MAIN_APP_UNAVAILABLE) when nobody can be checked, and any other
        ServiceError when these people cannot.
        """
        request = user_context_pb2.ReadUserFactsRequest(user_ids=user_ids)
        try:
            with deadline.limit(self._timeout_seconds):
                answer = await self._user_context.ReadUserFacts(request)
        except _AWAY as error:
            raise _unavailable(error) from error
        return {UserId(it.user_id): facts_of(it) for it in answer.facts}

    async def refresh(self, user_ids: Sequence[UserId]) -> list[UserFacts]:
        """Have these people read anew everywhere and return their facts, versioned.

        Raises as `read` does.
        """
        request = user_context_pb2.RefreshUsersRequest(user_ids=user_ids)
        try:
            with deadline.limit(self._timeout_seconds):
                answer = await self._user_context.RefreshUsers(request)
        except _AWAY as error:
            raise _unavailable(error) from error
        return [facts_of(it) for it in answer.facts]


def _unavailable(error: ServiceError) -> Unavailable:
    return Unavailable(
        "MAIN_APP_UNAVAILABLE",
        "the main app cannot be asked, so nobody is handed out",
        retry_after_seconds=error.retry_after_seconds or RETRY_AFTER_SECONDS,
        cause=error.reason,
    )
