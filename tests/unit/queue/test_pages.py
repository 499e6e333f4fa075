"""Page tokens: they come back as they went out, and nothing else is taken for one."""

import base64
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import InvalidArgument
from services.queue.domain.pages import (
    PagePosition,
    moment_from,
    moment_token,
    number_from,
    number_token,
    page_size,
    position_from,
    position_token,
)
from services.queue.types import Queue, State, UserId

FILTERS = ["entries", Queue.UNSIGNED_USERS, State.READY, None]

_user_ids = st.integers(1, 2**63 - 1).map(UserId)
_keys = st.floats(allow_nan=False, allow_infinity=False)


@given(key=_keys, user_id=_user_ids)
def test_ready_positions_come_back_exactly(key: float, user_id: UserId) -> None:
    token = position_token(PagePosition(key, user_id), FILTERS)
    assert position_from(token, FILTERS, State.READY) == PagePosition(key, user_id)


@given(key=st.datetimes(timezones=st.just(UTC)), user_id=_user_ids)
def test_waiting_positions_come_back_exactly(key: datetime, user_id: UserId) -> None:
    token = position_token(PagePosition(key, user_id), FILTERS)
    assert position_from(token, FILTERS, State.WAITING) == PagePosition(key, user_id)


def test_no_token_is_the_beginning() -> None:
    assert position_from("", FILTERS, State.READY) is None


def _token(*fields: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


def _of_list(*fields: Any) -> str:
    """A token of the right list with other fields than it should have."""
    good = json.loads(
        base64.urlsafe_b64decode(position_token(PagePosition(0.5, UserId(7)), FILTERS))
    )
    return _token(*good[:2], *fields)


def test_the_tokens_made_here_are_well_formed_otherwise() -> None:
    assert position_from(_of_list(0.5, 7), FILTERS, State.READY) == PagePosition(0.5, UserId(7))


@pytest.mark.parametrize(
    "other",
    [
        ["entries", Queue.OUTSTANDING_REQUESTS, State.READY, None],
        ["entries", Queue.UNSIGNED_USERS, State.WAITING, None],
        ["entries", Queue.UNSIGNED_USERS, State.READY, "agent"],
        ["callbacks", Queue.UNSIGNED_USERS, State.READY, None],
    ],
)
def test_a_token_is_of_one_list(other: list[Any]) -> None:
    token = position_token(PagePosition(0.5, UserId(7)), other)
    with pytest.raises(InvalidArgument):
        position_from(token, FILTERS, State.READY)


@given(moment=st.datetimes(timezones=st.just(UTC)), identifier=st.uuids(), number=_user_ids)
def test_positions_by_time_and_by_number_come_back_exactly(
    moment: datetime, identifier: UUID, number: UserId
) -> None:
    token = moment_token(moment, identifier, FILTERS)
    assert moment_from(token, FILTERS) == (moment, identifier)
    assert number_from(number_token(number, FILTERS), FILTERS) == number
    for refuse in (number_from, moment_from):
        with pytest.raises(InvalidArgument):
            refuse(position_token(PagePosition(None, number), FILTERS), FILTERS)


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "****",
        "é",
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        base64.urlsafe_b64encode(b"7").decode(),
        _token(),
        _token(1, 1, 1, 0.5),
        _token(1, "0123456789ab", 0.5, 7),
        _of_list(0.5),
        _of_list("0.5", 7),
        _of_list(float("inf"), 7),
        _of_list(None, 7),
        _of_list(0.5, "7"),
        _of_list(0.5, True),
        _of_list(0.5, 0),
        _of_list(0.5, 2**63),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    ],
)
def test_other_tokens_are_refused(token: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        position_from(token, FILTERS, State.READY)
    assert raised.value.reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize("key", [None, 3, "soon", "2025-06-02T09:00:00"])
def test_a_waiting_list_wants_a_moment(key: Any) -> None:
    with pytest.raises(InvalidArgument):
        position_from(_of_list(key, 7), FILTERS, State.WAITING)


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (200, 200), (201, 200)])
def test_page_sizes(asked: int, size: int) -> None:
    assert page_size(asked) == size
