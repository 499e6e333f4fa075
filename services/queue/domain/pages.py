"""Pages of lists: their size, and the tokens of the next page."""

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from servicekit import paging
from servicekit.errors import InvalidArgument
from services.queue.domain.entries import Entry
from services.queue.types import State, UserId

DEFAULT_SIZE = 50
LARGEST_SIZE = 200

_VERSION = 2

# The filters of a list: a token holds a hash of them.
Filters = Sequence[Any]


@dataclass(frozen=True, slots=True)
class PagePosition:
    """The last person of a page, after which the next page starts.

    `key` is what the list is ordered by before the id: the rank key, the moment at which the person
    falls due, or None.
    """

    key: float | datetime | None
    user_id: UserId


def page_size(asked: int) -> int:
    """Return how many entries a page holds: 0 means the default, too many are coerced."""
    return paging.page_size(asked, default=DEFAULT_SIZE, largest=LARGEST_SIZE)


def position_of(entry: Entry, state: State) -> PagePosition:
    """Return the position after this entry in a list of that state."""
    if state is State.READY:
        return PagePosition(entry.rank_key, entry.user_id)
    return PagePosition(entry.due_at if state is State.WAITING else None, entry.user_id)


def position_token(position: PagePosition, filters: Filters) -> str:
    """Return the token for a position in a list."""
    key = position.key
    text = key.isoformat() if isinstance(key, datetime) else key
    return _token([*_head(filters), text, position.user_id])


def position_from(token: str, filters: Filters, state: State) -> PagePosition | None:
    """Return the position of a token in a list of people of one state; None for the empty token.

    Raises InvalidArgument (PAGE_TOKEN_INVALID) for a token of another list.
    """
    if not token:
        return None
    with _tokens():
        key, user_id = _fields(token, filters)
        return PagePosition(_key(key, state), _number(user_id))


def moment_token(moment: datetime, identifier: UUID, filters: Filters) -> str:
    """Return the token for a position in a list by time."""
    return _token([*_head(filters), moment.isoformat(), str(identifier)])


def moment_from(token: str, filters: Filters) -> tuple[datetime, UUID] | None:
    """Return the position of a token in a list by time; raises as `position_from` does."""
    if not token:
        return None
    with _tokens():
        moment, identifier = _fields(token, filters)
        return _moment(moment), UUID(identifier)


def number_token(number: int, filters: Filters) -> str:
    """Return the token for a position in a list by number."""
    return _token([*_head(filters), number])


def number_from(token: str, filters: Filters) -> int | None:
    """Return the position of a token in a list by number; raises as `position_from` does."""
    if not token:
        return None
    with _tokens():
        (number,) = _fields(token, filters)
        return _number(number)


def _head(filters: Filters) -> list[Any]:
    """Return what a token begins with, so that it is valid for one list only."""
    asked = json.dumps(filters, default=str).encode()
    return [_VERSION, hashlib.blake2b(asked, digest_size=6).hexdigest()]


def _token(fields: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


def _fields(token: str, filters: Filters) -> list[Any]:
    fields = json.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
    if not isinstance(fields, list) or fields[:2] != _head(filters):
        raise ValueError("a token of another list")
    return fields[2:]


@contextmanager
def _tokens() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise InvalidArgument(
            "PAGE_TOKEN_INVALID", "the page token is not one of this list"
        ) from None


def _key(value: Any, state: State) -> float | datetime | None:
    if state is State.READY:
        if isinstance(value, float) and math.isfinite(value):
            return value
    elif state is State.WAITING:
        return _moment(value)
    elif value is None:
        return None
    raise ValueError("not a key of this order")


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("not a moment")
    return moment


def _number(value: Any) -> UserId:
    if type(value) is not int or not 0 < value < 2**63:
        raise ValueError("not a number of a row")
    return UserId(value)
