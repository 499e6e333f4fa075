"""Pages of a queue: how large, and where the next one starts."""

import base64
import binascii
import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from servicekit.errors import InvalidArgument
from services.queue.domain.entries import Entry
from services.queue.domain.terms import Queue, State, UserId

DEFAULT_SIZE = 50
LARGEST_SIZE = 200

_VERSION = 1


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


def written(position: Position, queue: Queue, state: State) -> str:
    """Return the token for a position in the list of one queue and state."""
    key = position.key
    text = key.isoformat() if isinstance(key, datetime) else key
    fields = [_VERSION, int(queue), int(state), text, position.user_id]
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


def read(token: str, queue: Queue, state: State) -> Position | None:
    """Return the position of a token; None for the empty one.

    Raises InvalidArgument (PAGE_TOKEN_INVALID) for one that is not of this very list.
    """
    if not token:
        return None
    try:
        fields = json.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
        version, of_queue, of_state, key, user_id = fields
        if [version, of_queue, of_state] != [_VERSION, int(queue), int(state)]:
            raise ValueError("a token of another list")
        return Position(_key(key, state), _user_id(user_id))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise InvalidArgument(
            "PAGE_TOKEN_INVALID", "the page token is not one of this list"
        ) from None


def _key(value: Any, state: State) -> float | datetime | None:
    if state is State.READY:
        if isinstance(value, float) and math.isfinite(value):
            return value
    elif state is State.WAITING:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment
    elif value is None:
        return None
    raise ValueError("not a key of this order")


def _user_id(value: Any) -> UserId:
    if type(value) is not int or not 0 < value < 2**63:
        raise ValueError("not a user id")
    return UserId(value)
