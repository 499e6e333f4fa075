"""What differs about one person, and whether that is drift or only a change under way."""

from enum import StrEnum
from typing import NamedTuple

from services.reconciler.domain.fingerprints import are_of_one_edition, differing_tables


class DriftKind(StrEnum):
    """How somebody has drifted."""

    MISSING = "MISSING"
    ORPHANED = "ORPHANED"
    OUTDATED = "OUTDATED"
    ALTERED = "ALTERED"
    CACHED_OUTDATED = "CACHED_OUTDATED"
    CACHED_ALTERED = "CACHED_ALTERED"


class Difference(NamedTuple):
    """One way in which somebody has drifted; `table` is empty unless rows are OUTDATED."""

    kind: DriftKind
    table: str = ""


class Applied(NamedTuple):
    """What the queue applied of somebody; `rows` are empty when nothing is known of them."""

    version: int
    context: int
    rows: bytes
    is_absent: bool
    is_altered: bool


class Cached(NamedTuple):
    """The main app's part of a context that the cache would serve as fresh; 0 for nobody."""

    context: int
    is_intact: bool


class Look(NamedTuple):
    """One person as MySQL, the queue and the cache had them at about one moment.

    `rows` is None for somebody the main app does not have, `applied` for somebody the queue has
    never heard of, `cached` when nothing is cached.
    """

    rows: bytes | None
    applied: Applied | None
    cached: Cached | None

    @property
    def is_unverified(self) -> bool:
        """True when the queue has applied facts without knowing what the rows come to now.

        A rebuild reads only what decides who is called, and under another description of the main
        app the same rows come to something else.
        """
        held = self.applied
        if self.rows is None or held is None or held.is_absent:
            return False
        return not held.rows or not are_of_one_edition(held.rows, self.rows)

    @property
    def _is_of_another_edition(self) -> bool:
        return self.is_unverified and self.applied is not None and bool(self.applied.rows)

    def differences(self) -> set[Difference]:
        """Return all that differs; empty for somebody about whom everything agrees."""
        return self._in_queue() | self._in_cache()

    def _in_queue(self) -> set[Difference]:
        held = self.applied
        found: set[Difference] = set()
        is_known = held is not None and not held.is_absent
        if self.rows is None:
            found |= {Difference(DriftKind.ORPHANED)} if is_known else set()
        elif held is None or held.is_absent:
            found.add(Difference(DriftKind.MISSING))
        elif not self.is_unverified:
            tables = differing_tables(self.rows, held.rows)
            found |= {Difference(DriftKind.OUTDATED, table.value) for table in tables}
        if held is not None and held.is_altered:
            found.add(Difference(DriftKind.ALTERED))
        return found

    def _in_cache(self) -> set[Difference]:
        cached, held = self.cached, self.applied
        if cached is None:
            return set()
        if not cached.is_intact:
            return {Difference(DriftKind.CACHED_ALTERED)}
        if held is None:
            is_right = cached.context == 0 or self.rows is not None
        elif held.is_absent:
            is_right = cached.context == 0
        elif self._is_of_another_edition:
            is_right = True
        else:
            # 0: the queue has applied facts of which no context was made.
            is_right = held.context in {0, cached.context}
        return set() if is_right else {Difference(DriftKind.CACHED_OUTDATED)}


def is_suspect(look: Look) -> bool:
    """Return whether the person has to be looked at again, or refreshed."""
    return look.is_unverified or bool(look.differences())


def lasting(first: Look, second: Look) -> set[Difference]:
    """Return the differences that a later look found just as they were.

    While changes arrive, what MySQL has or what was applied moves on between two looks; where
    neither has, nothing is on its way.
    """
    both = first.differences() & second.differences()
    if first.rows != second.rows or _version(first) != _version(second):
        return set()
    return {it for it in both if it.kind not in _OF_CACHE or first.cached == second.cached}


_OF_CACHE = {DriftKind.CACHED_OUTDATED, DriftKind.CACHED_ALTERED}


def _version(look: Look) -> int:
    return look.applied.version if look.applied is not None else 0
