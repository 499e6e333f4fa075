"""Statements on `queue.applied_facts`, and on entries that differ from what was applied."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from servicekit.database import asyncpg_connection
from services.queue.domain.assessment import Assessment
from services.queue.domain.entries import Entry
from services.queue.store import entries
from services.queue.store.database import Transaction, statement
from services.queue.store.writing import Write, write
from services.queue.types import (
    NO_CONTACT_REASONS,
    OBJECTIONS,
    AgentId,
    CallbackState,
    Queue,
    Reason,
    State,
    UserId,
)

# The columns of an entry that derive from facts alone. Code that changes one of them must note the
# digest anew. Their order is that of the digests that are stored.
_DIGESTED = (
    "user_id",
    "facts_version",
    "fingerprint",
    "phones",
    "time_zone",
    "eligible_queue",
    "eligible_reason",
    "open_case_queue",
    "case_number",
    "lender_points",
    "age_points",
    "age_points_until",
    "claimed_at",
)
_COMPARED = tuple(
    Entry._fields.index(name) for name in _DIGESTED if name not in ("user_id", "facts_version")
)


def digest_of(alias: str, row_fingerprints: str) -> str:
    """Return the SQL of the digest of an entry's facts and row fingerprints.

    It holds the person's id, so it also shows two people whose records were exchanged.
    """
    columns = ", ".join(f"{alias}.{name}" for name in _DIGESTED)
    return f"hash_record_extended(ROW({columns}, {row_fingerprints}), 0)"


def absent_since_of(alias: str, known_since: str) -> str:
    """Return the SQL of since when the main app has not had a person; NULL while it has."""
    absent = f"{alias}.eligible_reason = '{Reason.USER_NOT_FOUND}'"
    return f"CASE WHEN {absent} THEN {known_since} END"


class Noted(NamedTuple):
    """What to note of one person; `is_kept` leaves the fingerprints as they are."""

    user_id: UserId
    row_fingerprints: bytes | None
    is_kept: bool
    has_open_claim: bool


def noted(before: Entry | None, after: Entry, assessed: Assessment) -> Noted:
    """Return what to note; a reading without fingerprints that changes nothing keeps the old."""
    is_same = before is not None and all(before[at] == after[at] for at in _COMPARED)
    rows = assessed.row_fingerprints
    return Noted(after.user_id, rows, rows is None and is_same, assessed.verdict.has_open_claim)


async def note(tx: Transaction, what: Write, people: Sequence[Noted], now: datetime) -> None:
    """Note what was applied to people whose entries are written by `what` in the same statement."""
    if people:
        await write(tx, _NOTES[what], ((*it, now) for it in people))


_NOTED_COLUMNS = (
    ("user_id", "bigint"),
    ("row_fingerprints", "bytea"),
    ("is_kept", "boolean"),
    ("has_open_claim", "boolean"),
    ("noted_at", "timestamptz"),
)


def _note(what: Write) -> Write:
    return Write(
        f"noted_{what.name}",
        _NOTED_COLUMNS,
        f"""
    INSERT INTO queue.applied_facts AS noted
        (user_id, row_fingerprints, digest, open_case_queue, case_number, absent_since, ended_since)
    SELECT entry.user_id, told.row_fingerprints,
        {digest_of("entry", "told.row_fingerprints")}, entry.open_case_queue, entry.case_number,
        {absent_since_of("entry", "coalesce(known.absent_since, given.noted_at)")},
        CASE WHEN NOT given.has_open_claim THEN coalesce(known.ended_since, given.noted_at) END
    FROM {{given}}
    JOIN {what.name} AS entry ON entry.user_id = given.user_id
    LEFT JOIN queue.applied_facts AS known ON known.user_id = given.user_id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN given.is_kept THEN known.row_fingerprints
            ELSE given.row_fingerprints END AS row_fingerprints
    ) AS told
    ORDER BY entry.user_id
    ON CONFLICT (user_id) DO UPDATE
    SET row_fingerprints = EXCLUDED.row_fingerprints, digest = EXCLUDED.digest,
        open_case_queue = EXCLUDED.open_case_queue, case_number = EXCLUDED.case_number,
        absent_since = EXCLUDED.absent_since, ended_since = EXCLUDED.ended_since
    """,  # noqa: S608 - our own column names
        after=(what,),
    )


_NOTES = {it: _note(it) for it in (entries.INSERT, entries.UPDATE, entries.UPDATE_FACTS)}


_BLOCKING = tuple(map(str, sorted(NO_CONTACT_REASONS)))
_IN_QUEUE = tuple(map(int, (State.READY, State.WAITING, State.RESERVED)))
_IS_SUPPRESSED = (
    f"(coalesce(entry.block, 0) & {int(OBJECTIONS)} <> 0 OR coalesce(entry.phone_block, 0) <> 0)"
)
_IS_BLOCKED = (
    "(coalesce(entry.block, 0) <> 0 OR coalesce(entry.phone_block, 0) <> 0"
    f" OR entry.eligible_reason IN {_BLOCKING} OR entry.lines = '{{}}')"
)
# True for a place to which no placing leads at any moment. The moment plays no part, since entries
# are moved a little later than it. It restates `Placement`; tests hold the two together.
_MISPLACED = f"""CASE
        WHEN entry.state = {int(State.ASSIGNED)} THEN live.user_id IS NULL
        WHEN live.user_id IS NOT NULL THEN true
        WHEN entry.state IN {_IN_QUEUE} THEN
            {_IS_BLOCKED} OR entry.queue IS NULL
            OR (entry.queue IS DISTINCT FROM entry.eligible_queue
                AND NOT (entry.queue = {int(Queue.CALLBACKS)} AND entry.callback_at IS NOT NULL))
            OR (entry.state = {int(State.WAITING)} AND entry.due_at IS NULL)
        ELSE
            entry.queue IS NOT NULL
            OR (entry.state = {int(State.SUPPRESSED)}) <> {_IS_SUPPRESSED}
            OR (NOT {_IS_BLOCKED} AND (entry.callback_at IS NOT NULL
                OR (entry.eligible_queue IS NOT NULL AND entry.reason <> '{Reason.FROZEN}')))
    END"""
_IS_REWRITTEN = f"applied.digest <> {digest_of('entry', 'applied.row_fingerprints')}"
ALTERED = f"({_IS_REWRITTEN} OR {_MISPLACED})"
_SELECT = f"""
    SELECT entry.user_id, entry.facts_version, entry.fingerprint, applied.row_fingerprints,
        entry.eligible_reason = '{Reason.USER_NOT_FOUND}', coalesce({ALTERED}, false)
    FROM queue.entries AS entry
    LEFT JOIN queue.applied_facts AS applied ON applied.user_id = entry.user_id
    LEFT JOIN queue.assignments AS live
        ON live.user_id = entry.user_id AND live.ended_at IS NULL
"""  # noqa: S608 - our own column names
_BLOCK = _SELECT + " WHERE entry.user_id > $1 ORDER BY entry.user_id LIMIT $2"
_GIVEN = _SELECT + " WHERE entry.user_id = ANY($1::bigint[]) ORDER BY entry.user_id"


class Applied(NamedTuple):
    """What was last applied to people, column by column, in rising order of id."""

    user_ids: Sequence[int]
    versions: Sequence[int]
    fingerprints: Sequence[int]
    row_fingerprints: Sequence[bytes | None]
    is_absent: Sequence[bool]
    is_altered: Sequence[bool]


async def block(tx: Transaction, after: int, limit: int) -> Applied:
    """Return what was applied to the first people with ids above `after`."""
    return await _fetched(tx, _BLOCK, after, limit)


async def given(tx: Transaction, user_ids: Sequence[UserId]) -> Applied:
    """Return what was applied to those of these people who are known."""
    return await _fetched(tx, _GIVEN, list(user_ids))


async def _fetched(tx: Transaction, sql: str, *values: Any) -> Applied:
    """Fetch from the driver itself: a row object for each of many people would cost more."""
    async with asyncpg_connection(tx) as session:
        rows = await session.fetch(sql, *values)
    columns = zip(*rows, strict=True) if rows else ((),) * len(Applied._fields)
    return Applied(*columns)


class AppliedCase(NamedTuple):
    """The case of a person as it was applied; `open_case_queue` is None when none was open."""

    open_case_queue: Queue | None
    case_number: int


async def in_doubt(tx: Transaction, user_ids: Sequence[UserId]) -> set[UserId]:
    """Return those of these people whose record was altered after their facts were applied."""
    rows = await tx.execute(_IN_DOUBT, {"user_ids": list(user_ids)})
    return {UserId(row[0]) for row in rows.all()}


def in_doubt_sql(parameter: str) -> str:
    """Return the SQL of those people, with the case as it was applied."""
    return (
        "SELECT entry.user_id, applied.open_case_queue, applied.case_number"  # noqa: S608 - ours
        " FROM queue.entries AS entry"
        " JOIN queue.applied_facts AS applied ON applied.user_id = entry.user_id"
        f" WHERE entry.user_id = ANY(CAST(:{parameter} AS bigint[])) AND {_IS_REWRITTEN}"
    )


_IN_DOUBT = statement(in_doubt_sql("user_ids"))


class Owned(NamedTuple):
    """What other tables hold of a person and the entry has a copy of."""

    callback_id: UUID | None
    callback_at: datetime | None
    callback_agent_id: AgentId | None
    is_free: bool


async def owned(tx: Transaction, user_ids: Sequence[UserId]) -> dict[UserId, Owned]:
    """Return what other tables hold of each of these people, who are locked."""
    rows = await tx.execute(_OWNED, {"user_ids": list(user_ids)})
    return {UserId(row[0]): Owned(*row[1:]) for row in rows.all()}


_OWNED = statement(
    f"""
    SELECT given.user_id, callback.callback_id, callback.scheduled_for,
        callback.preferred_agent_id, live.user_id IS NULL
    FROM unnest(CAST(:user_ids AS bigint[])) AS given(user_id)
    LEFT JOIN queue.callbacks AS callback
        ON callback.user_id = given.user_id AND callback.state = {int(CallbackState.OPEN)}
    LEFT JOIN queue.assignments AS live
        ON live.user_id = given.user_id AND live.ended_at IS NULL
    """  # noqa: S608 - our own state numbers
)
