"""Statements of an outcome: one takes all its locks, one reads all it is judged by.

They are two, since a row that is joined to a locked one would be as it was before a wait for the
lock; all that is read apart from locked rows is read once the locks are held.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.queue.domain.callbacks import Callback
from services.queue.domain.entries import ContactStatus, Entry
from services.queue.store import callbacks, contact_status
from services.queue.store.assignments import ASSIGNMENT_COLUMNS, Assignment, assignment_of
from services.queue.store.database import Transaction, statement
from services.queue.store.entries import IS_SHARER, columns_of, conversion_since_sql, entry_of
from services.queue.store.idempotency_records import TAKE, IdempotentRequest, taking
from services.queue.store.reading import RecentAttempt, latest_attempts_sql
from services.queue.types import AgentId, Conversion, Outcome, UserId


@dataclass(frozen=True, slots=True)
class LockedCall:
    """An assignment with its person and the people who share one of its lines, all locked."""

    assignment: Assignment | None
    people: dict[UserId, Entry]


async def lock(
    tx: Transaction,
    request: IdempotentRequest,
    now: datetime,
    assignment_id: UUID,
    *,
    with_people: bool,
) -> LockedCall | None:
    """Take the request id and lock what an outcome changes; returns None if the id is taken.

    The order is that of all transactions: the id, the assignment, entries by id; each part of the
    statement begins with what the one before has locked. People are locked only `with_people` and
    if the assignment is the agent's. The lines and the person of an assignment never change, so it
    does not matter that they are read before a wait for its lock.
    """
    values = {**taking(request, now), "assignment_id": assignment_id, "with_people": with_people}
    rows = (await tx.execute(_LOCK, values)).all()
    if not rows:
        return None
    held = None if rows[0][0] is None else assignment_of(rows[0])
    people = (row[_ENTRY:] for row in rows if row[_ENTRY] is not None)
    return LockedCall(held, {it.user_id: it for it in map(entry_of, people)})


_ENTRY = len(ASSIGNMENT_COLUMNS)
_LOCK = statement(
    f"""
    WITH taken AS ({TAKE}), held AS MATERIALIZED (
        SELECT {", ".join(f"held.{name}" for name in ASSIGNMENT_COLUMNS)}
        FROM taken CROSS JOIN queue.assignments AS held
        WHERE held.assignment_id = :assignment_id FOR UPDATE OF held
    ), of_agent AS MATERIALIZED (
        SELECT user_id, lines FROM held
        WHERE agent_id = :agent_id AND CAST(:with_people AS boolean)
    ), people AS MATERIALIZED (
        SELECT {columns_of("entry")} FROM queue.entries AS entry
        WHERE entry.user_id = ANY(ARRAY(
            SELECT user_id FROM of_agent
            UNION
            SELECT kept.user_id FROM queue.person_phones AS kept
            WHERE {IS_SHARER.format(lines="ARRAY(SELECT unnest(lines) FROM of_agent)")}
        )) ORDER BY entry.user_id FOR UPDATE
    )
    SELECT {", ".join(f"held.{name}" for name in ASSIGNMENT_COLUMNS)},
        {columns_of("people")}
    FROM taken LEFT JOIN held ON true LEFT JOIN people ON true
    ORDER BY people.user_id
    """  # noqa: S608 - our own column names
)


@dataclass(frozen=True, slots=True)
class CallReading:
    """What an outcome is judged by and answered with, apart from what it writes itself.

    `state_version` is drawn for the person, `conversion` the latest since the assignment began,
    `attempts` and `statuses` are without the call itself, if it was kept before.
    """

    state_version: int
    conversion: Conversion | None
    callback: Callback | None
    attempts: Sequence[RecentAttempt]
    statuses: Mapping[UserId, ContactStatus]


async def read(
    tx: Transaction, held: Assignment, people: Sequence[Entry], calls_since: datetime
) -> CallReading:
    """Return what is known once the people are locked; to be called after the lock only."""
    numbers = [(it.user_id, it.phones) for it in people]
    values = contact_status.parameters(numbers, calls_since, held.assignment_id) | {
        "user_id": held.user_id,
        "begun_at": held.started_at,
    }
    row = (await tx.execute(_READ, values)).one()
    state_version, conversion = row[:2]
    past = row[2:7]
    statuses = row[7:12]
    callback = None if row[12] is None else callbacks.callback_of(row[12:])
    return CallReading(
        state_version,
        None if conversion is None else Conversion(conversion),
        callback,
        [
            RecentAttempt(AgentId(agent_id), outcome and Outcome(outcome), *others)
            for agent_id, outcome, *others in zip(*(it or () for it in past), strict=True)
        ],
        contact_status.found_in_arrays(numbers, statuses),
    )


_OTHER_CALLS = "attempts.user_id = :user_id AND attempts.assignment_id <> CAST(:without AS uuid)"
_READ = statement(
    f"""
    SELECT nextval('queue.state_version'), ({conversion_since_sql(":begun_at")}),
        past.agent_ids, past.outcomes, past.ends, past.notes, past.dispositions,
        {contact_status.ARRAY_NAMES},
        {callbacks.columns_of("open")}
    FROM (
        SELECT array_agg(agent_id) AS agent_ids, array_agg(outcome) AS outcomes,
            array_agg(ended_at) AS ends, array_agg(notes) AS notes,
            array_agg(disposition) AS dispositions
        FROM ({latest_attempts_sql(_OTHER_CALLS)}) AS latest
    ) AS past
    CROSS JOIN {contact_status.arrays_sql(contact_status.statuses_sql())}
    LEFT JOIN queue.callbacks AS open ON {callbacks.IS_OPEN_OF.format(name="open")}
    """  # noqa: S608 - our own column names
)
