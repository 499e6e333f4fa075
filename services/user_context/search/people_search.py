"""Search: finds candidates by an index and shows them as MySQL has them at this moment."""

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dialler.queue.v1 import queue_pb2
from dialler.user_context.v1 import user_context_pb2 as pb

from servicekit.errors import InvalidArgument
from servicekit.phone_numbers import numbers_in
from services.user_context.cache.rendering import shown_phone
from services.user_context.domain import UserId
from services.user_context.search.names import match_names, searched_words
from services.user_context.search.store import Brief, MainAppPeople, NameStore

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

DEFAULT_SHOWN = 20
MOST_SHOWN = 50
LONGEST_SEARCHED = 255

# Joiners, fillers and selectors that Unicode classes as marks, letters or symbols.
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0").union(
    map(chr, range(0xFE00, 0xFE10))
)


class PeopleSearch:
    """Finds people by number, address or name; of MySQL it reads only the people it shows."""

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
        # Pasted texts bring characters along that cannot be seen.
        typed: str = getattr(request, by) if by else ""
        text = "".join(" " if it.isspace() else it for it in typed if _is_visible(it)).strip()
        if not text or len(text) > LONGEST_SEARCHED:
            raise InvalidArgument("SEARCH_EMPTY", "nothing that can be searched for is given")
        if by == "phone":
            return await self._by_phone(text, limit)
        if by == "email_address":
            found = await self._people.by_address(text)
            return _answer(found, limit, is_complete=True)
        return await self._by_name(text, limit)

    async def _by_phone(self, text: str, limit: int) -> pb.SearchUsersResponse:
        numbers = numbers_in(text)
        if not numbers:
            raise InvalidArgument("PHONE_NOT_VALID", "not a whole, valid phone number")
        wanted = numbers[0]
        answer = await self._queue.FindUsersByPhone(
            queue_pb2.FindUsersByPhoneRequest(phone_e164=wanted, limit=limit + 1)
        )
        found = await self._read([UserId(it) for it in answer.user_ids])
        confirmed = [it for it in found if wanted in numbers_in(it.phone_number or "")]
        return _answer(confirmed, limit, is_complete=len(answer.user_ids) <= limit)

    async def _by_name(self, text: str, limit: int) -> pb.SearchUsersResponse:
        words = searched_words(text)
        if not words:
            raise InvalidArgument("NAME_TOO_SHORT", "at least two letters of a name are needed")
        candidates = await self._names.matching(words, limit + 1)
        found = await self._read(candidates)
        confirmed = [it for it in found if match_names(words, it.words)]
        is_complete = len(candidates) <= limit and await self._names.are_complete()
        return _answer(confirmed, limit, is_complete=is_complete)

    async def _read(self, user_ids: Sequence[UserId]) -> list[Brief]:
        found = await self._people.briefs(user_ids)
        return [found[it] for it in user_ids if it in found]


def _is_visible(character: str) -> bool:
    if character.isspace():
        return True
    # Not visible: controls, formats, and private or unassigned characters such as icons.
    return not unicodedata.category(character).startswith("C") and character not in _UNSEEN


def _answer(found: Sequence[Brief], limit: int, *, is_complete: bool) -> pb.SearchUsersResponse:
    answer = pb.SearchUsersResponse(is_complete=is_complete and len(found) <= limit)
    for brief in found[:limit]:
        phone = shown_phone(brief.phone_number)
        answer.users.add(
            user_id=brief.user_id,
            first_name=brief.first_name,
            last_name=brief.last_name,
            previous_name=brief.previous_name,
            email_address=brief.email_address,
            phone_number=phone.number,
            phone_numbers=phone.numbers,
            phone_number_as_written=phone.as_written,
            date_of_birth=brief.date_of_birth.isoformat() if brief.date_of_birth else None,
            is_enabled=brief.is_enabled,
            status=brief.status,
        )
    return answer
