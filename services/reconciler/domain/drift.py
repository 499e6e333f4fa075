"""What differs about a user: drift, or a change still in flight; and when users count as gone."""

from enum import StrEnum
from typing import Final, NamedTuple

from services.reconciler.domain.fingerprints import are_of_one_edition, differing_tables

# This many users may always be gone: a share of few users says little.
GONE_ALWAYS: Final = 100


class DriftKind(StrEnum):
    """How a user has drifted."""

    MISSING = "MISSING"
    ORPHANED = "ORPHANED"
    OUTDATED = "OUTDATED"
    ALTERED = "ALTERED"
    CACHED_OUTDATED = "CACHED_OUTDATED"
    CACHED_ALTERED = "CACHED_ALTERED"


class Difference(NamedTuple):
    """One way in which a user has drifted; `table` is empty unless rows are OUTDATED."""

    kind: DriftKind
    table: str = ""


class AppliedUser(NamedTuple):
    """What the queue applied of a user; `rows` are empty when it knows no row fingerprints."""

    version: int
    context: int
    rows: bytes
    is_absent: bool
    is_altered: bool


class CachedUser(NamedTuple):
    """The main app's part of a context that the cache would serve; 0 says there is no such user."""

    context: int
    is_intact: bool


class UserSnapshot(NamedTuple):
    """One user as MySQL, the queue and the cache had them at about one moment.

    `rows` is None for a user the main app does not have, `applied` for a user the queue has never
    received facts of, `cached` when nothing is cached.
    """

    rows: bytes | None
    applied: AppliedUser | None
    cached: CachedUser | None

    @property
    def is_unverified(self) -> bool:
        """True when the queue has applied facts without comparable row fingerprints.

        A rebuild reads only what decides who is called, and another description of the main app
        gives the same rows other fingerprints.
        """
        held = self.applied
        if self.rows is None or held is None or held.is_absent:
            return False
        return not held.rows or not are_of_one_edition(held.rows, self.rows)

    def differences(self) -> set[Difference]:
        """Return all that differs; empty for a user on whom all three agree."""
        held, cached = self.applied, self.cached
        found: set[Difference] = set()
        if self.rows is None:
            if held is not None and not held.is_absent:
                found.add(Difference(DriftKind.ORPHANED))
        elif held is None or held.is_absent:
            found.add(Difference(DriftKind.MISSING))
        elif not self.is_unverified:
            tables = differing_tables(self.rows, held.rows)
            found |= {Difference(DriftKind.OUTDATED, table.value) for table in tables}
        if held is not None and held.is_altered:
            found.add(Difference(DriftKind.ALTERED))
        if cached is None:
            return found
        if not cached.is_intact:
            return found | {Difference(DriftKind.CACHED_ALTERED)}
        if held is None:
            is_right = cached.context == 0 or self.rows is not None
        elif held.is_absent:
            is_right = cached.context == 0
        elif self.is_unverified and held.rows:
            # Another description of the main app makes another context of the same rows.
            is_right = True
        else:
            # 0: the queue has applied facts of which no context was made.
            is_right = held.context in {0, cached.context}
        return found if is_right else found | {Difference(DriftKind.CACHED_OUTDATED)}


def needs_recheck(snapshot: UserSnapshot) -> bool:
    """Return whether the user has to be read again, or refreshed."""
    return snapshot.is_unverified or bool(snapshot.differences())


def lasting_differences(first: UserSnapshot, second: UserSnapshot) -> set[Difference]:
    """Return the differences of a first snapshot that a later one has unchanged.

    While changes arrive, what MySQL has or what was applied moves on between the two; where neither
    has, no change is in flight.
    """
    versions = {it.applied.version if it.applied is not None else 0 for it in (first, second)}
    if first.rows != second.rows or len(versions) > 1:
        return set()
    both = first.differences() & second.differences()
    return {it for it in both if it.kind not in _OF_CACHE or first.cached == second.cached}


_OF_CACHE = {DriftKind.CACHED_OUTDATED, DriftKind.CACHED_ALTERED}


def is_gone_plausible(gone: int, known: int, share_at_most: float, *, is_blind: bool) -> bool:
    """Return whether `gone` of `known` users may count as gone from the main app.

    `is_blind` says that the main app shows no user at all. An emptied table, a running restore or
    the wrong database look the same, so no user counts as gone then.
    """
    if is_blind:
        return gone == 0
    return gone <= max(GONE_ALWAYS, known * share_at_most)
