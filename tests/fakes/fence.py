"""The rule that keeps a cached part of a context from going backwards, without any input or output.

One slot holds one part of one person's context. `services.user_context.cache.scripts` does the
same inside Redis; the two are compared operation by operation, and this one is explored
exhaustively.

Versions order readings: the later one began, the higher its version. A fence says "nothing read
before this version may be served as fresh". A token names the lifetime of a fence: a slot that was
lost and made anew has another token. A reading that began in the former lifetime, which the new
fence does not know, cannot fill the new slot.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Slot:
    """One part of one person's context as the cache holds it."""

    fence: int
    token: str
    version: int | None = None
    content: object = None

    @property
    def is_current(self) -> bool:
        """Whether the content has not been overtaken by an invalidation."""
        return self.version is not None and self.version >= self.fence


@dataclass(frozen=True, slots=True)
class ModelGrant:
    """Permission to fill a slot from a reading that begins after it was given."""

    version: int
    token: str


def begin(slot: Slot | None, version: int, token: str) -> tuple[Slot, ModelGrant]:
    """Announce a reading that is about to begin; makes the slot, under ``token``, if there is none.

    An existing fence stays as it is: a reading is no reason to invalidate the stored content.
    """
    if slot is None:
        slot = Slot(version, token)
    return slot, ModelGrant(version, slot.token)


def invalidate(slot: Slot | None, version: int, token: str) -> tuple[Slot, ModelGrant]:
    """Distrust everything read before ``version`` and announce a reading of that version.

    What is stored is kept, to be served as stale while nothing newer can be had.
    """
    if slot is None:
        slot = Slot(version, token)
    return replace(slot, fence=max(slot.fence, version)), ModelGrant(version, slot.token)


def raise_fence(slot: Slot | None, version: int) -> Slot | None:
    """Distrust everything below ``version`` without a reading to follow.

    A slot that is not there needs no fence: a reading that begins later reads later, and
    no grant of a former lifetime is valid.
    """
    return None if slot is None else replace(slot, fence=max(slot.fence, version))


def fill(slot: Slot | None, version: int, token: str, content: object) -> tuple[Slot | None, bool]:
    """Store what was read, unless the slot was lost, invalidated or filled from later meanwhile."""
    if slot is None or slot.token != token or version < slot.fence:
        return slot, False
    if slot.version is not None and version < slot.version:
        return slot, False
    return replace(slot, version=version, content=content), True
