"""Fingerprints of users' rows: the records of `UserFacts.row_fingerprints`, and sums of many.

The fingerprint of several rows is the exclusive or of their fingerprints. So the fingerprint of a
range of owners is the same whether MySQL sums up its rows or this module sums up the owners.
"""

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import compress
from struct import Struct
from typing import NamedTuple

_RECORD = Struct("<QII")
_EDITION = Struct("<I")
_EDITION_AT = 12
_LOW = 2**32 - 1


class ComparedTable(StrEnum):
    """A table of the main app whose rows are compared."""

    USERS = "users"
    CLAIMS = "claims"
    USER_ADDRESSES = "user_addresses"
    CLAIM_REQUIREMENTS = "claim_requirements"
    CLAIM_VEHICLE_PACKAGES = "claim_vehicle_packages"

    @property
    def is_owned_by_claims(self) -> bool:
        """True when a row's owner is a claim, whose owner is the user."""
        return self in {ComparedTable.CLAIM_REQUIREMENTS, ComparedTable.CLAIM_VEHICLE_PACKAGES}

    @property
    def range_size(self) -> int:
        """Owner ids in a range, so that ranges of both kinds have about as many rows.

        Wider ranges cost MySQL less to group by; narrower ones cost less to read by owner.
        """
        return 1_024 if self.is_owned_by_claims else 256


class UserRows(NamedTuple):
    """The fingerprints of one user's rows, by table and by claim.

    `hanging` maps `claims.id` to the claim's requirements and vehicle packages.
    """

    users: int
    claims: int
    user_addresses: int
    hanging: Mapping[int, tuple[int, int]]


def unpack_rows(row_fingerprints: bytes) -> UserRows:
    """Return the fingerprints in the records; these must not be empty."""
    records = _RECORD.iter_unpack(row_fingerprints)
    both, addresses, _ = next(records)
    hanging = {claim_id: (first, second) for claim_id, first, second in records}
    return UserRows(both & _LOW, both >> 32, addresses, hanging)


def are_of_one_edition(ours: bytes, theirs: bytes) -> bool:
    """Return whether two users' records were made by one description of the main app.

    Earlier releases wrote 0, which matches any description. Neither may be empty.
    """
    (one,), (other,) = (_EDITION.unpack_from(it, _EDITION_AT) for it in (ours, theirs))
    return one == other or 0 in {one, other}


def are_records(size_bytes: int) -> bool:
    """Return whether this many bytes can be records: at least one, and each whole."""
    return size_bytes > 0 and size_bytes % _RECORD.size == 0


def differing_tables(ours: bytes, theirs: bytes) -> list[ComparedTable]:
    """Return the tables in which a user's rows differ; neither may be empty."""
    if ours == theirs:
        return []
    one, other = unpack_rows(ours), unpack_rows(theirs)
    nothing = (0, 0)
    claim_ids = one.hanging.keys() | other.hanging.keys()
    pairs = [(one.hanging.get(i, nothing), other.hanging.get(i, nothing)) for i in claim_ids]
    found = {
        ComparedTable.USERS: one.users != other.users,
        ComparedTable.CLAIMS: one.claims != other.claims,
        ComparedTable.USER_ADDRESSES: one.user_addresses != other.user_addresses,
        ComparedTable.CLAIM_REQUIREMENTS: any(a[0] != b[0] for a, b in pairs),
        ComparedTable.CLAIM_VEHICLE_PACKAGES: any(a[1] != b[1] for a, b in pairs),
    }
    return list(compress(found, found.values()))


class RangeSums:
    """Fingerprints of one table by number of range."""

    def __init__(self, ranges: Mapping[int, int] | None = None) -> None:
        self._ranges: defaultdict[int, int] = defaultdict(int, ranges or {})

    def add(self, numbers: Iterable[int], fingerprints: Iterable[int]) -> None:
        """Add rows of each of these ranges."""
        ranges = self._ranges
        for number, fingerprint in zip(numbers, fingerprints, strict=True):
            ranges[number] ^= fingerprint

    def differing(self, other: "RangeSums") -> list[int]:
        """Return the numbers of the ranges that differ, rising."""
        ours, theirs = self._ranges, other._ranges
        return sorted(
            number
            for number in ours.keys() | theirs.keys()
            if ours.get(number, 0) != theirs.get(number, 0)
        )

    def as_dict(self) -> dict[int, int]:
        """Return the sums by number of range."""
        return dict(self._ranges)


class AppliedFingerprints:
    """What the queue applied of every user, in about 100 bytes each.

    `absent` users were applied as not existing. The entries of `altered` users are not as the queue
    wrote them. Of `unverified` users the queue holds no valid row fingerprints.
    """

    def __init__(self) -> None:
        self._user_ids = array("Q")
        self._contexts = array("Q")
        self._own = {table: array("I") for table in ComparedTable if not table.is_owned_by_claims}
        self._claim_ids = array("Q")
        self._claim_users = array("Q")
        self._hanging = {table: array("I") for table in ComparedTable if table.is_owned_by_claims}
        self.unverified: set[int] = set()
        self.absent: set[int] = set()
        self.altered: set[int] = set()

    @property
    def user_ids(self) -> Sequence[int]:
        """Every user the queue has, rising."""
        return self._user_ids

    @property
    def last_user_id(self) -> int:
        """The highest id added; 0 before the first."""
        return self._user_ids[-1] if self._user_ids else 0

    def is_applied(self, user_id: int, context: int) -> bool:
        """Return whether a context is the one applied; 0 is the context of no user.

        Every context is, of a user whose applied facts made no context.
        """
        place = bisect_left(self._user_ids, user_id)
        is_known = place < len(self._user_ids) and self._user_ids[place] == user_id
        if not is_known or user_id in self.absent:
            return context == 0
        return self._contexts[place] in {0, context}

    def add(
        self, user_ids: Iterable[int], contexts: Iterable[int], sizes: Iterable[int], blob: bytes
    ) -> None:
        """Add users with higher ids; `sizes` are the bytes of each one's records in `blob`."""
        left = memoryview(blob)
        users, claims = self._own[ComparedTable.USERS], self._own[ComparedTable.CLAIMS]
        addresses = self._own[ComparedTable.USER_ADDRESSES]
        requirements = self._hanging[ComparedTable.CLAIM_REQUIREMENTS]
        packages = self._hanging[ComparedTable.CLAIM_VEHICLE_PACKAGES]
        self._contexts.extend(contexts)
        for user_id, size in zip(user_ids, sizes, strict=True):
            self._user_ids.append(user_id)
            mine, left = left[:size], left[size:]
            if not are_records(size):
                self.unverified.add(user_id)
                for own in (users, claims, addresses):
                    own.append(0)
                continue
            records = _RECORD.iter_unpack(mine)
            both, address, _ = next(records)
            users.append(both & _LOW)
            claims.append(both >> 32)
            addresses.append(address)
            for claim_id, first, second in records:
                self._claim_ids.append(claim_id)
                self._claim_users.append(user_id)
                requirements.append(first)
                packages.append(second)

    def sums(self, table: ComparedTable) -> RangeSums:
        """Return the sums of the table's rows that the queue applied."""
        size, sums = table.range_size, RangeSums()
        owners, fingerprints = self._columns(table)
        sums.add((owner // size for owner in owners), fingerprints)
        return sums

    def in_ranges(self, table: ComparedTable, numbers: Iterable[int]) -> dict[int, int]:
        """Return the fingerprint of each owner in these ranges."""
        wanted, size = set(numbers), table.range_size
        owners, fingerprints = self._columns(table)
        chosen = [owner // size in wanted for owner in owners]
        pairs = compress(zip(owners, fingerprints, strict=True), chosen)
        return dict(pairs)

    def users_of(self, claim_ids: Iterable[int]) -> dict[int, int]:
        """Return the users of these claims that the queue has, `users.id` by `claims.id`."""
        wanted = set(claim_ids)
        chosen = map(wanted.__contains__, self._claim_ids)
        return dict(compress(zip(self._claim_ids, self._claim_users, strict=True), chosen))

    def _columns(self, table: ComparedTable) -> tuple[Sequence[int], Sequence[int]]:
        if table.is_owned_by_claims:
            return self._claim_ids, self._hanging[table]
        return self._user_ids, self._own[table]


def differing_owners(ours: Mapping[int, int], theirs: Mapping[int, int]) -> set[int]:
    """Return the owners whose fingerprints differ; a missing owner has no rows."""
    return {
        owner for owner in ours.keys() | theirs.keys() if ours.get(owner, 0) != theirs.get(owner, 0)
    }
