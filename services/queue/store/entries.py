"""Statements on `queue.entries` and on what is written together with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy.dialects import postgresql

from services.queue.domain.entries import Entry
from services.queue.store import tables
from services.queue.store.database import (
    Transaction,
    arrays,
    names,
    statement,
    unnested,
)
from services.queue.store.writing import Write, together, write
from services.queue.types import (
    AgentId,
    ContactBlock,
    Conversion,
    Hold,
    Outcome,
    PhoneBlock,
    Queue,
    Reason,
    State,
    UserId,
)

# Name and SQL type of the columns that an entry is made of, in the order of its fields.
COLUMNS = tuple(
    (name, tables.entries.c[name].type.compile(postgresql.dialect()).lower())  # type: ignore[no-untyped-call]
    for name in Entry._fields
)
COLUMN_NAMES = names(COLUMNS)


def columns_of(alias: str) -> str:
    """Return the names of `COLUMNS` in a row of that alias, separated by commas."""
    return ", ".join(f"{alias}.{name}" for name, _ in COLUMNS)


# Of a new person, from `given`. The cases of a person who was deleted and comes back are numbered
# on from where they ended, else the end of the next one would be taken for one that is recorded.
_NEW_CASE_NUMBER = (
    "given.case_number + coalesce((SELECT max(ended.case_number) FROM queue.conversions AS ended"
    " WHERE ended.user_id = given.user_id), 0)"
)
NEW_COLUMNS = ", ".join(
    _NEW_CASE_NUMBER if name == "case_number" else f"given.{name}" for name, _ in COLUMNS
)

# What every later reading changes.
_FACTS_COLUMNS = COLUMNS[:4]
_FACTS = len(_FACTS_COLUMNS)


@dataclass(frozen=True, slots=True)
class ConversionRow:
    """A case that has ended; `agent_id` is the agent it is credited to, None for no agent.

    `wanted_since` is when the oldest claim of the case was made, None when that is not known.
    """

    user_id: UserId
    case_number: int
    queue: Queue
    conversion: Conversion
    agent_id: AgentId | None
    wanted_since: datetime | None


def entry_of(row: Sequence[Any]) -> Entry:
    """Return the entry in a row that begins with `COLUMNS`."""
    values = list(row[: len(COLUMNS)])
    for at, members in _MEMBERS:
        values[at] = members[values[at]]
    for at in _TUPLES:
        values[at] = tuple(values[at])
    return Entry._make(values)


def values_of(entry: Entry) -> list[Any]:
    """Return what the driver is given: flags as numbers, NULL for none.

    Flags are iterable, so the driver would take them for arrays.
    """
    values: list[Any] = list(entry)
    for at in _FLAGS:
        values[at] = int(values[at]) or None
    return values


M = TypeVar("M", bound=IntEnum)


def _members(kind: type[M]) -> dict[int | None, M | None]:
    """Return the members by number, and none for none; quicker than asking the enum."""
    return {None: None, **{int(it): it for it in kind}}


_QUEUES = _members(Queue)
_STATES = {int(it): it for it in State}
_REASONS = {str(it): it for it in Reason}
_HOLDS = _members(Hold)
_PHONE_BLOCKS = {number: PhoneBlock(number or 0) for number in (None, 0, 1, 2, 3)}
_BLOCKS = {number: ContactBlock(number or 0) for number in (None, *range(8))}
_OUTCOMES = _members(Outcome)
_MEMBERS: Sequence[tuple[int, Mapping[Any, Any]]] = tuple(
    (Entry._fields.index(name), members)
    for name, members in (
        ("eligible_queue", _QUEUES),
        ("eligible_reason", _REASONS),
        ("open_case_queue", _QUEUES),
        ("queue", _QUEUES),
        ("state", _STATES),
        ("reason", _REASONS),
        ("hold", _HOLDS),
        ("cap", _HOLDS),
        ("phone_block", _PHONE_BLOCKS),
        ("block", _BLOCKS),
        ("last_outcome", _OUTCOMES),
    )
)
_TUPLES = tuple(map(Entry._fields.index, ("phones", "lines")))
_FLAGS = tuple(map(Entry._fields.index, ("block", "phone_block")))


def differ_in_facts_alone(before: Entry, after: Entry) -> bool:
    """Return whether nothing but the facts' version, fingerprint and numbers differs."""
    return before[_FACTS:] == after[_FACTS:]


async def lock(tx: Transaction, user_ids: Sequence[UserId]) -> dict[UserId, Entry]:
    """Lock and return the entries of these people, in the order of their ids."""
    rows = await tx.execute(_LOCK, {"user_ids": list(user_ids)})
    return {it.user_id: it for it in map(entry_of, rows.all())}


_LOCK = statement(
    f"SELECT {COLUMN_NAMES} FROM queue.entries"  # noqa: S608 - our own column names
    " WHERE user_id = ANY(CAST(:user_ids AS bigint[])) ORDER BY user_id FOR UPDATE"
)


async def read(tx: Transaction, user_ids: Sequence[UserId]) -> dict[UserId, Entry]:
    """Return the entries of these people, without locking them."""
    rows = await tx.execute(_READ, {"user_ids": list(user_ids)})
    return {it.user_id: it for it in map(entry_of, rows.all())}


_READ = statement(
    f"SELECT {COLUMN_NAMES} FROM queue.entries"  # noqa: S608 - our own column names
    " WHERE user_id = ANY(CAST(:user_ids AS bigint[]))"
)


async def lock_sharers(
    tx: Transaction, user_ids: Sequence[UserId], lines: Sequence[str]
) -> dict[UserId, Entry]:
    """Lock and return these people and all people with one of the lines, in the order of ids.

    A line that is a placeholder is passed over: too many people have it.
    """
    rows = await tx.execute(_LOCK_SHARERS, {"user_ids": list(user_ids), "lines": list(lines)})
    return {it.user_id: it for it in map(entry_of, rows.all())}


# Whether the person in `kept` shares one of the lines.
IS_SHARER = """kept.phone_e164 = ANY({lines}) AND NOT EXISTS (
            SELECT FROM queue.placeholder_phones AS placeholder
            WHERE placeholder.phone_e164 = kept.phone_e164)"""
_LOCK_SHARERS = statement(
    f"""
    SELECT {COLUMN_NAMES} FROM queue.entries WHERE user_id = ANY(ARRAY(
        SELECT unnest(CAST(:user_ids AS bigint[]))
        UNION
        SELECT user_id FROM queue.person_phones AS kept
        WHERE {IS_SHARER.format(lines="CAST(:lines AS text[])")}
    )) ORDER BY user_id FOR UPDATE
    """  # noqa: S608 - our own column names
)


async def lines_of(tx: Transaction, user_id: UserId) -> list[str]:
    """Return the person's lines, none for an unknown person; no row is locked."""
    rows = await tx.execute(_LINES_OF, {"user_id": user_id})
    return list(rows.scalar_one_or_none() or ())


_LINES_OF = statement("SELECT lines FROM queue.entries WHERE user_id = :user_id")


async def insert(tx: Transaction, entries: Sequence[Entry]) -> None:
    """Add people who are not known; the caller guards them."""
    if entries:
        async with together(tx):
            await write(tx, INSERT, map(values_of, entries))
            await write(tx, _STALE_INSERTED)


# What an entry's writes return, for the writes that follow from them.
_RETURNED = f"entry.state_version, {columns_of('entry')}"
INSERT = Write(
    "inserted",
    COLUMNS,
    f"""
    INSERT INTO queue.entries AS entry ({COLUMN_NAMES}, state_version)
    SELECT {NEW_COLUMNS}, nextval('queue.state_version') FROM {{given}}
    RETURNING {_RETURNED}
    """,  # noqa: S608 - our own column names
)


async def update(
    tx: Transaction, entries: Sequence[Entry], state_version: int | None = None
) -> None:
    """Write locked entries as given, each with a new state version.

    `state_version` is one that was drawn while the entries were locked, for a single entry.
    """
    if entries:
        async with together(tx):
            await write(tx, UPDATE, ((*values_of(it), state_version) for it in entries))
            await write(tx, _STALE_UPDATED)


UPDATE = Write(
    "updated",
    (*COLUMNS, ("state_version", "bigint")),
    f"""
    UPDATE queue.entries AS entry
    SET {", ".join(f"{name} = given.{name}" for name, _ in COLUMNS[1:])},
        state_version = coalesce(given.state_version, nextval('queue.state_version'))
    FROM {{given}} WHERE entry.user_id = given.user_id
    RETURNING {_RETURNED}
    """,  # noqa: S608 - our own column names
)


def _stale(what: Write) -> Write:
    return Write(
        f"stale_{what.name}",
        (),
        "INSERT INTO queue.stale_call_states (user_id, state_version)"  # noqa: S608 - our own name
        f" SELECT user_id, state_version FROM {what.name}",
        after=(what,),
        wakes_dispatch=True,
    )


_STALE_INSERTED = _stale(INSERT)
_STALE_UPDATED = _stale(UPDATE)


async def update_facts(tx: Transaction, entries: Sequence[Entry]) -> None:
    """Write later facts of locked people that change nothing else; indexes stay untouched."""
    if entries:
        await write(tx, UPDATE_FACTS, (it[:_FACTS] for it in entries))


UPDATE_FACTS = Write(
    "facts_updated",
    _FACTS_COLUMNS,
    f"""
    UPDATE queue.entries AS entry
    SET {", ".join(f"{name} = given.{name}" for name, _ in _FACTS_COLUMNS[1:])}
    FROM {{given}} WHERE entry.user_id = given.user_id
    RETURNING {_RETURNED}
    """,  # noqa: S608 - our own column names
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
    ("case_number", "integer"),
    ("queue", "smallint"),
    ("conversion", "smallint"),
    ("agent_id", "text"),
    ("wanted_since", "timestamptz"),
)
_conversion_values = attrgetter(*(name for name, _ in _CONVERSION_COLUMNS))
_INSERT_CONVERSIONS = statement(
    f"""
    INSERT INTO queue.conversions ({names(_CONVERSION_COLUMNS)}, recorded_at)
    SELECT {names(_CONVERSION_COLUMNS)}, :now FROM {unnested(_CONVERSION_COLUMNS, "given")}
    ON CONFLICT (user_id, case_number) DO NOTHING
    RETURNING user_id
    """  # noqa: S608 - our own column names
)


async def credit_conversions(
    tx: Transaction, user_id: UserId, agent_id: AgentId, since: datetime, until: datetime
) -> None:
    """Credit the person's conversions of the time of a call to the agent who spoke."""
    await write(tx, _CREDIT, [(user_id, agent_id, since, until)])


_CREDIT = Write(
    "credited",
    (
        ("user_id", "bigint"),
        ("agent_id", "text"),
        ("since", "timestamptz"),
        ("until", "timestamptz"),
    ),
    """
    UPDATE queue.conversions AS conversion SET agent_id = given.agent_id FROM {given}
    WHERE conversion.user_id = given.user_id
        AND conversion.recorded_at BETWEEN given.since AND given.until
    """,
)


async def conversion_since(tx: Transaction, user_id: UserId, since: datetime) -> Conversion | None:
    """Return the person's latest conversion recorded since then."""
    rows = await tx.execute(_CONVERSION_SINCE, {"user_id": user_id, "since": since})
    found = rows.scalar_one_or_none()
    return None if found is None else Conversion(found)


def conversion_since_sql(since: str) -> str:
    """Return the SQL of the latest conversion of the person `:user_id` since then."""
    return (
        "SELECT conversion FROM queue.conversions"  # noqa: S608 - our own parameter
        f" WHERE user_id = :user_id AND recorded_at >= {since}"
        " ORDER BY recorded_at DESC, case_number DESC LIMIT 1"
    )


_CONVERSION_SINCE = statement(conversion_since_sql(":since"))


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


async def aged(
    tx: Transaction, now: datetime, put_off: Sequence[UserId], limit: int
) -> list[UserId]:
    """Return people who have reached an age at which their points change, without `put_off`.

    Nothing is locked.
    """
    rows = await tx.execute(_AGED, {"now": now, "put_off": list(put_off), "limit": limit})
    return [UserId(row[0]) for row in rows.all()]


_AGED = statement(
    "SELECT user_id FROM queue.entries WHERE age_points_until <= :now"
    " AND user_id <> ALL(CAST(:put_off AS bigint[]))"
    " ORDER BY age_points_until LIMIT :limit"
)


async def time_zones(tx: Transaction) -> list[str]:
    """Return the zones of people, other than the usual one."""
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
