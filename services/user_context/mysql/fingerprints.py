"""Row checksums: the expression that MySQL computes, and the fingerprints made of its results."""

from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from mainapp.description import ColumnType, Table
from services.user_context.domain import OF_CLAIMS, OF_PEOPLE

# Name of the computed column among a row's values.
ROW_FINGERPRINT = "row_fingerprint"

# How facts are made of rows; the text must change whenever the same rows give other facts.
READING = "every phone number in the field"

# Odd, so that different checksums have different products; these fit into 64 bits.
MULTIPLIER = 2_654_435_761

_LOW = 0xFFFFFFFF
_PERSON = Struct("<IIII")
_CLAIM = Struct("<QII")

# MySQL writes a space after commas and colons of JSON, MariaDB what was stored.
_TEXT = {ColumnType.JSON: "REPLACE(REPLACE({0}, ', ', ','), ': ', ':')"}
# The character itself, as MySQL's literals have no escape for it. Text literals keep the character
# set of the columns, which a binary literal would not, and cost a seventh less.
_SEPARATOR = "'\x1f'"
_NULL = r"'\0'"


def expression(name: str, table: Table) -> str:
    """Return the SQL of a row's checksum: 64 bits, to be combined by BIT_XOR and folded.

    Keys and owners must not be NULL, so a statement must select rows by owner. CRC32 alone is
    linear: the same change of two rows would cancel out.
    """
    never_null = {table.key, table.user.column}
    columns = [
        text if column in never_null else f"IFNULL({text}, {_NULL})"
        for column, described in table.columns.items()
        for text in (_TEXT.get(described.type, "{0}").format(f"`{name}`.`{column}`"),)
    ]
    return f"CRC32(CONCAT_WS({_SEPARATOR}, {', '.join(columns)})) * {MULTIPLIER}"


def edition_of(tables: Mapping[str, Table]) -> int:
    """Return 32 bits, never 0, that change whenever equal rows get another fingerprint.

    The cause is another description, or another way to make facts of rows (READING). Each person
    is then refreshed once.
    """
    compared = (name for name in (*OF_PEOPLE, *OF_CLAIMS) if name in tables)
    expressions = (expression(name, tables[name]) for name in compared)
    return crc32("\n".join([READING, *expressions]).encode()) or 1


def folded(checksum: int) -> int:
    """Return the 32 bits that are kept of a checksum, of one row or of several combined."""
    return checksum >> 32 ^ checksum & _LOW


def combined(checksums: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return each owner's combined checksum, given pairs of an owner and a row's checksum."""
    sums: dict[int, int] = {}
    for owner, checksum in checksums:
        sums[owner] = sums.get(owner, 0) ^ checksum
    return sums


class RowChecksums(NamedTuple):
    """The checksums, not folded, of every row of some people, all as of one moment."""

    # By `users.id`.
    users: Mapping[int, int]
    # `claims.id`, `claims.user_id` and the row's checksum.
    claims: Sequence[tuple[int, int, int]]
    addresses: Mapping[int, int]
    # By `claims.id`.
    requirements: Mapping[int, int]
    vehicle_packages: Mapping[int, int]


def packed(rows: RowChecksums, edition: int) -> dict[int, bytes]:
    """Return UserFacts.row_fingerprints of each person who exists."""
    sums = combined((owner, checksum) for _, owner, checksum in rows.claims)
    records = {
        user_id: [
            _PERSON.pack(
                folded(checksum),
                folded(sums.get(user_id, 0)),
                folded(rows.addresses.get(user_id, 0)),
                edition,
            )
        ]
        for user_id, checksum in rows.users.items()
    }
    for claim_id, owner, _ in sorted(rows.claims):
        if owner in records:
            requirements = folded(rows.requirements.get(claim_id, 0))
            packages = folded(rows.vehicle_packages.get(claim_id, 0))
            records[owner].append(_CLAIM.pack(claim_id, requirements, packages))
    return {user_id: b"".join(parts) for user_id, parts in records.items()}
