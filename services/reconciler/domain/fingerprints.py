"""What people's rows come to: the records of `UserFacts.row_fingerprints`, and sums of many.

A fingerprint of several rows is the exclusive or of each one's, so that a range of owners comes to
the same whether MySQL adds up its rows or we add up what we hold of each owner.
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


class Table(StrEnum):
    """A table of the main app whose rows are compared."""

    USERS = "users"
    CLAIMS = "claims"
    USER_ADDRESSES = "user_addresses"
    CLAIM_REQUIREMENTS = "claim_requirements"
    CLAIM_VEHICLE_PACKAGES = "claim_vehicle_packages"

    @property
    def is_owned_by_claims(self) -> bool:
        """True when a row's owner is a claim, whose owner is the person."""
        return self in {Table.CLAIM_REQUIREMENTS, Table.CLAIM_VEHICLE_PACKAGES}

    @property
    def range_size(self) -> int:
        """Owners' ids in a range: about as many rows in a range of either kind.

        Wider ranges cost MySQL less to group by; narrower ones cost less to open.
        """
        return 1_024 if self.is_owned_by_claims else 256


class PersonRows(NamedTuple):
    """What the rows of one person come to, table by table, claim by claim.

    `hanging` maps `claims.id` to the claim's requirements and vehicle packages.
    """

    users: int
    claims: int
    user_addresses: int
    hanging: Mapping[int, tuple[int, int]]


def unpack(row_fingerprints: bytes) -> PersonRows:
    """Return what the records say; they must not be empty."""
    records = _RECORD.iter_unpack(row_fingerprints)
    both, addresses, _ = next(records)
    hanging = {claim_id: (first, second) for claim_id, first, second in records}
    return PersonRows(both & _LOW, both >> 32, addresses, hanging)


def are_of_one_edition(ours: bytes, theirs: bytes) -> bool:
    """Return whether two people's records were made by one description of the main app.

    The releases before this one said nothing of it: 0 is taken for any. Neither may be empty.
    """
    (one,), (other,) = (_EDITION.unpack_from(it, _EDITION_AT) for it in (ours, theirs))
    return one == other or 0 in {one, other}


def are_records(size_bytes: int) -> bool:
    """Return whether so many bytes can be records: some, and none of them in part."""
    return size_bytes > 0 and size_bytes % _RECORD.size == 0


def differing_tables(ours: bytes, theirs: bytes) -> list[Table]:
    """Return the tables in which a person's rows differ; neither may be empty."""
    if ours == theirs:
        return []
    one, other = unpack(ours), unpack(theirs)
    nothing = (0, 0)
    claim_ids = one.hanging.keys() | other.hanging.keys()
    pairs = [(one.hanging.get(i, nothing), other.hanging.get(i, nothing)) for i in claim_ids]
    found = {
        Table.USERS: one.users != other.users,
        Table.CLAIMS: one.claims != other.claims,
        Table.USER_ADDRESSES: one.user_addresses != other.user_addresses,
        Table.CLAIM_REQUIREMENTS: any(a[0] != b[0] for a, b in pairs),
        Table.CLAIM_VEHICLE_PACKAGES: any(a[1] != b[1] for a, b in pairs),
    }
    return list(compress(found, found.values()))


class Sums:
    """Fingerprints of one table's rows by number of range."""

    def __init__(self, ranges: Mapping[int, int] | None = None) -> None:
        self._ranges: defaultdict[int, int] = defaultdict(int, ranges or {})

    def add(self, numbers: Iterable[int], fingerprints: Iterable[int]) -> None:
        """Add some rows of each of these ranges."""
        ranges = self._ranges
        for number, fingerprint in zip(numbers, fingerprints, strict=True):
            ranges[number] ^= fingerprint

    def differing(self, other: "Sums") -> list[int]:
        """Return the numbers of ranges in which the two differ, rising."""
        ours, theirs = self._ranges, other._ranges
        return sorted(
            number
            for number in ours.keys() | theirs.keys()
            if ours.get(number, 0) != theirs.get(number, 0)
        )

    def as_dict(self) -> dict[int, int]:
        """Return the sums by number of range."""
        return dict(self._ranges)


class Held:
    """What the queue applied of everybody, in little room: about 100 bytes a person.

    `absent` were applied as not existing, `altered` have entries that nothing applied made, of
    `unverified` no rows are known, be it that there are none, or that what is held is no records.
    """

    def __init__(self) -> None:
        self._user_ids = array("Q")
        self._contexts = array("Q")
        self._own = {table: array("I") for table in Table if not table.is_owned_by_claims}
        self._claim_ids = array("Q")
        self._claim_users = array("Q")
        self._hanging = {table: array("I") for table in Table if table.is_owned_by_claims}
        self.unverified: set[int] = set()
        self.absent: set[int] = set()
        self.altered: set[int] = set()

    @property
    def user_ids(self) -> Sequence[int]:
        """Everybody the queue knows, rising."""
        return self._user_ids

    @property
    def last_user_id(self) -> int:
        """The highest id added; 0 before the first."""
        return self._user_ids[-1] if self._user_ids else 0

    def is_applied(self, user_id: int, context: int) -> bool:
        """Return whether a context is the one applied; 0 is that of nobody.

        Any is, of somebody of whom facts were applied that no context was made of.
        """
        place = bisect_left(self._user_ids, user_id)
        is_known = place < len(self._user_ids) and self._user_ids[place] == user_id
        if not is_known or user_id in self.absent:
            return context == 0
        return self._contexts[place] in {0, context}

    def add(
        self, user_ids: Iterable[int], contexts: Iterable[int], sizes: Iterable[int], blob: bytes
    ) -> None:
        """Add people with higher ids; `sizes` are of each one's records in `blob`, in bytes."""
        left = memoryview(blob)
        users, claims = self._own[Table.USERS], self._own[Table.CLAIMS]
        addresses = self._own[Table.USER_ADDRESSES]
        requirements = self._hanging[Table.CLAIM_REQUIREMENTS]
        packages = self._hanging[Table.CLAIM_VEHICLE_PACKAGES]
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

    def sums(self, table: Table) -> Sums:
        """Return what the table's rows come to, as far as we hold them."""
        size, sums = table.range_size, Sums()
        owners, fingerprints = self._columns(table)
        sums.add((owner // size for owner in owners), fingerprints)
        return sums

    def in_ranges(self, table: Table, numbers: Iterable[int]) -> dict[int, int]:
        """Return what we hold of each owner in these ranges."""
        wanted, size = set(numbers), table.range_size
        owners, fingerprints = self._columns(table)
        chosen = [owner // size in wanted for owner in owners]
        pairs = compress(zip(owners, fingerprints, strict=True), chosen)
        return dict(pairs)

    def people_of(self, claim_ids: Iterable[int]) -> dict[int, int]:
        """Return whose these claims are as far as we know: `users.id` by `claims.id`."""
        wanted = set(claim_ids)
        chosen = map(wanted.__contains__, self._claim_ids)
        return dict(compress(zip(self._claim_ids, self._claim_users, strict=True), chosen))

    def _columns(self, table: Table) -> tuple[Sequence[int], Sequence[int]]:
        if table.is_owned_by_claims:
            return self._claim_ids, self._hanging[table]
        return self._user_ids, self._own[table]


def differing_owners(ours: Mapping[int, int], theirs: Mapping[int, int]) -> set[int]:
    """Return the owners whose fingerprints differ; one that is missing has no rows."""
    return {
        owner for owner in ours.keys() | theirs.keys() if ours.get(owner, 0) != theirs.get(owner, 0)
    }
