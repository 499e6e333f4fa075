"""People of the main app as one reading finds them, and the limits of requests."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NewType

from servicekit.errors import InvalidArgument

UserId = NewType("UserId", int)

# One row by our names for its columns; the values are as `mysql.rows` normalises them.
Row = Mapping[str, object]

BATCH_GET_LIMIT = 500
# People read at once for such an answer, as many as the gateway asks for. It limits how much is
# read in vain when the answer is full.
PEOPLE_PER_READING = 64
# Contexts in one answer: with 500 ids beside them below 4 MiB, the default limit of gRPC clients.
ANSWER_BYTES = (4 << 20) - (64 << 10)
# One context alone: below the 16 MiB that this suite's clients and servers allow.
CONTEXT_BYTES = 15 << 20
REFRESH_LIMIT = 1_000
RESOLVE_LIMIT = 10_000
PAGE_LIMIT = 10_000
DEFAULT_PAGE = 1_000
BLOCK_LIMIT = 10_000
DEFAULT_BLOCK = 5_000
RANGES_LIMIT = 100
# RANGES_LIMIT ranges of so many owners fit into one answer.
OWNER_RANGE_LIMIT = 10_000
HIGHEST_ID = 2**64 - 1

# Tables whose rows belong to a person: directly, or through a claim.
OF_PEOPLE = ("users", "claims", "user_addresses")
OF_CLAIMS = ("claim_requirements", "claim_vehicle_packages")

_BEGINNING = datetime.min.replace(tzinfo=UTC)


class Part(StrEnum):
    """A part of a context that is cached separately, with its own source, fence and version."""

    MAIN = "m"
    CALL = "c"


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """A claim with its requirements and vehicle packages, oldest first."""

    row: Row
    requirements: Sequence[Row] = ()
    vehicle_packages: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class Person:
    """The rows of one person that one reading has found; claims newest first."""

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


def assemble(rows: PeopleRows) -> dict[UserId, Person]:
    """Join the rows to people; the result does not depend on the order of the rows."""
    requirements: dict[object, list[Row]] = {}
    for row in rows.requirements:
        requirements.setdefault(row["claim_id"], []).append(row)
    packages: dict[object, list[Row]] = {}
    for row in rows.vehicle_packages:
        packages.setdefault(row["claim_id"], []).append(row)
    claims: dict[object, list[ClaimRecord]] = {}
    requirement_age, package_age = _age("requirement_id"), _age("vehicle_package_id")
    for row in sorted(rows.claims, key=_age("claim_id"), reverse=True):
        record = ClaimRecord(
            row,
            sorted(requirements.get(row["claim_id"], ()), key=requirement_age),
            sorted(packages.get(row["claim_id"], ()), key=package_age),
        )
        claims.setdefault(row["user_id"], []).append(record)
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


def _age(key: str) -> Callable[[Mapping[str, Any]], tuple[datetime, Any]]:
    """Return what orders rows by when they were created, then by their key."""

    def age(row: Mapping[str, Any]) -> tuple[datetime, Any]:
        created = row.get("created_at")
        return created if isinstance(created, datetime) else _BEGINNING, row[key]

    return age


def user_id_of(row: Row) -> UserId:
    """Return the person a row of ``users`` is about."""
    user_id = row["user_id"]
    if not isinstance(user_id, int):
        raise TypeError("users.id is not a number")
    return UserId(user_id)


def distinct_users(user_ids: Iterable[int], limit: int) -> list[UserId]:
    """Return each person once, in the order asked for.

    Raises:
        InvalidArgument: more than ``limit`` people, or an id of 0, which no person has.
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
    """Return how many ids a page holds: 0 means the default, too large a number the limit."""
    return min(asked, PAGE_LIMIT) if asked else DEFAULT_PAGE


def block_size(asked: int) -> int:
    """Return how many people a block holds: 0 means the default, too large a number the limit."""
    return min(asked, BLOCK_LIMIT) if asked else DEFAULT_BLOCK


def fingerprinted_table(name: str) -> str:
    """Return the table's name.

    Raises InvalidArgument (UNKNOWN_TABLE) for a table whose rows belong to no person.
    """
    if name not in (*OF_PEOPLE, *OF_CLAIMS):
        raise InvalidArgument("UNKNOWN_TABLE", "no rows of such a table belong to a person")
    return name


def range_size(asked: int) -> int:
    """Return how many owners' ids a range holds.

    Raises InvalidArgument (RANGE_SIZE_MISSING) for 0.
    """
    if not asked:
        raise InvalidArgument("RANGE_SIZE_MISSING", "a range must hold at least one id")
    return asked


def owner_ranges(size: int, numbers: Sequence[int]) -> list[int]:
    """Return the ranges whose ids can exist, each once.

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
    """Return the share of the time in which MySQL may work: 0 means all of it.

    Raises InvalidArgument (LOAD_SHARE_OUT_OF_RANGE) below 0, above 1 and for NaN.
    """
    if not 0.0 <= asked <= 1.0:
        raise InvalidArgument(
            "LOAD_SHARE_OUT_OF_RANGE", "a load share is above 0 and at most 1", asked=str(asked)
        )
    return asked or 1.0


def numeric_key(key: str) -> int | None:
    """Return the unsigned 64-bit number that ``key`` is in decimal; None if it is none."""
    # isdecimal() alone accepts the digits of other scripts.
    if not (key.isascii() and key.isdecimal()) or len(key) > 20:
        return None
    number = int(key)
    return number if number < 2**64 else None
