"""Rows become people, and requests are kept within bounds."""

import random
from datetime import UTC, datetime

import pytest

from servicekit.errors import InvalidArgument
from services.user_context.domain import (
    PeopleRows,
    UserId,
    assemble,
    distinct_users,
    numeric_key,
    page_size,
)

_EARLY = datetime(2024, 1, 1, tzinfo=UTC)
_LATE = datetime(2024, 6, 1, tzinfo=UTC)


def _rows() -> PeopleRows:
    return PeopleRows(
        users=[
            {"user_id": 1, "current_user_address_id": "home"},
            {"user_id": 2, "current_user_address_id": None},
            {"user_id": 3, "current_user_address_id": "gone"},
        ],
        claims=[
            {"claim_id": 10, "user_id": 1, "created_at": _EARLY},
            {"claim_id": 11, "user_id": 1, "created_at": _LATE},
            {"claim_id": 12, "user_id": 1, "created_at": _LATE},
            {"claim_id": 13, "user_id": 1, "created_at": None},
            {"claim_id": 20, "user_id": 2, "created_at": _EARLY},
        ],
        requirements=[
            {"requirement_id": "b", "claim_id": 10, "created_at": _EARLY},
            {"requirement_id": "a", "claim_id": 10, "created_at": _LATE},
            {"requirement_id": "c", "claim_id": 10, "created_at": None},
            {"requirement_id": "d", "claim_id": 20, "created_at": _EARLY},
        ],
        vehicle_packages=[
            {"vehicle_package_id": "y", "claim_id": 11, "created_at": _EARLY},
            {"vehicle_package_id": "x", "claim_id": 11, "created_at": _EARLY},
        ],
        addresses=[{"address_id": "home"}],
    )


def test_claims_are_newest_first_and_what_hangs_on_them_oldest_first() -> None:
    person = assemble(_rows())[UserId(1)]

    assert [claim.row["claim_id"] for claim in person.claims] == [12, 11, 10, 13]
    assert [row["requirement_id"] for row in person.claims[2].requirements] == ["c", "b", "a"]
    assert [row["vehicle_package_id"] for row in person.claims[1].vehicle_packages] == ["x", "y"]


def test_a_missing_address_and_no_claims_are_ordinary() -> None:
    people = assemble(_rows())

    assert people[UserId(1)].address == {"address_id": "home"}
    assert people[UserId(2)].address is None
    assert people[UserId(3)].address is None
    assert list(people[UserId(3)].claims) == []


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    rows, order = _rows(), random.Random(seed)
    shuffled = PeopleRows(
        *(
            order.sample(list(part), len(part))
            for part in (
                rows.users,
                rows.claims,
                rows.requirements,
                rows.vehicle_packages,
                rows.addresses,
            )
        )
    )

    assert assemble(shuffled) == assemble(rows)


def test_a_person_asked_for_twice_counts_once() -> None:
    assert distinct_users([3, 1, 3], limit=2) == [3, 1]


@pytest.mark.parametrize(
    ("user_ids", "reason"), [([1, 2, 3], "TOO_MANY_USERS"), ([1, 0], "USER_ID_MISSING")]
)
def test_what_cannot_be_asked_for_is_refused(user_ids: list[int], reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        distinct_users(user_ids, limit=2)

    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("asked", "given"), [(0, 1_000), (1, 1), (10_000, 10_000), (2**31, 10_000)]
)
def test_page_sizes_are_coerced(asked: int, given: int) -> None:
    assert page_size(asked) == given


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("1", 1),
        (str(2**64 - 1), 2**64 - 1),
        (str(2**64), None),
        ("12abc", None),
        ("-1", None),
        ("", None),
        ("1e3", None),
        ("\N{ARABIC-INDIC DIGIT ONE}", None),
        ("9" * 5_000, None),
    ],
)
def test_keys_are_numbers_or_nothing(key: str, number: int | None) -> None:
    assert numeric_key(key) == number
