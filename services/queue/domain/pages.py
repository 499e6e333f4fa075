"""Pages of a queue: how large, and where the next one starts."""

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

from servicekit.errors import InvalidArgument
from services.queue.domain.entries import Entry
from services.queue.domain.terms import State, UserId

DEFAULT_SIZE = 50
LARGEST_SIZE = 200

_VERSION = 2

# What a list was asked for: a token holds a hash of it.
Listed = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Position:
    """The last person of a page: the next one starts after it.

    `key` is what the state's order goes by before the newest person: the rank key, the moment
    somebody falls due, or nothing.
    """

    key: float | datetime | None
    user_id: UserId


def page_size(asked: int) -> int:
    """Return how many entries a page holds: 0 means the default, too many are coerced."""
    return min(asked, LARGEST_SIZE) if asked else DEFAULT_SIZE


def position_of(entry: Entry, state: State) -> Position:
    """Return the position after this entry in a list of that state."""
    if state is State.READY:
        return Position(entry.rank_key, entry.user_id)
    return Position(entry.due_at if state is State.WAITING else None, entry.user_id)


def written(position: Position, listed: Listed) -> str:
    """Return the token for a position in a list."""
    key = position.key
    text = key.isoformat() if isinstance(key, datetime) else key
    return _token([*_head(listed), text, position.user_id])


def read(token: str, listed: Listed, state: State) -> Position | None:
    """Return the position of a token in a list of people of one state; None for the empty one.

    Raises InvalidArgument (PAGE_TOKEN_INVALID) for one that is not of this very list.
    """
    if not token:
        return None
    with _tokens():
        key, user_id = _fields(token, listed)
        return Position(_key(key, state), _number(user_id))


def written_moment(moment: datetime, identifier: UUID, listed: Listed) -> str:
    """Return the token for a position in a list by time."""
    return _token([*_head(listed), moment.isoformat(), str(identifier)])


def read_moment(token: str, listed: Listed) -> tuple[datetime, UUID] | None:
    """Return the position of a token in a list by time; raises as `read` does."""
    if not token:
        return None
    with _tokens():
        moment, identifier = _fields(token, listed)
        return _moment(moment), UUID(identifier)


def written_number(number: int, listed: Listed) -> str:
    """Return the token for a position in a list by number."""
    return _token([*_head(listed), number])


def read_number(token: str, listed: Listed) -> int | None:
    """Return the position of a token in a list by number; raises as `read` does."""
    if not token:
        return None
    with _tokens():
        (number,) = _fields(token, listed)
        return _number(number)


def _head(listed: Listed) -> list[Any]:
    """What a token begins with, so that it fits one list only."""
    asked = json.dumps(listed, default=str).encode()
    return [_VERSION, hashlib.blake2b(asked, digest_size=6).hexdigest()]


def _token(fields: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


def _fields(token: str, listed: Listed) -> list[Any]:
    fields = json.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
    if not isinstance(fields, list) or fields[:2] != _head(listed):
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
