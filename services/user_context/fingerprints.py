"""What rows come to: the expression that MySQL computes, and the records made of its results."""

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from mainapp.description import ColumnType, Table
from services.user_context.domain import OF_CLAIMS, OF_PEOPLE

# What the computed column is called among a row's values.
ROW_FINGERPRINT = "row_fingerprint"

# Odd, so that no two checksums come to the same; the product keeps within 64 bits.
MULTIPLIER = 2_654_435_761

_LOW = 0xFFFFFFFF
_PERSON = Struct("<IIII")
_CLAIM = Struct("<QII")

# MySQL writes a space after commas and colons of JSON, MariaDB what was stored.
_TEXT = {ColumnType.JSON: "REPLACE(REPLACE({0}, ', ', ','), ': ', ':')"}
# Not escaped: MySQL's literals know no such escape. The literals keep the columns' own character
# set, which a binary one would not, and cost a seventh less than it.
_SEPARATOR = "'\x1f'"
_NULL = r"'\0'"


def expression(name: str, table: Table) -> str:
    """Return the SQL of a row's fingerprint: 64 bits, to be combined by BIT_XOR and folded.

    A key or an owner is taken as it is, so rows must be asked for by owner: one without is none
    of anybody's. CRC32 alone is linear: two rows changed alike would cancel out.
    """
    never_null = {table.key, table.user.column}
    columns = [
        _text(f"`{name}`.`{column}`", described.type, column not in never_null)
        for column, described in table.columns.items()
    ]
    return f"CRC32(CONCAT_WS({_SEPARATOR}, {', '.join(columns)})) * {MULTIPLIER}"


def _text(column: str, kind: ColumnType, may_be_null: bool) -> str:
    text = _TEXT.get(kind, "{0}").format(column)
    return f"IFNULL({text}, {_NULL})" if may_be_null else text


def edition_of(tables: Mapping[str, Table]) -> int:
    """Return 32 bits, never 0, that are others once rows come to something else by description."""
    compared = (name for name in (*OF_PEOPLE, *OF_CLAIMS) if name in tables)
    expressions = (expression(name, tables[name]) for name in compared)
    return crc32("\n".join(expressions).encode()) or 1


def folded(fingerprint: int) -> int:
    """Return the 32 bits that are kept of the 64 of one row, or of several combined."""
    return fingerprint >> 32 ^ fingerprint & _LOW


def combined(fingerprints: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return what the rows of each owner come to; ``fingerprints`` are owners with a row's."""
    sums: dict[int, int] = {}
    for owner, fingerprint in fingerprints:
        sums[owner] = sums.get(owner, 0) ^ fingerprint
    return sums


class LaneReading(NamedTuple):
    """Unfolded fingerprints of every row of some people, all as of one moment."""

    # By `users.id`.
    users: Mapping[int, int]
    # `claims.id`, `claims.user_id` and the row's fingerprint.
    claims: Sequence[tuple[int, int, int]]
    addresses: Mapping[int, int]
    # By `claims.id`.
    requirements: Mapping[int, int]
    vehicle_packages: Mapping[int, int]


def packed(reading: LaneReading, edition: int) -> dict[int, bytes]:
    """Return UserFacts.row_fingerprints of each person who exists; `edition` is of them all."""
    sums = combined((owner, fingerprint) for _, owner, fingerprint in reading.claims)
    records = {
        user_id: [
            _PERSON.pack(
                folded(fingerprint),
                folded(sums.get(user_id, 0)),
                folded(reading.addresses.get(user_id, 0)),
                edition,
            )
        ]
        for user_id, fingerprint in reading.users.items()
    }
    requirements, packages = reading.requirements, reading.vehicle_packages
    for claim_id, owner, _ in sorted(reading.claims):
        if owner in records:
            records[owner].append(
                _CLAIM.pack(
                    claim_id,
                    folded(requirements.get(claim_id, 0)),
                    folded(packages.get(claim_id, 0)),
                )
            )
    return {user_id: b"".join(parts) for user_id, parts in records.items()}
