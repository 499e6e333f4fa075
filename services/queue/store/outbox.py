"""Statements on the two outboxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from services.queue.store.database import Transaction, statement
from services.queue.store.writing import Write, write
from services.queue.types import UserId


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """A serialised event that waits to be published."""

    outbox_id: int
    event: bytes


@dataclass(frozen=True, slots=True)
class StaleCallState:
    """A person's call state has a version of which `user_context` has not been notified."""

    stale_call_state_id: int
    user_id: UserId
    state_version: int


async def post(tx: Transaction, events: Sequence[bytes]) -> None:
    """Add events in order; the dispatcher sees them, and is woken, at commit."""
    if events:
        await write(tx, _POST, ((it,) for it in events))


_POST = Write(
    "posted",
    (("event", "bytea"),),
    "INSERT INTO queue.outbox (event) SELECT event FROM {given} ORDER BY position",
    wakes_dispatch=True,
)


async def take_events(tx: Transaction, limit: int) -> list[OutboxEvent]:
    """Delete and return the oldest events; a rollback puts them back.

    Another dispatcher waits here for the first one's commit and then finds what is left: so a
    person's events, whose numbers rise under that person's row lock, keep their order. The commit
    is asynchronous: events whose deletion is lost with the server are published again.
    """
    rows = await tx.execute(_TAKE_EVENTS, {"limit": limit})
    return sorted(
        (OutboxEvent(row[0], bytes(row[1])) for row in rows.all()), key=attrgetter("outbox_id")
    )


_TAKE_EVENTS = statement(
    """
    WITH oldest AS MATERIALIZED (
        SELECT outbox_id FROM queue.outbox ORDER BY outbox_id LIMIT :limit FOR UPDATE
    )
    DELETE FROM queue.outbox AS taken USING oldest WHERE taken.outbox_id = oldest.outbox_id
    RETURNING taken.outbox_id, taken.event, set_config('synchronous_commit', 'off', true)
    """
)


async def stale_call_states(tx: Transaction, limit: int) -> list[StaleCallState]:
    """Return the oldest stale call states; nothing is locked, so replicas may return the same."""
    rows = await tx.execute(_STALE_CALL_STATES, {"limit": limit})
    return [StaleCallState(row[0], UserId(row[1]), row[2]) for row in rows.all()]


_STALE_CALL_STATES = statement(
    "SELECT stale_call_state_id, user_id, state_version FROM queue.stale_call_states"
    " ORDER BY stale_call_state_id LIMIT :limit"
)


async def delete_stale_call_states(tx: Transaction, notified: Sequence[StaleCallState]) -> None:
    """Delete stale call states that were delivered."""
    await tx.execute(_DELETE_STALE, {"ids": sorted(it.stale_call_state_id for it in notified)})


_DELETE_STALE = statement(
    """
    DELETE FROM queue.stale_call_states WHERE stale_call_state_id IN (
        SELECT stale_call_state_id FROM queue.stale_call_states
        WHERE stale_call_state_id = ANY(CAST(:ids AS bigint[]))
        ORDER BY stale_call_state_id FOR UPDATE SKIP LOCKED)
    """
)


async def lengths(tx: Transaction) -> tuple[int, int]:
    """Return how many events and stale call states wait."""
    row = (await tx.execute(_LENGTHS)).one()
    return row[0], row[1]


_LENGTHS = statement(
    "SELECT (SELECT count(*) FROM queue.outbox), (SELECT count(*) FROM queue.stale_call_states)"
)
