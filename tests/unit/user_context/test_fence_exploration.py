"""Every interleaving of changes, refreshes, readings, crashes and losses of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.fakes import fence
from tests.fakes.fence import ModelGrant, Slot

# What the main app holds is the number of changes committed so far; a reading returns that number.


@dataclass(frozen=True)
class Stored:
    """What a slot holds: the value read and the run of the server on which the reading began."""

    value: int
    run: int


class Fenced:
    """The protocol as it is."""

    tokens = True
    runs = True
    # Whether versions come with what is read, as the queue's do, instead of being drawn before.
    carries_versions = False

    def begin(self, slot: Slot | None, version: int, token: str) -> tuple[Slot, ModelGrant]:
        return fence.begin(slot, version, token)

    def invalidate(
        self, slot: Slot | None, version: int, token: str
    ) -> tuple[Slot | None, ModelGrant]:
        return fence.invalidate(slot, version, token)

    def fill(self, slot: Slot | None, grant: ModelGrant, content: Stored) -> Slot | None:
        return fence.fill(slot, grant.version, grant.token, content)[0]


class Carried(Fenced):
    """The part of a context that the queue keeps: its versions come with the content."""

    carries_versions = True

    def invalidate(
        self, slot: Slot | None, version: int, token: str
    ) -> tuple[Slot | None, ModelGrant]:
        return fence.raise_fence(slot, version), ModelGrant(version, "")


class CarriedWithoutTokens(Carried):
    """Carried versions where a fence lost and made anew is taken for the one it was."""

    tokens = False


class DeleteThenSet(Fenced):
    """What most caches do: an invalidation deletes, and a reading sets."""

    def invalidate(
        self, slot: Slot | None, version: int, token: str
    ) -> tuple[Slot | None, ModelGrant]:
        return None, ModelGrant(version, token)

    def fill(self, slot: Slot | None, grant: ModelGrant, content: Stored) -> Slot | None:
        return Slot(0, grant.token, grant.version, content)


class WithoutTokens(Fenced):
    """A fence lost and made anew is taken for the one it was."""

    tokens = False


class WithoutRuns(Fenced):
    """What a server restored from an old copy of itself is served as fresh."""

    runs = False


@dataclass(frozen=True)
class Process:
    """A refresh (`settles` changes when done) or a reader, and how far it has come."""

    is_refresh: bool
    step: str = "idle"
    version: int = 0
    run: int = 0
    token: str = ""
    value: int = 0
    crashes_left: int = 0
    settles: int = 0

    @property
    def order(self) -> tuple[bool, str, int, int, str, int, int, int]:
        """Which of two like processes is which does not matter: states keep them in this order."""
        return (
            self.is_refresh,
            self.step,
            self.version,
            self.run,
            self.token,
            self.value,
            self.crashes_left,
            self.settles,
        )


@dataclass(frozen=True)
class World:
    """One state of the whole system."""

    processes: tuple[Process, ...]
    committed: int = 0
    drawn: int = 0
    slot: Slot | None = None
    settled: int = 0
    run: int = 0
    flushes_left: int = 0
    copy: Slot | None = None
    restores_left: int = 0
    tokens_made: int = 0


@dataclass(frozen=True)
class Limits:
    changes: int


def served_fresh(world: World, protocol: Fenced) -> Stored | None:
    """What a reader would be given as fresh in this state."""
    slot = world.slot
    if slot is None or not slot.is_current or not isinstance(slot.content, Stored):
        return None
    if protocol.runs and slot.content.run != world.run:
        return None
    return slot.content


def successors(world: World, protocol: Fenced, limits: Limits) -> Iterator[World]:
    """Every state one step away."""
    if world.committed < limits.changes:
        yield replace(world, committed=world.committed + 1)
    if world.flushes_left and world.slot is not None:
        yield replace(world, slot=None, flushes_left=world.flushes_left - 1)
    if world.restores_left:
        if world.slot is not None and world.copy is None:
            yield replace(world, copy=world.slot)
        if world.copy is not None:
            yield replace(
                world,
                slot=world.copy,
                run=world.run + 1,
                restores_left=world.restores_left - 1,
            )
    for index, process in enumerate(world.processes):
        for after, changed in moves(world, process, protocol):
            processes = [*world.processes[:index], changed, *world.processes[index + 1 :]]
            yield replace(after, processes=tuple(sorted(processes, key=lambda one: one.order)))


def moves(world: World, process: Process, protocol: Fenced) -> Iterator[tuple[World, Process]]:
    if process.step not in ("idle", "done") and process.crashes_left:
        # A refresh is delivered again; a reader is gone.
        step = "idle" if process.is_refresh else "done"
        yield (
            world,
            Process(process.is_refresh, step, crashes_left=process.crashes_left - 1),
        )
    if process.step == "idle":
        if process.is_refresh and not world.committed:
            return
        settles = world.committed if process.is_refresh else 0
        version = settles if protocol.carries_versions else world.drawn + 1
        yield (
            replace(world, drawn=max(version, world.drawn)),
            replace(process, step="drawn", version=version, settles=settles),
        )
    elif process.step == "drawn":
        # The run is noted before the command is sent, so at worst it is too old.
        yield world, replace(process, step="noted", run=world.run)
    elif process.step == "noted":
        yield announced(world, process, protocol)
    elif process.step == "begun" and protocol.carries_versions and process.is_refresh:
        yield world, Process(process.is_refresh, "done")
    elif process.step == "begun":
        yield world, replace(process, step="read", value=world.committed)
    elif process.step == "read":
        version = process.value if protocol.carries_versions else process.version
        grant = ModelGrant(version, process.token)
        slot = protocol.fill(world.slot, grant, Stored(process.value, process.run))
        yield replace(world, slot=slot), Process(process.is_refresh, "done")


def announced(world: World, process: Process, protocol: Fenced) -> tuple[World, Process]:
    # A token that is not needed may be used another time: that keeps the states few.
    made = world.tokens_made + (world.slot is None)
    token = str(made) if protocol.tokens else "one for all"
    if process.is_refresh:
        slot, grant = protocol.invalidate(world.slot, process.version, token)
        settled = max(world.settled, process.settles)
        after = replace(world, slot=slot, settled=settled, tokens_made=made)
    else:
        slot, grant = protocol.begin(world.slot, process.version, token)
        after = replace(world, slot=slot, tokens_made=made)
    return after, replace(process, step="begun", token=grant.token)


def explore(start: World, protocol: Fenced, limits: Limits) -> tuple[int, World | None]:
    """Visit every reachable state; returns how many, and the first that serves the past as fresh.

    The past is anything older than a change whose refresh has raised its fence.
    """
    seen = {start}
    frontier = [start]
    while frontier:
        world = frontier.pop()
        fresh = served_fresh(world, protocol)
        if fresh is not None and fresh.value < world.settled:
            return len(seen), world
        for following in successors(world, protocol, limits):
            if following not in seen:
                seen.add(following)
                frontier.append(following)
    return len(seen), None


def world(
    refreshes: int, readers: int, *, crashes: int = 0, flushes: int = 0, restores: int = 0
) -> World:
    processes = [Process(is_refresh=False, crashes_left=crashes) for _ in range(readers)]
    processes += [Process(is_refresh=True, crashes_left=crashes) for _ in range(refreshes)]
    return World(tuple(processes), flushes_left=flushes, restores_left=restores)


WORLDS = {
    "two refreshes, two readers": world(2, 2),
    "three refreshes": world(3, 0),
    "crashes and redelivery": world(2, 1, crashes=1),
    "the cache is flushed": world(1, 2, flushes=1),
    "flushed twice": world(1, 2, flushes=2),
    "restored from an old copy": world(2, 1, restores=1),
    "flushed and restored": world(1, 1, crashes=1, flushes=1, restores=1),
}


@pytest.mark.parametrize("protocol", [Fenced(), Carried()], ids=["drawn", "carried"])
@pytest.mark.parametrize("name", WORLDS)
def test_nothing_older_than_a_settled_change_is_served_as_fresh(
    name: str, protocol: Fenced
) -> None:
    states, wrong = explore(WORLDS[name], protocol, Limits(changes=2))

    assert wrong is None
    assert states > 50


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (DeleteThenSet(), "two refreshes, two readers"),
        (DeleteThenSet(), "crashes and redelivery"),
        (WithoutTokens(), "the cache is flushed"),
        (CarriedWithoutTokens(), "the cache is flushed"),
        (WithoutRuns(), "restored from an old copy"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_exploration_finds_what_a_weaker_protocol_gets_wrong(broken: Fenced, name: str) -> None:
    _, wrong = explore(WORLDS[name], broken, Limits(changes=2))

    assert wrong is not None


def test_a_later_reading_is_never_overwritten_by_an_earlier_one() -> None:
    """Such an overwriting would lose freshness only, so the exploration cannot see it."""
    slot, early = fence.begin(None, 1, "a")
    slot, late = fence.begin(slot, 2, "b")
    filled, _ = fence.fill(slot, late.version, late.token, "late")

    kept, is_accepted = fence.fill(filled, early.version, early.token, "early")

    assert not is_accepted
    assert kept == filled
