"""Statements that forget what is no longer needed, one batch at a time.

Each is one statement that skips what others hold, so that any number of copies may run, and one
that is killed has done its batch or nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from services.queue.domain.terms import Block, Presence, Reason, State
from services.queue.store.database import Transaction, statement


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """What is older than these is forgotten; agents not seen since the last of them are offline."""

    requests: datetime
    audit: datetime
    calls: datetime
    call_notes: datetime
    assignments: datetime
    prevented_calls: datetime
    closed_callbacks: datetime
    lifted_suppressions: datetime
    absent_people: datetime
    agents_seen: datetime


async def sweep(tx: Transaction, cutoffs: Cutoffs, now: datetime, limit: int) -> dict[str, int]:
    """Do one batch of each kind; returns how many of each there were."""
    done = {}
    for name, cutoff in _cutoffs_of(cutoffs).items():
        values = {"before": cutoff, "limit": limit}
        done[name] = len((await tx.execute(SWEEPS[name], values)).all())
    values = {"seen_before": cutoffs.agents_seen, "now": now, "limit": limit}
    done["agents_set_offline"] = len((await tx.execute(_SET_OFFLINE, values)).all())
    return done


def _cutoffs_of(cutoffs: Cutoffs) -> Mapping[str, datetime]:
    return {
        "requests_deleted": cutoffs.requests,
        "audit_entries_deleted": cutoffs.audit,
        "attempts_deleted": cutoffs.calls,
        "attempts_blanked": cutoffs.call_notes,
        "assignments_deleted": cutoffs.assignments,
        "prevented_calls_deleted": cutoffs.prevented_calls,
        "callbacks_deleted": cutoffs.closed_callbacks,
        "suppressions_deleted": cutoffs.lifted_suppressions,
        # After all of which its people may still have something.
        "entries_deleted": cutoffs.absent_people,
    }


def _old(table: str, key: str, moment: str) -> str:
    return (
        f"SELECT {key} FROM queue.{table} WHERE {moment} < :before"  # noqa: S608 - our own names
        f" ORDER BY {moment} LIMIT :limit FOR UPDATE SKIP LOCKED"
    )


def _delete(table: str, key: str, moment: str) -> str:
    old = _old(table, key, moment)
    return f"DELETE FROM queue.{table} WHERE ({key}) IN ({old}) RETURNING 1"  # noqa: S608


_KEPT_OF_SOMEBODY = " ".join(
    f"AND NOT EXISTS (SELECT FROM queue.{table} AS kept WHERE kept.user_id = entry.user_id)"
    for table in ("attempts", "callbacks", "suppressions", "assignments")
)
# Whoever is on their way back is locked by those who apply their facts, or is absent no more.
_DELETE_ABSENT = f"""
    WITH gone AS (
        DELETE FROM queue.entries WHERE user_id IN (
            SELECT entry.user_id FROM queue.applied_facts AS applied
            JOIN queue.entries AS entry USING (user_id)
            WHERE applied.absent_since < :before
                AND entry.eligible_reason = '{Reason.USER_NOT_FOUND}'
                AND entry.block IS DISTINCT FROM {int(Block.DO_NOT_CONTACT)}
                AND entry.state NOT IN ({int(State.ASSIGNED)}, {int(State.RESERVED)})
                {_KEPT_OF_SOMEBODY}
            ORDER BY applied.absent_since LIMIT :limit FOR UPDATE OF entry SKIP LOCKED)
        RETURNING user_id
    ), forgotten AS (
        DELETE FROM queue.applied_facts USING gone WHERE applied_facts.user_id = gone.user_id
    )
    SELECT user_id FROM gone
"""  # noqa: S608 - our own names and numbers

SWEEPS = {
    "requests_deleted": statement(_delete("requests", "agent_id, request_id", "made_at")),
    "audit_entries_deleted": statement(_delete("audit", "audit_id", "at")),
    "attempts_deleted": statement(_delete("attempts", "assignment_id", "ended_at")),
    "attempts_blanked": statement(
        "UPDATE queue.attempts SET notes = '' WHERE assignment_id IN ("
        "SELECT assignment_id FROM queue.attempts WHERE ended_at < :before AND notes <> ''"
        " ORDER BY ended_at LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING 1"
    ),
    "assignments_deleted": statement(_delete("assignments", "assignment_id", "ended_at")),
    "prevented_calls_deleted": statement(
        _delete("prevented_calls", "prevented_call_id", "prevented_at")
    ),
    "callbacks_deleted": statement(_delete("callbacks", "callback_id", "closed_at")),
    "suppressions_deleted": statement(_delete("suppressions", "suppression_id", "lifted_at")),
    "entries_deleted": statement(_DELETE_ABSENT),
}

# What an agent said stays as it is, for when they are seen again.
_SET_OFFLINE = statement(
    f"""
    UPDATE queue.agents SET offline_since = :now WHERE agent_id IN (
        SELECT agent_id FROM queue.agents
        WHERE last_seen_at <= :seen_before AND presence <> {int(Presence.OFFLINE)}
            AND (offline_since IS NULL OR offline_since < last_seen_at)
        ORDER BY agent_id LIMIT :limit FOR UPDATE SKIP LOCKED)
    RETURNING 1
    """  # noqa: S608 - our own numbers
)
