"""Statements that delete what is kept no longer, one batch at a time.

Each is one statement that skips locked rows, so that any number of replicas may run, and a replica
that is killed has done its batch or nothing.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from services.queue.store.database import Transaction, statement
from services.queue.types import Presence, Reason, State


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """What is older is deleted; agents not seen since `agents_seen` are offline."""

    requests: datetime
    audit: datetime
    calls: datetime
    call_notes: datetime
    assignments: datetime
    prevented_calls: datetime
    closed_callbacks: datetime
    lifted_suppressions: datetime
    absent_people: datetime
    reports: datetime
    agents_seen: datetime


class CallPosition(NamedTuple):
    """A position among calls in the order of their end."""

    ended_at: datetime
    assignment_id: UUID


FIRST_CALL = CallPosition(datetime(1000, 1, 1, tzinfo=UTC), UUID(int=0))


async def sweep_calls(
    tx: Transaction, after: CallPosition, before: datetime, limit: int, looked_at: int
) -> tuple[int, CallPosition]:
    """Delete up to `limit` of the `looked_at` calls after a position.

    Returns how many were deleted, and the position to go on from.

    Calls are kept while a claim or a complaint of the person is open, or was open since `before`.
    Such calls would fill every batch if each began with the oldest call.
    """
    values = {**after._asdict(), "before": before, "limit": limit, "looked_at": looked_at}
    deleted, looked, *last = (await tx.execute(DELETE_CALLS, values)).one()
    if deleted == limit:
        return deleted, after
    return deleted, CallPosition(*last) if looked == looked_at else FIRST_CALL


async def sweep(tx: Transaction, cutoffs: Cutoffs, now: datetime, limit: int) -> dict[str, int]:
    """Do one batch of each kind; returns how many rows of each kind there were."""
    by_sweep = {
        "requests_deleted": cutoffs.requests,
        "audit_entries_deleted": cutoffs.audit,
        "attempts_blanked": cutoffs.call_notes,
        "amendments_blanked": cutoffs.call_notes,
        "notes_deleted": cutoffs.call_notes,
        "assignments_deleted": cutoffs.assignments,
        "prevented_calls_deleted": cutoffs.prevented_calls,
        "complaints_deleted": cutoffs.calls,
        "callbacks_deleted": cutoffs.closed_callbacks,
        "pauses_deleted": cutoffs.audit,
        "suppressions_deleted": cutoffs.lifted_suppressions,
        "report_figures_deleted": cutoffs.reports,
        # Last, since rows of the other kinds keep their people.
        "entries_deleted": cutoffs.absent_people,
    }
    done = {}
    for name, cutoff in by_sweep.items():
        values = {"before": cutoff, "limit": limit}
        done[name] = len((await tx.execute(SWEEPS[name], values)).all())
    values = {"seen_before": cutoffs.agents_seen, "now": now, "limit": limit}
    done["agents_set_offline"] = len((await tx.execute(_SET_OFFLINE, values)).all())
    return done


def _delete(table: str, key: str, moment: str) -> str:
    return (
        f"DELETE FROM queue.{table} WHERE ({key}) IN ("  # noqa: S608 - our own names
        f"SELECT {key} FROM queue.{table} WHERE {moment} < :before"
        f" ORDER BY {moment} LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING {key}"
    )


_NOTHING_KEPT = " ".join(
    f"AND NOT EXISTS (SELECT FROM queue.{table} AS kept WHERE kept.user_id = entry.user_id)"
    for table in ("attempts", "callbacks", "suppressions", "assignments", "notes")
)
# A person who is coming back is locked while facts are applied, or is no longer absent.
_DELETE_ABSENT = f"""
    WITH gone AS (
        DELETE FROM queue.entries WHERE user_id IN (
            SELECT entry.user_id FROM queue.applied_facts AS applied
            JOIN queue.entries AS entry USING (user_id)
            WHERE applied.absent_since < :before
                AND entry.eligible_reason = '{Reason.USER_NOT_FOUND}'
                AND coalesce(entry.block, 0) = 0
                AND entry.state NOT IN ({int(State.ASSIGNED)}, {int(State.RESERVED)})
                {_NOTHING_KEPT}
                AND NOT EXISTS (SELECT FROM queue.complaints AS complaint
                    WHERE complaint.user_id = entry.user_id AND complaint.closed_at IS NULL)
            ORDER BY applied.absent_since LIMIT :limit FOR UPDATE OF entry SKIP LOCKED)
        RETURNING user_id, phones
    ), numbers AS (
        DELETE FROM queue.person_phones AS kept USING gone
        WHERE kept.phone_e164 = ANY(gone.phones) AND kept.user_id = gone.user_id
    ), deleted AS (
        DELETE FROM queue.applied_facts USING gone WHERE applied_facts.user_id = gone.user_id
    )
    SELECT user_id FROM gone
"""  # noqa: S608 - our own names and numbers

# Calls are kept while a claim or a complaint of the person is open, and for as long after the last
# one ended; of a person without an entry, the age of the call and a complaint count. Subqueries by
# row take the place of joins, for which PostgreSQL reads whole tables.
DELETE_CALLS = statement(
    """
    WITH looked AS MATERIALIZED (
        SELECT assignment_id, user_id, ended_at FROM queue.attempts
        WHERE ended_at < :before AND ended_at >= :ended_at
            AND (ended_at, assignment_id) > (:ended_at, :assignment_id)
        ORDER BY ended_at, assignment_id LIMIT :looked_at
    ), deleted AS (
        DELETE FROM queue.attempts WHERE assignment_id IN (
            SELECT call.assignment_id FROM looked
            JOIN queue.attempts AS call ON call.assignment_id = looked.assignment_id
            WHERE ((SELECT applied.ended_since FROM queue.applied_facts AS applied
                    WHERE applied.user_id = looked.user_id) < :before
                OR (SELECT entry.user_id FROM queue.entries AS entry
                    WHERE entry.user_id = looked.user_id) IS NULL)
                AND NOT EXISTS (SELECT FROM queue.complaints AS complaint
                    WHERE complaint.user_id = looked.user_id
                        AND (complaint.closed_at IS NULL OR complaint.closed_at >= :before))
            ORDER BY looked.ended_at LIMIT :limit FOR UPDATE OF call SKIP LOCKED)
        RETURNING assignment_id
    ), events AS (
        DELETE FROM queue.call_events USING deleted
        WHERE call_events.assignment_id = deleted.assignment_id AND NOT EXISTS (
            SELECT FROM queue.assignments AS kept
            WHERE kept.assignment_id = deleted.assignment_id)
    )
    SELECT (SELECT count(*) FROM deleted), (SELECT count(*) FROM looked),
        last.ended_at, last.assignment_id
    FROM (VALUES (1)) AS one
    LEFT JOIN (
        SELECT ended_at, assignment_id FROM looked
        ORDER BY ended_at DESC, assignment_id DESC LIMIT 1
    ) AS last ON true
    """
)

# What belongs to an assignment is kept for as long as it or its call is.
_DELETE_ASSIGNMENTS = f"""
    WITH deleted AS ({_delete("assignments", "assignment_id", "ended_at")}), events AS (
        DELETE FROM queue.call_events USING deleted
        WHERE call_events.assignment_id = deleted.assignment_id AND NOT EXISTS (
            SELECT FROM queue.attempts AS kept
            WHERE kept.assignment_id = deleted.assignment_id)
    )
    SELECT assignment_id FROM deleted
"""  # noqa: S608 - our own names

SWEEPS = {
    "requests_deleted": statement(_delete("requests", "agent_id, request_id", "made_at")),
    "audit_entries_deleted": statement(_delete("audit", "audit_id", "at")),
    "attempts_blanked": statement(
        "UPDATE queue.attempts SET notes = '' WHERE assignment_id IN ("
        "SELECT assignment_id FROM queue.attempts WHERE ended_at < :before AND notes <> ''"
        " ORDER BY ended_at LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING 1"
    ),
    "amendments_blanked": statement(
        "UPDATE queue.amendments SET notes = '', reason = '' WHERE amendment_id IN ("
        "SELECT amendment_id FROM queue.amendments WHERE amended_at < :before"
        " AND (notes <> '' OR reason <> '')"
        " ORDER BY amended_at LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING 1"
    ),
    "notes_deleted": statement(_delete("notes", "note_id", "noted_at")),
    "assignments_deleted": statement(_DELETE_ASSIGNMENTS),
    "prevented_calls_deleted": statement(
        _delete("prevented_calls", "prevented_call_id", "prevented_at")
    ),
    "complaints_deleted": statement(_delete("complaints", "user_id", "closed_at")),
    "callbacks_deleted": statement(_delete("callbacks", "callback_id", "closed_at")),
    "pauses_deleted": statement(_delete("pauses", "pause_id", "ends_at")),
    "suppressions_deleted": statement(_delete("suppressions", "suppression_id", "lifted_at")),
    "report_figures_deleted": statement(
        _delete("report_figures", "report, dimension, day, queue, part, result", "day")
    ),
    "entries_deleted": statement(_DELETE_ABSENT),
}

# The presence stays as it is, for when the agent is seen again.
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
