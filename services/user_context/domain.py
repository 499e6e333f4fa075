"""People of the main app as one reading found them, and what a request may ask for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import NewType

from servicekit.errors import InvalidArgument

UserId = NewType("UserId", int)

# One row by our names for its columns; the values are as `store` normalises them.
Row = Mapping[str, object]

BATCH_GET_LIMIT = 500
REFRESH_LIMIT = 1_000
RESOLVE_LIMIT = 10_000
PAGE_LIMIT = 10_000
DEFAULT_PAGE = 1_000
BLOCK_LIMIT = 10_000
DEFAULT_BLOCK = 5_000
RANGES_LIMIT = 100
# With so many ranges, owners enough for an answer of the size messages may have.
OWNER_RANGE_LIMIT = 10_000
HIGHEST_ID = 2**64 - 1

# Tables whose rows make up a person, by whose ids their rows are grouped.
OF_PEOPLE = ("users", "claims", "user_addresses")
OF_CLAIMS = ("claim_requirements", "claim_vehicle_packages")

_BEGINNING = datetime.min.replace(tzinfo=UTC)


class Part(StrEnum):
    """What is cached by itself: each part has its own source, fence and version."""

    MAIN = "m"
    CALL = "c"


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """A claim with what hangs on it, oldest first."""

    row: Row
    requirements: Sequence[Row] = ()
    vehicle_packages: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class Person:
    """Everything one reading found of a person; claims newest first."""

    user_id: UserId
    user: Row
    claims: Sequence[ClaimRecord] = ()
    address: Row | None = None
    # UserFacts.row_fingerprints; empty when the reading did not ask for them.
    row_fingerprints: bytes = b""


@dataclass(frozen=True, slots=True)
class PeopleRows:
    """The rows of one reading, table by table, in any order."""

    users: Sequence[Row] = ()
    claims: Sequence[Row] = ()
    requirements: Sequence[Row] = ()
    vehicle_packages: Sequence[Row] = ()
    addresses: Sequence[Row] = ()
    row_fingerprints: Mapping[int, bytes] = field(default_factory=dict, kw_only=True)


@dataclass(slots=True)
class _Hanging:
    requirements: list[Row] = field(default_factory=list)
    vehicle_packages: list[Row] = field(default_factory=list)


def assemble(rows: PeopleRows) -> dict[UserId, Person]:
    """Join the rows to people; the result does not depend on the order of the rows."""
    hanging: dict[object, _Hanging] = {}
    for row in rows.requirements:
        hanging.setdefault(row["claim_id"], _Hanging()).requirements.append(row)
    for row in rows.vehicle_packages:
        hanging.setdefault(row["claim_id"], _Hanging()).vehicle_packages.append(row)
    claims: dict[object, list[ClaimRecord]] = {}
    for row in sorted(rows.claims, key=_claim_age, reverse=True):
        claims.setdefault(row["user_id"], []).append(_claim(row, hanging.get(row["claim_id"])))
    addresses = {row["address_id"]: row for row in rows.addresses}
    return {
        user_id: Person(
            user_id,
            row,
            claims.get(user_id, ()),
            addresses.get(row.get("current_user_address_id")),
            rows.row_fingerprints.get(user_id, b""),
        )
        for row in rows.users
        for user_id in (user_id_of(row),)
    }


def user_id_of(row: Row) -> UserId:
    """Return the person a row of ``users`` is about."""
    user_id = row["user_id"]
    if not isinstance(user_id, int):
        raise TypeError("users.id is not a number")
    return UserId(user_id)


def _claim(row: Row, hanging: _Hanging | None) -> ClaimRecord:
    if hanging is None:
        return ClaimRecord(row)
    return ClaimRecord(
        row,
        sorted(hanging.requirements, key=_requirement_age),
        sorted(hanging.vehicle_packages, key=_package_age),
    )


def _claim_age(row: Row) -> tuple[datetime, int]:
    claim_id = row["claim_id"]
    return _created(row), claim_id if isinstance(claim_id, int) else 0


def _requirement_age(row: Row) -> tuple[datetime, str]:
    return _created(row), str(row["requirement_id"])


def _package_age(row: Row) -> tuple[datetime, str]:
    return _created(row), str(row["vehicle_package_id"])


def _created(row: Row) -> datetime:
    created = row.get("created_at")
    return created if isinstance(created, datetime) else _BEGINNING


def distinct_users(user_ids: Iterable[int], limit: int) -> list[UserId]:
    """Return each person once, in the order asked for.

    Raises:
        InvalidArgument: more than ``limit`` people, or an id of 0, which nobody has.
    """
    distinct = [UserId(user_id) for user_id in dict.fromkeys(user_ids)]
    if len(distinct) > limit:
        raise InvalidArgument(
            "TOO_MANY_USERS",
            f"at most {limit} people may be asked for at once",
            limit=str(limit),
            asked=str(len(distinct)),
        )
    if 0 in distinct:
        raise InvalidArgument("USER_ID_MISSING", "a user id is 0, or was not given")
    return distinct


def page_size(asked: int) -> int:
    """Return how many ids a page holds: 0 means the default, too many are coerced."""
    return min(asked, PAGE_LIMIT) if asked else DEFAULT_PAGE


def block_size(asked: int) -> int:
    """Return how many people a block holds: 0 means the default, too many are coerced."""
    return min(asked, BLOCK_LIMIT) if asked else DEFAULT_BLOCK


def fingerprinted_table(name: str) -> str:
    """Return the table's name.

    Raises InvalidArgument (UNKNOWN_TABLE) for one whose rows make up nobody.
    """
    if name not in (*OF_PEOPLE, *OF_CLAIMS):
        raise InvalidArgument("UNKNOWN_TABLE", "no rows of such a table make up a person")
    return name


def range_size(asked: int) -> int:
    """Return how many owners' ids a range holds.

    Raises InvalidArgument (RANGE_SIZE_MISSING) for 0.
    """
    if not asked:
        raise InvalidArgument("RANGE_SIZE_MISSING", "a range must hold at least one id")
    return asked


def owner_ranges(size: int, numbers: Sequence[int]) -> list[int]:
    """Return the ranges that can have owners, each once.

    Raises InvalidArgument (RANGE_SIZE_MISSING, RANGE_SIZE_TOO_LARGE, TOO_MANY_RANGES).
    """
    if range_size(size) > OWNER_RANGE_LIMIT:
        raise InvalidArgument(
            "RANGE_SIZE_TOO_LARGE",
            f"ranges of at most {OWNER_RANGE_LIMIT} ids can be told apart",
            limit=str(OWNER_RANGE_LIMIT),
            asked=str(size),
        )
    if len(numbers) > RANGES_LIMIT:
        raise InvalidArgument(
            "TOO_MANY_RANGES",
            f"at most {RANGES_LIMIT} ranges may be asked for at once",
            limit=str(RANGES_LIMIT),
            asked=str(len(numbers)),
        )
    return [number for number in dict.fromkeys(numbers) if number * size <= HIGHEST_ID]


def load_share(asked: float) -> float:
    """Return the share of the time in which MySQL may be at work: 0 means all of it.

    Raises InvalidArgument (LOAD_SHARE_OUT_OF_RANGE) for what is no share, NaN included.
    """
    if not 0.0 <= asked <= 1.0:
        raise InvalidArgument(
            "LOAD_SHARE_OUT_OF_RANGE", "a load share is above 0 and at most 1", asked=str(asked)
        )
    return asked or 1.0


def numeric_key(key: str) -> int | None:
    """Return the unsigned 64-bit number that ``key`` spells in decimal; None if it spells none."""
    # isdecimal() alone would let other scripts' digits through.
    if not (key.isascii() and key.isdecimal()) or len(key) > 20:
        return None
    number = int(key)
    return number if number < 2**64 else None
