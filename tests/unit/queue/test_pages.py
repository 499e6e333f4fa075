"""Page tokens: they come back as they went out, and nothing else is taken for one."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import InvalidArgument
from services.queue.domain.pages import Position, page_size, read, written
from services.queue.domain.terms import Queue, State, UserId

_user_ids = st.integers(1, 2**63 - 1).map(UserId)
_keys = st.floats(allow_nan=False, allow_infinity=False)


@given(key=_keys, user_id=_user_ids)
def test_ready_positions_come_back_exactly(key: float, user_id: UserId) -> None:
    token = written(Position(key, user_id), Queue.UNSIGNED_USERS, State.READY)
    assert read(token, Queue.UNSIGNED_USERS, State.READY) == Position(key, user_id)


@given(key=st.datetimes(timezones=st.just(UTC)), user_id=_user_ids)
def test_waiting_positions_come_back_exactly(key: datetime, user_id: UserId) -> None:
    token = written(Position(key, user_id), Queue.UNSIGNED_USERS, State.WAITING)
    assert read(token, Queue.UNSIGNED_USERS, State.WAITING) == Position(key, user_id)


def test_no_token_is_the_beginning() -> None:
    assert read("", Queue.UNSIGNED_USERS, State.READY) is None


def _token(*fields: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "****",
        "é",
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        _token(),
        _token(1, 1, 1, 0.5),
        _token(2, 1, 1, 0.5, 7),
        _token(1, 2, 1, 0.5, 7),
        _token(1, 1, 2, "2025-06-02T09:00:00+00:00", 7),
        _token(1, 1, 1, "0.5", 7),
        _token(1, 1, 1, float("inf"), 7),
        _token(1, 1, 1, None, 7),
        _token(1, 1, 1, 0.5, "7"),
        _token(1, 1, 1, 0.5, True),
        _token(1, 1, 1, 0.5, 0),
        _token(1, 1, 1, 0.5, 2**63),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    ],
)
def test_other_tokens_are_refused(token: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        read(token, Queue.UNSIGNED_USERS, State.READY)
    assert raised.value.reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize("key", [None, 3, "soon", "2025-06-02T09:00:00"])
def test_a_waiting_list_wants_a_moment(key: Any) -> None:
    with pytest.raises(InvalidArgument):
        read(_token(1, 1, 2, key, 7), Queue.UNSIGNED_USERS, State.WAITING)


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (200, 200), (201, 200)])
def test_page_sizes(asked: int, size: int) -> None:
    assert page_size(asked) == size
