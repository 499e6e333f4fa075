"""Places users anew, writes them, and posts the events of it: what the use cases share."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from dialler.model.v1 import event_pb2

from servicekit import telemetry
from services.queue import metrics
from services.queue.domain.entries import ContactStatus, Entry, Placement
from services.queue.store import (
    callbacks,
    contact_status,
    entries,
    outbox,
    suppressions,
)
from services.queue.store.database import Transaction
from services.queue.store.suppressions import Suppression
from services.queue.types import (
    OBJECTIONS,
    AgentId,
    CallbackState,
    ContactBlock,
    PhoneBlock,
    State,
    UserId,
)
from services.queue.wire import messages


@dataclass(frozen=True, slots=True)
class Moved:
    """A person before and after a change."""

    before: Entry
    after: Entry


async def write_moved(
    tx: Transaction, people: list[Moved], now: datetime, agent_id: AgentId | None = None
) -> None:
    """Write those of the locked people who have changed, and post an event for each who moved."""
    changed = [it for it in people if it.before != it.after]
    await entries.update(tx, [it.after for it in changed])
    traceparent = telemetry.inject()
    moved = event_pb2.EVENT_TYPE_ENTRY_MOVED
    events = [
        messages.event(moved, it.before, it.after, now, traceparent, agent_id=agent_id)
        for it in changed
        if messages.is_moved(it.before, it.after)
    ]
    await outbox.post(tx, events)


async def contact_statuses(
    tx: Transaction, people: Sequence[Entry], placement: Placement, now: datetime
) -> dict[UserId, ContactStatus]:
    """Return the contact status of these people and their numbers."""
    numbers = [(it.user_id, it.phones) for it in people]
    return await contact_status.statuses(tx, numbers, now - placement.calls_kept)


async def place_by_status(
    tx: Transaction, people: Sequence[Entry], placement: Placement, now: datetime
) -> list[Moved]:
    """Place locked people by their present contact status, and write them."""
    found = await contact_statuses(tx, people, placement, now)
    moved = [
        Moved(it, placement.placed(placement.with_status(it, found[it.user_id], now), now))
        for it in people
    ]
    await write_moved(tx, moved, now)
    return moved


async def object_to_calls(
    tx: Transaction, made: Suppression, placement: Placement, now: datetime
) -> UUID:
    """Record an objection and place the people concerned; returns the id of the active one.

    The caller holds the guard of suppressed numbers. Agents who hold one of them are notified.
    """
    active_id = await suppressions.insert(tx, made)
    user_ids = [] if made.user_id is None else [made.user_id]
    people = await entries.lock_sharers(tx, user_ids, made.lines)
    statuses = await contact_statuses(tx, list(people.values()), placement, now)
    moved = []
    for before in people.values():
        after = placement.with_status(before, statuses[before.user_id], now)
        if before.user_id == made.user_id:
            callback = (await callbacks.open_of(tx, [after.user_id])).get(after.user_id)
            if callback is not None:
                closed = callback.ended(CallbackState.CLOSED, str(made.kind.name), now)
                await callbacks.update(tx, closed)
                metrics.CALLBACKS.labels("closed").inc()
                after = after.with_callback(closed)
        moved.append(Moved(before, placement.placed(after, now)))
    await write_moved(tx, moved, now)
    await notify_holders(tx, moved, now)
    return active_id or made.suppression_id


def kind_details(made: Suppression) -> dict[str, str]:
    """Return what the audit has of the kind of an objection, nothing for an ordinary one."""
    if made.kind is ContactBlock.DO_NOT_CONTACT:
        return {}
    return {"kind": str(made.kind.name).lower()}


async def notify_holders(tx: Transaction, people: Sequence[Moved], now: datetime) -> None:
    """Post an event for each agent who holds a person against whom an objection is new."""
    traceparent = telemetry.inject()
    events = [
        messages.event(
            event_pb2.EVENT_TYPE_OBJECTION_RECORDED, it.before, it.after, now, traceparent
        )
        for it in people
        if it.after.state is State.ASSIGNED and _objects(it.after) and not _objects(it.before)
    ]
    await outbox.post(tx, events)


def _objects(entry: Entry) -> bool:
    return bool(entry.block & OBJECTIONS) or PhoneBlock.DO_NOT_CONTACT in entry.phone_block
