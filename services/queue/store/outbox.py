"""Statements on the two outboxes."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.queue.domain.terms import UserId
from services.queue.store.database import Transaction, statement


@dataclass(frozen=True, slots=True)
class Posted:
    """A serialised event that waits to be published."""

    outbox_id: int
    event: bytes


@dataclass(frozen=True, slots=True)
class StaleCallState:
    """A person's call state has reached a version that `user_context` has not been told of."""

    stale_call_state_id: int
    user_id: UserId
    state_version: int


async def post(tx: Transaction, events: Sequence[bytes]) -> None:
    """Add events in order; they become visible to the dispatcher at commit."""
    if events:
        await tx.execute(_POST, {"events": list(events)})


_POST = statement(
    """
    INSERT INTO queue.outbox (event)
    SELECT event FROM unnest(CAST(:events AS bytea[])) WITH ORDINALITY AS given(event, position)
    ORDER BY position
    """
)


async def lock_posted(tx: Transaction, limit: int) -> list[Posted]:
    """Lock and return the oldest events.

    Another dispatcher waits here for the first one's commit and then finds what is left: so a
    person's events, whose numbers rise under that person's row lock, keep their order.
    """
    rows = await tx.execute(_LOCK_POSTED, {"limit": limit})
    return [Posted(row[0], bytes(row[1])) for row in rows.all()]


_LOCK_POSTED = statement(
    "SELECT outbox_id, event FROM queue.outbox ORDER BY outbox_id LIMIT :limit FOR UPDATE"
)


async def delete_posted(tx: Transaction, posted: Sequence[Posted]) -> None:
    """Forget published events."""
    await tx.execute(_DELETE_POSTED, {"ids": [it.outbox_id for it in posted]})


_DELETE_POSTED = statement("DELETE FROM queue.outbox WHERE outbox_id = ANY(CAST(:ids AS bigint[]))")


async def stale_call_states(tx: Transaction, limit: int) -> list[StaleCallState]:
    """Return the oldest notices; nothing is locked, so another copy may return the same."""
    rows = await tx.execute(_STALE_CALL_STATES, {"limit": limit})
    return [StaleCallState(row[0], UserId(row[1]), row[2]) for row in rows.all()]


_STALE_CALL_STATES = statement(
    "SELECT stale_call_state_id, user_id, state_version FROM queue.stale_call_states"
    " ORDER BY stale_call_state_id LIMIT :limit"
)


async def delete_stale_call_states(tx: Transaction, told: Sequence[StaleCallState]) -> None:
    """Forget notices that have been delivered."""
    await tx.execute(_DELETE_STALE, {"ids": sorted(it.stale_call_state_id for it in told)})


_DELETE_STALE = statement(
    """
    DELETE FROM queue.stale_call_states WHERE stale_call_state_id IN (
        SELECT stale_call_state_id FROM queue.stale_call_states
        WHERE stale_call_state_id = ANY(CAST(:ids AS bigint[]))
        ORDER BY stale_call_state_id FOR UPDATE SKIP LOCKED)
    """
)


async def lengths(tx: Transaction) -> tuple[int, int]:
    """Return how many events and notices wait."""
    row = (await tx.execute(_LENGTHS)).one()
    return row[0], row[1]


_LENGTHS = statement(
    "SELECT (SELECT count(*) FROM queue.outbox), (SELECT count(*) FROM queue.stale_call_states)"
)
