"""Statements on `queue.applied_facts`, and how what was applied compares with the entries."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from services.queue.domain.entries import Entry
from services.queue.domain.terms import (
    BARRIERS,
    AgentId,
    Block,
    CallbackState,
    PhoneBlock,
    Queue,
    Reason,
    State,
    UserId,
)
from services.queue.store.database import Transaction, arrays, statement, unnested

# What facts alone make of an entry. A path that changes one of these must note the digest anew.
_DIGESTED = (
    "user_id",
    "facts_version",
    "fingerprint",
    "phone_e164",
    "time_zone",
    "eligible_queue",
    "eligible_reason",
    "owes",
    "stay",
    "lender_points",
    "age_points",
    "age_points_until",
    "claimed_at",
)
_COMPARED = tuple(
    Entry._fields.index(name) for name in _DIGESTED if name not in ("user_id", "facts_version")
)


def digest_of(alias: str, row_fingerprints: str) -> str:
    """Return the SQL of the hash over what facts alone make of an entry, and the fingerprints.

    Two people's records that change places come to the same sum as before: only this tells.
    """
    columns = ", ".join(f"{alias}.{name}" for name in _DIGESTED)
    return f"hash_record_extended(ROW({columns}, {row_fingerprints}), 0)"


def absent_since_of(alias: str, known_since: str) -> str:
    """Return the SQL of since when the main app has not had somebody; NULL for those it has."""
    absent = f"{alias}.eligible_reason = '{Reason.USER_NOT_FOUND}'"
    return f"CASE WHEN {absent} THEN {known_since} END"


class Noted(NamedTuple):
    """What to note of one person; `is_kept` leaves the fingerprints as they are."""

    user_id: UserId
    row_fingerprints: bytes | None
    is_kept: bool


def noted(before: Entry | None, after: Entry, row_fingerprints: bytes | None) -> Noted:
    """Return what to note: a reading without fingerprints that changes nothing leaves them be."""
    is_same = before is not None and all(before[at] == after[at] for at in _COMPARED)
    return Noted(after.user_id, row_fingerprints, row_fingerprints is None and is_same)


async def note(tx: Transaction, people: Sequence[Noted], now: datetime) -> None:
    """Note what was applied; to be called once the people's entries are written."""
    if people:
        await tx.execute(_NOTE, {**arrays(_NOTED_COLUMNS, people), "now": now})


_NOTED_COLUMNS = (("user_id", "bigint"), ("row_fingerprints", "bytea"), ("is_kept", "boolean"))
_NOTE = statement(
    f"""
    INSERT INTO queue.applied_facts AS noted
        (user_id, row_fingerprints, digest, owes, stay, absent_since)
    SELECT entry.user_id, told.row_fingerprints,
        {digest_of("entry", "told.row_fingerprints")}, entry.owes, entry.stay,
        {absent_since_of("entry", "coalesce(known.absent_since, :now)")}
    FROM {unnested(_NOTED_COLUMNS, "given")}
    JOIN queue.entries AS entry ON entry.user_id = given.user_id
    LEFT JOIN queue.applied_facts AS known ON known.user_id = given.user_id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN given.is_kept THEN known.row_fingerprints
            ELSE given.row_fingerprints END AS row_fingerprints
    ) AS told
    ORDER BY entry.user_id
    ON CONFLICT (user_id) DO UPDATE
    SET row_fingerprints = EXCLUDED.row_fingerprints, digest = EXCLUDED.digest,
        owes = EXCLUDED.owes, stay = EXCLUDED.stay, absent_since = EXCLUDED.absent_since
    """  # noqa: S608 - our own column names
)


def _numbers(*members: int) -> str:
    return ", ".join(str(int(it)) for it in members)


def _texts(*reasons: Reason) -> str:
    return ", ".join(f"'{it}'" for it in reasons)


_KEPT_SUPPRESSED = (
    f"(entry.block IS NOT DISTINCT FROM {int(Block.DO_NOT_CONTACT)}"
    " OR entry.phone_block IS NOT NULL)"
)
_BARRED = (
    "(entry.block IS NOT NULL OR entry.phone_block IS NOT NULL"
    f" OR entry.eligible_reason IN ({_texts(*sorted(BARRIERS))}))"
)
# Where no placing could have put anybody. The moment plays no part, since time passing is noticed
# a little later than it passes.
_MISPLACED = f"""CASE
        WHEN entry.state = {int(State.ASSIGNED)} THEN live.user_id IS NULL
        WHEN live.user_id IS NOT NULL THEN true
        WHEN entry.state IN ({_numbers(State.READY, State.WAITING, State.RESERVED)}) THEN
            {_BARRED} OR entry.queue IS NULL
            OR (entry.queue IS DISTINCT FROM entry.eligible_queue
                AND NOT (entry.queue = {int(Queue.CALLBACKS)} AND entry.callback_at IS NOT NULL))
            OR (entry.state = {int(State.WAITING)} AND entry.due_at IS NULL)
        ELSE
            entry.queue IS NOT NULL
            OR (entry.state = {int(State.SUPPRESSED)}) <> {_KEPT_SUPPRESSED}
            OR (NOT {_BARRED} AND (entry.callback_at IS NOT NULL
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
    """What was last applied of people, column by column, in rising order of id."""

    user_ids: Sequence[int]
    versions: Sequence[int]
    fingerprints: Sequence[int]
    row_fingerprints: Sequence[bytes | None]
    is_absent: Sequence[bool]
    is_altered: Sequence[bool]


async def block(tx: Transaction, after: int, limit: int) -> Applied:
    """Return what was applied of the first people above `after`."""
    return await _fetched(tx, _BLOCK, after, limit)


async def given(tx: Transaction, user_ids: Sequence[UserId]) -> Applied:
    """Return what was applied of those of these people who are known."""
    return await _fetched(tx, _GIVEN, list(user_ids))


async def _fetched(tx: Transaction, sql: str, *values: Any) -> Applied:
    """Fetch from the driver itself: a row object for each of many people would cost more."""
    connection = await tx.get_raw_connection()
    rows = await connection.driver_connection.fetch(sql, *values)  # type: ignore[union-attr]
    columns = zip(*rows, strict=True) if rows else ((),) * len(Applied._fields)
    return Applied(*columns)


class Matter(NamedTuple):
    """The matter of a person as it was applied."""

    owes: Queue | None
    stay: int


async def in_doubt(tx: Transaction, user_ids: Sequence[UserId]) -> dict[UserId, Matter | None]:
    """Return those of these people whose record is no longer what applying their facts left.

    With each comes their matter as applied; None when that is not known.
    """
    rows = await tx.execute(_IN_DOUBT, {"user_ids": list(user_ids)})
    return {
        UserId(row[0]): None
        if row[2] is None
        else Matter(None if row[1] is None else Queue(row[1]), row[2])
        for row in rows.all()
    }


_IN_DOUBT = statement(
    f"""
    SELECT entry.user_id, applied.owes, applied.stay FROM queue.entries AS entry
    JOIN queue.applied_facts AS applied ON applied.user_id = entry.user_id
    WHERE entry.user_id = ANY(CAST(:user_ids AS bigint[])) AND {_IS_REWRITTEN}
    """  # noqa: S608 - our own column names
)


class Owned(NamedTuple):
    """What other tables say of a person of which the entry keeps a copy."""

    callback_id: UUID | None
    callback_at: datetime | None
    callback_agent_id: AgentId | None
    is_suppressed: bool
    is_free: bool
    phone_block: PhoneBlock | None = None


async def owned(tx: Transaction, user_ids: Sequence[UserId]) -> dict[UserId, Owned]:
    """Return what other tables say of each of these people, who are locked."""
    rows = await tx.execute(_OWNED, {"user_ids": list(user_ids)})
    return {UserId(row[0]): Owned(*row[1:]) for row in rows.all()}


_OWNED = statement(
    f"""
    SELECT given.user_id, callback.callback_id, callback.scheduled_for,
        callback.preferred_agent_id, suppression.user_id IS NOT NULL, live.user_id IS NULL
    FROM unnest(CAST(:user_ids AS bigint[])) AS given(user_id)
    LEFT JOIN queue.callbacks AS callback
        ON callback.user_id = given.user_id AND callback.state = {int(CallbackState.OPEN)}
    LEFT JOIN queue.suppressions AS suppression
        ON suppression.user_id = given.user_id AND suppression.lifted_at IS NULL
    LEFT JOIN queue.assignments AS live
        ON live.user_id = given.user_id AND live.ended_at IS NULL
    """  # noqa: S608 - our own state numbers
)
