"""Search: candidates by index, shown as MySQL has them at this moment."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dialler.queue.v1 import queue_pb2
from dialler.user_context.v1 import user_context_pb2 as pb

from servicekit.errors import InvalidArgument
from services.user_context.domain import UserId
from services.user_context.names import are_met, searched_words
from services.user_context.phones import e164
from services.user_context.store_search import Brief, MainAppPeople, NameStore

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

DEFAULT_SHOWN = 20
MOST_SHOWN = 50
LONGEST_SEARCHED = 255


class PeopleSearch:
    """Finds people by number, address or name; no search reads more of MySQL than it shows."""

    def __init__(
        self, people: MainAppPeople, names: NameStore, queue: "QueueServiceAsyncStub"
    ) -> None:
        self._people = people
        self._names = names
        self._queue = queue

    async def find(self, request: pb.SearchUsersRequest) -> pb.SearchUsersResponse:
        """Answer SearchUsers."""
        limit = min(request.limit or DEFAULT_SHOWN, MOST_SHOWN)
        by = request.WhichOneof("by")
        text = getattr(request, by).strip() if by else ""
        if not text or len(text) > LONGEST_SEARCHED or not text.isprintable():
            raise InvalidArgument("SEARCH_EMPTY", "nothing that can be searched for is given")
        if by == "phone":
            return await self._by_phone(text, limit)
        if by == "email_address":
            found = await self._people.by_address(text)
            return _answer(found, limit, is_complete=True)
        return await self._by_name(text, limit)

    async def _by_phone(self, text: str, limit: int) -> pb.SearchUsersResponse:
        wanted = e164(text)
        if wanted is None:
            raise InvalidArgument("PHONE_NOT_VALID", "not a whole, valid phone number")
        answer = await self._queue.FindUsersByPhone(
            queue_pb2.FindUsersByPhoneRequest(phone_e164=wanted, limit=limit + 1)
        )
        found = await self._read([UserId(it) for it in answer.user_ids])
        confirmed = [it for it in found if it.phone_number and e164(it.phone_number) == wanted]
        return _answer(confirmed, limit, is_complete=len(answer.user_ids) <= limit)

    async def _by_name(self, text: str, limit: int) -> pb.SearchUsersResponse:
        words = searched_words(text)
        if not words:
            raise InvalidArgument("NAME_TOO_SHORT", "at least two letters of a name are needed")
        candidates = await self._names.matching(words, limit + 1)
        found = await self._read(candidates)
        confirmed = [it for it in found if are_met(words, it.words)]
        is_complete = len(candidates) <= limit and await self._names.are_complete()
        return _answer(confirmed, limit, is_complete=is_complete)

    async def _read(self, user_ids: Sequence[UserId]) -> list[Brief]:
        found = await self._people.briefs(user_ids)
        return [found[it] for it in user_ids if it in found]


def _answer(found: Sequence[Brief], limit: int, *, is_complete: bool) -> pb.SearchUsersResponse:
    return pb.SearchUsersResponse(
        users=[_message(it) for it in found[:limit]],
        is_complete=is_complete and len(found) <= limit,
    )


def _message(brief: Brief) -> pb.FoundUser:
    raw = brief.phone_number
    return pb.FoundUser(
        user_id=brief.user_id,
        first_name=brief.first_name,
        last_name=brief.last_name,
        previous_name=brief.previous_name,
        email_address=brief.email_address,
        phone_number=(e164(raw) or raw) if raw else raw,
        date_of_birth=brief.date_of_birth.isoformat() if brief.date_of_birth else None,
        is_enabled=brief.is_enabled,
        status=brief.status,
    )
