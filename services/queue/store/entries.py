"""Statements on `queue.entries` and on what is written together with it."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import BigInteger, bindparam

from services.queue.domain.entries import Entry
from services.queue.domain.terms import (
    AgentId,
    Block,
    Conversion,
    Hold,
    Outcome,
    PhoneBlock,
    Queue,
    Reason,
    State,
    UserId,
)
from services.queue.store.database import (
    PHONES_GUARD,
    Transaction,
    arrays,
    names,
    statement,
    unnested,
)

COLUMNS = (
    ("user_id", "bigint"),
    ("facts_version", "bigint"),
    ("fingerprint", "bigint"),
    ("phone_e164", "text"),
    ("time_zone", "text"),
    ("eligible_queue", "smallint"),
    ("eligible_reason", "text"),
    ("owes", "smallint"),
    ("stay", "integer"),
    ("queue", "smallint"),
    ("state", "smallint"),
    ("reason", "text"),
    ("hold", "smallint"),
    ("rank_key", "double precision"),
    ("due_at", "timestamptz"),
    ("ready_since", "timestamptz"),
    ("entered_at", "timestamptz"),
    ("outcome_points", "double precision"),
    ("attempt_points", "double precision"),
    ("aged_from", "timestamptz"),
    ("lender_points", "double precision"),
    ("age_points", "double precision"),
    ("age_points_until", "timestamptz"),
    ("claimed_at", "timestamptz"),
    ("rest_until", "timestamptz"),
    ("capped_until", "timestamptz"),
    ("cap", "smallint"),
    ("phone_free_at", "timestamptz"),
    ("phone_block", "smallint"),
    ("callback_id", "uuid"),
    ("callback_at", "timestamptz"),
    ("callback_agent_id", "text"),
    ("block", "smallint"),
    ("attempts", "integer"),
    ("attempts_in_stay", "integer"),
    ("last_outcome", "smallint"),
    ("last_contact_at", "timestamptz"),
    ("last_agent_id", "text"),
    ("fence", "bigint"),
    ("agent_id", "text"),
    ("assignment_id", "uuid"),
    ("reserved_by", "uuid"),
    ("reserved_until", "timestamptz"),
)
COLUMN_NAMES = names(COLUMNS)

# Of somebody new, from `given`. Who was forgotten and comes back goes on counting their matters
# where they left off, else the next one's end would be taken for one that is recorded.
_NEW_STAY = (
    "given.stay + coalesce((SELECT max(ended.stay) FROM queue.conversions AS ended"
    " WHERE ended.user_id = given.user_id), 0)"
)
NEW_COLUMNS = ", ".join(_NEW_STAY if name == "stay" else f"given.{name}" for name, _ in COLUMNS)

# What every later reading changes, whatever it says.
_FACTS_COLUMNS = COLUMNS[:4]
_FACTS = len(_FACTS_COLUMNS)


@dataclass(frozen=True, slots=True)
class ConversionRow:
    """One matter that has ended; `agent_id` is who last spoke to the person, if anybody did."""

    user_id: UserId
    stay: int
    queue: Queue
    conversion: Conversion
    agent_id: AgentId | None


def entry_of(row: Sequence[Any]) -> Entry:
    """Return the entry in a row that begins with `COLUMNS`."""
    entry = Entry._make(row[: len(COLUMNS)])
    return entry._replace(
        eligible_queue=_QUEUES[entry.eligible_queue],
        eligible_reason=_REASONS[entry.eligible_reason],
        owes=_QUEUES[entry.owes],
        queue=_QUEUES[entry.queue],
        state=_STATES[entry.state],
        reason=_REASONS[entry.reason],
        hold=_HOLDS[entry.hold],
        cap=_HOLDS[entry.cap],
        phone_block=_PHONE_BLOCKS[entry.phone_block],
        block=_BLOCKS[entry.block],
        last_outcome=_OUTCOMES[entry.last_outcome],
    )


M = TypeVar("M", bound=IntEnum)


def _members(kind: type[M]) -> dict[int | None, M | None]:
    """Return the members by number, and none for none; quicker than asking the enum."""
    return {None: None, **{int(it): it for it in kind}}


_QUEUES = _members(Queue)
_STATES = {int(it): it for it in State}
_REASONS = {str(it): it for it in Reason}
_HOLDS = _members(Hold)
_PHONE_BLOCKS = _members(PhoneBlock)
_BLOCKS = _members(Block)
_OUTCOMES = _members(Outcome)


def differ_in_facts_alone(before: Entry, after: Entry) -> bool:
    """Return whether nothing but the facts' version, fingerprint and number differs."""
    return before[_FACTS:] == after[_FACTS:]


async def lock(tx: Transaction, user_ids: Sequence[UserId]) -> dict[UserId, Entry]:
    """Lock and return the entries of these people, in the order of their ids."""
    rows = await tx.execute(_LOCK, {"user_ids": list(user_ids)})
    entries = [entry_of(row) for row in rows.all()]
    return {entry.user_id: entry for entry in entries}


_LOCK = statement(
    f"SELECT {COLUMN_NAMES} FROM queue.entries"  # noqa: S608 - our own column names
    " WHERE user_id = ANY(CAST(:user_ids AS bigint[])) ORDER BY user_id FOR UPDATE"
)


async def read(tx: Transaction, user_ids: Sequence[UserId]) -> dict[UserId, Entry]:
    """Return the entries of these people, without locking them."""
    rows = await tx.execute(_READ, {"user_ids": list(user_ids)})
    entries = [entry_of(row) for row in rows.all()]
    return {entry.user_id: entry for entry in entries}


_READ = statement(
    f"SELECT {COLUMN_NAMES} FROM queue.entries"  # noqa: S608 - our own column names
    " WHERE user_id = ANY(CAST(:user_ids AS bigint[]))"
)


async def lock_sharers(
    tx: Transaction, user_id: UserId, phone_e164: str | None
) -> dict[UserId, Entry]:
    """Lock and return a person and everybody who has that phone number, in the order of ids."""
    rows = await tx.execute(_LOCK_SHARERS, {"user_id": user_id, "phone_e164": phone_e164})
    entries = [entry_of(row) for row in rows.all()]
    return {entry.user_id: entry for entry in entries}


_LOCK_SHARERS = statement(
    f"SELECT {COLUMN_NAMES} FROM queue.entries"  # noqa: S608 - our own column names
    " WHERE user_id = :user_id OR phone_e164 = :phone_e164 ORDER BY user_id FOR UPDATE"
)


async def phone_of(tx: Transaction, user_id: UserId) -> str | None:
    """Return the person's number, without locking anybody."""
    rows = await tx.execute(_PHONE_OF, {"user_id": user_id})
    found: str | None = rows.scalar_one_or_none()
    return found


_PHONE_OF = statement("SELECT phone_e164 FROM queue.entries WHERE user_id = :user_id")


async def guard_newcomers(tx: Transaction, user_ids: Sequence[UserId]) -> None:
    """Wait until no other transaction is about to add any of these people, and keep others waiting.

    Does nothing for people who are known, but for keeping suppressed phone numbers as they are
    until the end. To be called before any of them is locked: those who add people hold these
    guards, taken in one order, before any row, so none can wait in a circle.
    """
    await tx.execute(_GUARD, {"user_ids": list(user_ids)})


# People who register together, and pages of a sweep, share a guard; strangers seldom do.
_GUARD = statement(
    """
    SELECT pg_advisory_xact_lock_shared(:phones)
    UNION ALL
    SELECT pg_advisory_xact_lock(:class, bucket) FROM (
        SELECT DISTINCT CAST(given.user_id / 1024 % 256 AS integer) AS bucket
        FROM unnest(CAST(:user_ids AS bigint[])) AS given(user_id)
        WHERE NOT EXISTS (
            SELECT FROM queue.entries AS entry WHERE entry.user_id = given.user_id)
        ORDER BY bucket
    ) AS newcomers
    """
).bindparams(
    bindparam("class", zlib.crc32(b"queue.entries") - 2**31),
    bindparam("phones", PHONES_GUARD, BigInteger),
)


async def insert(tx: Transaction, entries: Sequence[Entry]) -> None:
    """Add people who are not known; the caller guards them."""
    if entries:
        await tx.execute(_INSERT, arrays(COLUMNS, entries))


_INSERT = statement(
    f"""
    WITH written AS (
        INSERT INTO queue.entries ({COLUMN_NAMES}, state_version)
        SELECT {NEW_COLUMNS}, nextval('queue.state_version') FROM {unnested(COLUMNS, "given")}
        RETURNING user_id, state_version
    )
    INSERT INTO queue.stale_call_states (user_id, state_version)
    SELECT user_id, state_version FROM written
    """  # noqa: S608 - our own column names
)


async def update(tx: Transaction, entries: Sequence[Entry]) -> None:
    """Write locked entries as given, each with a new state version."""
    if entries:
        await tx.execute(_UPDATE, arrays(COLUMNS, entries))


_UPDATE = statement(
    f"""
    WITH written AS (
        UPDATE queue.entries AS entry
        SET {", ".join(f"{name} = given.{name}" for name, _ in COLUMNS[1:])},
            state_version = nextval('queue.state_version')
        FROM {unnested(COLUMNS, "given")}
        WHERE entry.user_id = given.user_id
        RETURNING entry.user_id, entry.state_version
    )
    INSERT INTO queue.stale_call_states (user_id, state_version)
    SELECT user_id, state_version FROM written
    """  # noqa: S608 - our own column names
)


async def update_facts(tx: Transaction, entries: Sequence[Entry]) -> None:
    """Note later facts of locked people that change nothing else; indexes stay untouched."""
    if entries:
        await tx.execute(_UPDATE_FACTS, arrays(_FACTS_COLUMNS, (it[:_FACTS] for it in entries)))


_UPDATE_FACTS = statement(
    f"""
    UPDATE queue.entries AS entry
    SET {", ".join(f"{name} = given.{name}" for name, _ in _FACTS_COLUMNS[1:])}
    FROM {unnested(_FACTS_COLUMNS, "given")}
    WHERE entry.user_id = given.user_id
    """  # noqa: S608 - our own column names
)


async def insert_conversions(
    tx: Transaction, conversions: Sequence[ConversionRow], now: datetime
) -> set[UserId]:
    """Record conversions; returns the people for whom this was the first record."""
    if not conversions:
        return set()
    rows = await tx.execute(
        _INSERT_CONVERSIONS,
        {**arrays(_CONVERSION_COLUMNS, map(_conversion_values, conversions)), "now": now},
    )
    return {UserId(row[0]) for row in rows.all()}


_CONVERSION_COLUMNS = (
    ("user_id", "bigint"),
    ("stay", "integer"),
    ("queue", "smallint"),
    ("conversion", "smallint"),
    ("agent_id", "text"),
)
_conversion_values = attrgetter(*(name for name, _ in _CONVERSION_COLUMNS))
_INSERT_CONVERSIONS = statement(
    f"""
    INSERT INTO queue.conversions ({names(_CONVERSION_COLUMNS)}, recorded_at)
    SELECT {names(_CONVERSION_COLUMNS)}, :now FROM {unnested(_CONVERSION_COLUMNS, "given")}
    ON CONFLICT (user_id, stay) DO NOTHING
    RETURNING user_id
    """  # noqa: S608 - our own column names
)


async def conversion_since(tx: Transaction, user_id: UserId, since: datetime) -> Conversion | None:
    """Return the person's latest conversion recorded since then."""
    rows = await tx.execute(_CONVERSION_SINCE, {"user_id": user_id, "since": since})
    found = rows.scalar_one_or_none()
    return None if found is None else Conversion(found)


_CONVERSION_SINCE = statement(
    "SELECT conversion FROM queue.conversions WHERE user_id = :user_id AND recorded_at >= :since"
    " ORDER BY recorded_at DESC, stay DESC LIMIT 1"
)


async def lock_due(tx: Transaction, state: State, now: datetime, limit: int) -> list[Entry]:
    """Lock and return people whose waiting or reservation has ended, longest ago first.

    People whom another transaction holds at this moment are left out.
    """
    found = await tx.execute(_LOCK_DUE[state], {"now": now, "limit": limit})
    return [entry_of(row) for row in found.all()]


def _due(state: State, column: str) -> str:
    return (
        f"SELECT {COLUMN_NAMES} FROM queue.entries"  # noqa: S608 - our own column names
        f" WHERE state = {int(state)} AND {column} <= :now"
        f" ORDER BY {column} LIMIT :limit FOR UPDATE SKIP LOCKED"
    )


_LOCK_DUE = {
    State.WAITING: statement(_due(State.WAITING, "due_at")),
    State.RESERVED: statement(_due(State.RESERVED, "reserved_until")),
}


async def aged(tx: Transaction, now: datetime, limit: int) -> list[UserId]:
    """Return people who have reached an age at which their points change; nothing is locked."""
    rows = await tx.execute(_AGED, {"now": now, "limit": limit})
    return [UserId(row[0]) for row in rows.all()]


_AGED = statement(
    "SELECT user_id FROM queue.entries WHERE age_points_until <= :now"
    " ORDER BY age_points_until LIMIT :limit"
)


async def time_zones(tx: Transaction) -> list[str]:
    """Return the zones, other than the usual one, in which anybody lives."""
    return [str(row[0]) for row in (await tx.execute(_TIME_ZONES)).all()]


_TIME_ZONES = statement(
    "SELECT DISTINCT time_zone FROM queue.entries WHERE time_zone IS NOT NULL ORDER BY time_zone"
)


async def lock_frozen(tx: Transaction, queue: Queue, frozen_from: float, limit: int) -> list[Entry]:
    """Lock and return people at the end of a queue whose key has reached `frozen_from`."""
    found = await tx.execute(
        _LOCK_FROZEN, {"queue": queue, "frozen_from": frozen_from, "limit": limit}
    )
    return [entry_of(row) for row in found.all()]


_LOCK_FROZEN = statement(
    f"SELECT {COLUMN_NAMES} FROM queue.entries"  # noqa: S608 - our own column names
    f" WHERE queue = :queue AND state = {int(State.READY)} AND rank_key >= :frozen_from"
    " ORDER BY rank_key DESC, user_id LIMIT :limit FOR UPDATE SKIP LOCKED"
)
