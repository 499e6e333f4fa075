"""Statements on lists of phone numbers that must not be called, and on their editions.

An edition is the content of one import. It is LOADING while its numbers are added, without effect;
CURRENT from one short transaction on; RETIRED when another has replaced it, or when its import was
cut off. A list in force is all its current editions: a complete one and later additions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from services.queue.domain.phone_lists import CurrentEdition
from services.queue.store.database import Transaction, statement
from services.queue.types import EditionState, PhoneBlock, UserId

_LOADING = int(EditionState.LOADING)
_CURRENT = int(EditionState.CURRENT)
_RETIRED = int(EditionState.RETIRED)
_LISTED = int(PhoneBlock.LISTED)


def is_listed(phone: str, list_name: str | None = None) -> str:
    """Return the SQL of whether a number is on a list in force; false for NULL.

    `phone` is the SQL of one number, `list_name` that of the only list to look at. Two look-ups by
    primary key for each number, whatever the statistics say: OFFSET 0 keeps PostgreSQL from joining
    all numbers of all lists, and an edition is looked up by itself for the same reason.
    """
    only = "" if list_name is None else f" AND edition.list_name = {list_name}"
    return _is_on_edition(phone, f"edition.state = {_CURRENT}{only}")


def _is_on_edition(phone: str, condition: str) -> str:
    return f"""EXISTS (SELECT FROM queue.list_numbers AS listed
        WHERE listed.phone_e164 = {phone}
            AND (SELECT {condition}
                FROM queue.phone_list_editions AS edition
                WHERE edition.edition_id = listed.edition_id)
        OFFSET 0)"""  # noqa: S608 - our own numbers


def is_any_listed(lines: str) -> str:
    """Return the SQL of whether any number of an array is on a list in force."""
    return f"""EXISTS (SELECT FROM unnest({lines}) AS its(phone_e164)
        WHERE {is_listed("its.phone_e164")})"""


async def begin(
    tx: Transaction,
    list_name: str,
    actor_id: str,
    *,
    is_complete: bool,
    dated_on: date | None,
    source: str,
    now: datetime,
    idle_since: datetime,
) -> int | None:
    """Begin an edition and return its id; None while another of that list is loading.

    An edition that has loaded nothing since `idle_since` is retired: its import was cut off.
    """
    await tx.execute(_RETIRE_IDLE_OF_LIST, {"list_name": list_name, "idle_since": idle_since})
    values = {
        "list_name": list_name,
        "actor_id": actor_id,
        "is_complete": is_complete,
        "dated_on": dated_on,
        "source": source or None,
        "now": now,
    }
    edition_id: int | None = (await tx.execute(_BEGIN, values)).scalar_one_or_none()
    return edition_id


_RETIRE_IDLE = (
    f"UPDATE queue.phone_list_editions SET state = {_RETIRED}"  # noqa: S608 - our own numbers
    f" WHERE state = {_LOADING} AND loaded_through_at < :idle_since"
)
_RETIRE_IDLE_OF_LIST = statement(f"{_RETIRE_IDLE} AND list_name = :list_name")
_BEGIN = statement(
    f"""
    INSERT INTO queue.phone_list_editions
        (list_name, state, actor_id, began_at, loaded_through_at, numbers, is_complete, is_placed,
        dated_on, source)
    VALUES (:list_name, {_LOADING}, :actor_id, :now, :now, 0, :is_complete, false,
        CAST(:dated_on AS date), :source)
    ON CONFLICT (list_name) WHERE state = {_LOADING} DO NOTHING
    RETURNING edition_id
    """  # noqa: S608 - our own numbers
)


class Loaded(NamedTuple):
    """How many numbers were added to an edition, and how many of them are on the list in force."""

    numbers: int
    known: int


async def load(
    tx: Transaction, edition_id: int, list_name: str, phones: Sequence[str], now: datetime
) -> Loaded | None:
    """Add numbers to an edition; repeats count once. None if it is no longer loading.

    An edition that is not complete takes only numbers that are not on its list. The commit is
    asynchronous: the commit that puts the edition in force makes all before it durable.
    """
    values = {"edition_id": edition_id, "list_name": list_name, "phones": list(phones), "now": now}
    row = (await tx.execute(_LOAD, values)).one_or_none()
    return None if row is None else Loaded(row[0], row[1])


# The edition is locked so that nothing comes into one that is being retired.
_LOAD = statement(
    f"""
    WITH edition AS MATERIALIZED (
        SELECT edition_id, is_complete FROM queue.phone_list_editions
        WHERE edition_id = :edition_id AND state = {_LOADING} FOR UPDATE
    ), added AS (
        INSERT INTO queue.list_numbers (phone_e164, edition_id)
        SELECT given.phone_e164, edition.edition_id
        FROM unnest(CAST(:phones AS text[])) AS given(phone_e164) CROSS JOIN edition
        WHERE edition.is_complete OR NOT {is_listed("given.phone_e164", ":list_name")}
        ON CONFLICT DO NOTHING
        RETURNING phone_e164
    ), counted AS MATERIALIZED (
        SELECT count(*) AS numbers,
            count(*) FILTER (WHERE {is_listed("added.phone_e164", ":list_name")}) AS known
        FROM added
    )
    UPDATE queue.phone_list_editions AS loading
    SET numbers = loading.numbers + counted.numbers, loaded_through_at = :now
    FROM counted CROSS JOIN edition WHERE loading.edition_id = edition.edition_id
    RETURNING counted.numbers, counted.known, set_config('synchronous_commit', 'off', true)
    """  # noqa: S608 - our own numbers
)


async def count(tx: Transaction, list_name: str) -> int:
    """Return how many numbers a list in force has; its editions share none."""
    return int((await tx.execute(_COUNT, {"list_name": list_name})).scalar_one())


_COUNT = statement(
    "SELECT coalesce(sum(numbers), 0) FROM queue.phone_list_editions"  # noqa: S608 - our own
    f" WHERE list_name = :list_name AND state = {_CURRENT}"
)


async def in_force(tx: Transaction) -> list[CurrentEdition]:
    """Return every edition in force, by its list's name, the oldest first."""
    return [CurrentEdition(*row) for row in (await tx.execute(_IN_FORCE)).all()]


_IN_FORCE = statement(
    f"""
    SELECT edition_id, list_name, actor_id, is_complete, numbers, became_current_at, dated_on,
        source
    FROM queue.phone_list_editions WHERE state = {_CURRENT} ORDER BY list_name, edition_id
    """  # noqa: S608 - our own numbers
)


async def put_in_force(
    tx: Transaction, edition_id: int, list_name: str, *, is_complete: bool, now: datetime
) -> bool:
    """Make a loaded edition current, in place of all others of its list if it is complete.

    False if it is no longer loading; then nothing may be committed.
    """
    if is_complete:
        await tx.execute(_RETIRE_CURRENT, {"list_name": list_name})
    rows = await tx.execute(_MAKE_CURRENT, {"edition_id": edition_id, "now": now})
    return rows.one_or_none() is not None


_RETIRE_CURRENT = statement(
    f"UPDATE queue.phone_list_editions SET state = {_RETIRED}"  # noqa: S608 - our own numbers
    f" WHERE list_name = :list_name AND state = {_CURRENT}"
)
_MAKE_CURRENT = statement(
    f"UPDATE queue.phone_list_editions SET state = {_CURRENT}, became_current_at = :now"  # noqa: S608
    f" WHERE edition_id = :edition_id AND state = {_LOADING} RETURNING 1"
)


async def abandon(tx: Transaction, edition_id: int) -> None:
    """Retire an edition whose import has failed; one in force stays."""
    await tx.execute(_ABANDON, {"edition_id": edition_id})


_ABANDON = statement(
    f"UPDATE queue.phone_list_editions SET state = {_RETIRED}"  # noqa: S608 - our own numbers
    f" WHERE edition_id = :edition_id AND state = {_LOADING}"
)


async def retire_idle(tx: Transaction, idle_since: datetime) -> None:
    """Retire every loading edition that has loaded nothing since then."""
    await tx.execute(_RETIRE_IDLE_OF_ALL, {"idle_since": idle_since})


_RETIRE_IDLE_OF_ALL = statement(_RETIRE_IDLE)


async def unplaced(tx: Transaction, current_since: datetime) -> list[int]:
    """Return editions in force since before then whose people have not all been placed."""
    rows = await tx.execute(_UNPLACED, {"current_since": current_since})
    return [row[0] for row in rows.all()]


_UNPLACED = statement(
    "SELECT edition_id FROM queue.phone_list_editions"  # noqa: S608 - our own numbers
    f" WHERE state = {_CURRENT} AND NOT is_placed AND became_current_at < :current_since"
)


async def mark_placed(tx: Transaction, edition_ids: Sequence[int]) -> None:
    """Note that all people are placed by these editions."""
    await tx.execute(_MARK_PLACED, {"edition_ids": list(edition_ids)})


_MARK_PLACED = statement(
    "UPDATE queue.phone_list_editions SET is_placed = true"
    " WHERE edition_id = ANY(CAST(:edition_ids AS bigint[]))"
)


@dataclass(frozen=True, slots=True)
class Misplaced:
    """People of a page whose entries disagree with the lists; `through` is None at the end."""

    user_ids: Sequence[UserId]
    through: UserId | None


async def misplaced(tx: Transaction, after: UserId, limit: int) -> Misplaced:
    """Compare the first people above `after` with the lists in force; nothing is locked."""
    row = (await tx.execute(_MISPLACED, {"after": after, "limit": limit})).one()
    through = None if row[1] is None else UserId(row[1])
    return Misplaced([UserId(it) for it in row[0]], through)


_MISPLACED = statement(
    f"""
    WITH page AS MATERIALIZED (
        SELECT user_id, lines, coalesce(phone_block, 0) & {_LISTED} <> 0 AS has_block
        FROM queue.entries
        WHERE user_id > :after ORDER BY user_id LIMIT :limit
    )
    SELECT coalesce(array_agg(user_id ORDER BY user_id) FILTER (
            WHERE {is_any_listed("page.lines")} <> has_block), '{{}}'),
        max(user_id)
    FROM page
    """  # noqa: S608 - our own numbers
)


@dataclass(frozen=True, slots=True)
class WouldMove:
    """What an edition would do to people of a page; `through` is None at the end."""

    suppressed: int
    released: int
    through: UserId | None


async def would_move(
    tx: Transaction,
    edition_id: int,
    list_name: str,
    *,
    is_complete: bool,
    after: UserId,
    limit: int,
) -> WouldMove:
    """Count whom a loading edition would stop calls to, and to whom they would be possible again.

    Looks at the first people above `after`; nothing is locked.
    """
    values = {
        "edition_id": edition_id,
        "list_name": list_name,
        "is_complete": is_complete,
        "after": after,
        "limit": limit,
    }
    row = (await tx.execute(_WOULD_MOVE, values)).one()
    return WouldMove(row[0], row[1], None if row[2] is None else UserId(row[2]))


_AS_IF_IN_FORCE = f"""edition.edition_id = :edition_id OR edition.state = {_CURRENT}
    AND NOT (:is_complete AND edition.list_name = :list_name)"""
_WOULD_MOVE = statement(
    f"""
    WITH page AS MATERIALIZED (
        SELECT user_id, lines, coalesce(phone_block, 0) AS phone_block
        FROM queue.entries
        WHERE user_id > :after ORDER BY user_id LIMIT :limit
    ), looked AS (
        SELECT user_id, phone_block <> 0 AS was, (phone_block & ~{_LISTED}) <> 0
            OR EXISTS (SELECT FROM unnest(page.lines) AS its(phone_e164)
                WHERE {_is_on_edition("its.phone_e164", _AS_IF_IN_FORCE)}) AS would_be
        FROM page
    )
    SELECT count(*) FILTER (WHERE would_be AND NOT was),
        count(*) FILTER (WHERE was AND NOT would_be), max(user_id)
    FROM looked
    """  # noqa: S608 - our own numbers
)


async def retired(tx: Transaction) -> list[int]:
    """Return the retired editions."""
    return [row[0] for row in (await tx.execute(_RETIRED_EDITIONS)).all()]


_RETIRED_EDITIONS = statement(
    f"SELECT edition_id FROM queue.phone_list_editions WHERE state = {_RETIRED}"  # noqa: S608
)


class Swept(NamedTuple):
    """How many numbers were deleted; `through` is the last one looked at, None at the end."""

    deleted: int
    through: str | None


async def delete_retired_numbers(tx: Transaction, after: str, limit: int) -> Swept:
    """Delete, of `limit` numbers above `after`, those of no edition loading or in force."""
    row = (await tx.execute(_DELETE_RETIRED, {"after": after, "limit": limit})).one()
    return Swept(row[0], row[1])


# By number, since an index by edition would cost every import: so nothing is visited twice, and
# replicas that run at the same time lock in one order.
_DELETE_RETIRED = statement(
    f"""
    WITH page AS MATERIALIZED (
        SELECT phone_e164 FROM queue.list_numbers
        WHERE phone_e164 > :after ORDER BY phone_e164 LIMIT :limit
    ), old AS MATERIALIZED (
        SELECT listed.phone_e164, listed.edition_id FROM queue.list_numbers AS listed
        WHERE listed.phone_e164 > :after
            AND listed.phone_e164 <= (SELECT max(phone_e164) FROM page)
            AND (SELECT edition.state <> {_RETIRED} FROM queue.phone_list_editions AS edition
                WHERE edition.edition_id = listed.edition_id) IS NOT TRUE
        ORDER BY listed.phone_e164, listed.edition_id FOR UPDATE
    ), gone AS (
        DELETE FROM queue.list_numbers AS listed USING old
        WHERE listed.phone_e164 = old.phone_e164 AND listed.edition_id = old.edition_id
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone), (SELECT max(phone_e164) FROM page)
    """  # noqa: S608 - our own numbers
)


async def delete_editions(tx: Transaction, edition_ids: Sequence[int]) -> None:
    """Delete retired editions whose numbers are deleted."""
    await tx.execute(_DELETE_EDITIONS, {"edition_ids": list(edition_ids)})


_DELETE_EDITIONS = statement(
    "DELETE FROM queue.phone_list_editions"  # noqa: S608 - our own numbers
    f" WHERE state = {_RETIRED} AND edition_id = ANY(CAST(:edition_ids AS bigint[]))"
)
