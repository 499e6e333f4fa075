"""Statements of a rebuild: what it has read, against what is there."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, bindparam

from services.queue.domain.assessment import Assessment
from services.queue.domain.eligibility import Verdict
from services.queue.domain.entries import Entry
from services.queue.domain.terms import Queue, Reason, UserId
from services.queue.store.applied_facts import digest_of
from services.queue.store.database import Transaction, statement
from services.queue.store.entries import COLUMN_NAMES, COLUMNS, NEW_COLUMNS, entry_of


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of person ids, `after` left out and `through` included."""

    after: int
    through: int


async def begin(tx: Transaction) -> bool:
    """Be the only rebuild until the transaction ends; returns False while there is another."""
    return bool((await tx.execute(_TRY_GUARD)).scalar_one())


_TRY_GUARD = statement("SELECT pg_try_advisory_xact_lock(:rebuild)").bindparams(
    bindparam("rebuild", zlib.crc32(b"queue.rebuild"), BigInteger)
)


async def clear(tx: Transaction) -> None:
    """Forget what a rebuild has read."""
    await tx.execute(_CLEAR)


_CLEAR = statement("TRUNCATE queue.rebuilt_people, queue.rebuilt_entries")


async def forget_leftovers(tx: Transaction) -> int:
    """Forget what a rebuild that came to no end has read; return of how many people that was."""
    if not (await tx.execute(_COUNT)).scalar_one() or not await begin(tx):
        return 0
    # Another may have come to its end before it was ours to look.
    count = int((await tx.execute(_COUNT)).scalar_one())
    await clear(tx)
    return count


_COUNT = statement(
    "SELECT (SELECT count(*) FROM queue.rebuilt_people)"
    " + (SELECT count(*) FROM queue.rebuilt_entries)"
)


async def known_ids(tx: Transaction, page: Page) -> set[int]:
    """Return who of a stretch of ids is known."""
    rows = await tx.execute(_KNOWN_IDS, {"after": page.after, "through": page.through})
    return {row[0] for row in rows.all()}


_KNOWN_IDS = statement(
    "SELECT user_id FROM queue.entries WHERE user_id > :after AND user_id <= :through"
)


async def copy_people(tx: Transaction, people: Iterable[Assessment]) -> None:
    """Keep what was read of people who are known."""
    await _copy(tx, "rebuilt_people", _PEOPLE_COLUMNS, map(_person_values, people))


_PEOPLE_COLUMNS = (
    "user_id",
    "facts_version",
    "phone_e164",
    "time_zone",
    "eligible_queue",
    "eligible_reason",
    "owes",
    "matter",
    "has_signature",
    "lender_points",
    "age_points",
    "age_points_until",
    "claimed_at",
    "known_since",
)


def _person_values(it: Assessment) -> tuple[Any, ...]:
    verdict = it.verdict
    return (
        it.user_id,
        it.facts_version,
        it.phone_e164,
        it.time_zone,
        verdict.queue,
        verdict.reason,
        verdict.owes,
        verdict.matter,
        verdict.has_signature,
        it.lender_points,
        it.age_points,
        it.age_points_until,
        it.claimed_at,
        it.known_since,
    )


async def copy_entries(tx: Transaction, entries: Iterable[Entry]) -> None:
    """Keep the entries of people who are new."""
    await _copy(tx, "rebuilt_entries", tuple(name for name, _ in COLUMNS), entries)


async def _copy(
    tx: Transaction, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    connection = await tx.get_raw_connection()
    await connection.driver_connection.copy_records_to_table(  # type: ignore[union-attr]
        table, schema_name="queue", columns=columns, records=rows
    )


async def different(tx: Transaction, after: UserId, limit: int) -> list[Assessment]:
    """Return what was read of people whom it would change, by id from above `after`."""
    rows = await tx.execute(_DIFFERENT, {"after": after, "limit": limit})
    return [_assessment_of(row) for row in rows.all()]


def _assessment_of(row: Sequence[Any]) -> Assessment:
    verdict = Verdict(
        queue=None if row[4] is None else Queue(row[4]),
        reason=Reason(row[5]),
        owes=None if row[6] is None else Queue(row[6]),
        matter=Reason(row[7]),
        has_signature=row[8],
    )
    return Assessment(
        user_id=UserId(row[0]),
        facts_version=row[1],
        fingerprint=0,
        phone_e164=row[2],
        time_zone=row[3],
        verdict=verdict,
        lender_points=row[9],
        age_points=row[10],
        age_points_until=row[11],
        claimed_at=row[12],
        known_since=row[13],
    )


_WHERE_DIFFERENT = """entry.facts_version < found.facts_version AND (
            entry.eligible_queue IS DISTINCT FROM found.eligible_queue
            OR entry.eligible_reason <> found.eligible_reason
            OR entry.owes IS DISTINCT FROM found.owes
            OR entry.lender_points <> found.lender_points
            OR entry.age_points <> found.age_points
            OR entry.age_points_until IS DISTINCT FROM found.age_points_until
            OR entry.claimed_at IS DISTINCT FROM found.claimed_at
            OR (found.phone_e164 IS NOT NULL AND (
                entry.phone_e164 IS DISTINCT FROM found.phone_e164
                OR entry.time_zone IS DISTINCT FROM found.time_zone)))"""
_DIFFERENT = statement(
    f"""
    SELECT {", ".join(f"found.{name}" for name in _PEOPLE_COLUMNS)}
    FROM queue.rebuilt_people AS found JOIN queue.entries AS entry USING (user_id)
    WHERE found.user_id > :after AND {_WHERE_DIFFERENT}
    ORDER BY found.user_id LIMIT :limit
    """  # noqa: S608 - our own column names
)


async def gone(tx: Transaction, page: Page, after: UserId, limit: int) -> list[UserId]:
    """Return people of a stretch of ids who were not found in the main app, though they should."""
    values = {
        "from": max(page.after, after),
        "through": page.through,
        "limit": limit,
        "not_found": Reason.USER_NOT_FOUND,
    }
    return [UserId(row[0]) for row in (await tx.execute(_GONE, values)).all()]


_GONE = statement(
    """
    SELECT entry.user_id FROM queue.entries AS entry
    WHERE entry.user_id > :from AND entry.user_id <= :through
        AND entry.eligible_reason <> :not_found
        AND NOT EXISTS (SELECT FROM queue.rebuilt_people AS found
            WHERE found.user_id = entry.user_id)
        AND NOT EXISTS (SELECT FROM queue.rebuilt_entries AS new
            WHERE new.user_id = entry.user_id)
    ORDER BY entry.user_id LIMIT :limit
    """
)


async def insert_new(tx: Transaction) -> int:
    """Add everybody who is new at once; those added meanwhile are left as they are.

    The call states of people nobody has asked for yet are not told of: there is no copy of them.
    """
    return int((await tx.execute(_INSERT_NEW)).scalar_one())


_INSERT_NEW = statement(
    f"""
    WITH added AS (
        INSERT INTO queue.entries ({COLUMN_NAMES}, state_version)
        SELECT {NEW_COLUMNS}, nextval('queue.state_version') FROM queue.rebuilt_entries AS given
        ORDER BY given.queue, given.rank_key, given.user_id
        ON CONFLICT DO NOTHING
        RETURNING user_id, state_version, owes, stay,
            {digest_of("entries", "NULL::bytea")} AS digest
    ), noted AS (
        INSERT INTO queue.applied_facts (user_id, digest, owes, stay)
        SELECT user_id, digest, owes, stay FROM added
        ON CONFLICT (user_id) DO UPDATE
        SET row_fingerprints = NULL, digest = EXCLUDED.digest, owes = EXCLUDED.owes,
            stay = EXCLUDED.stay, absent_since = NULL
    ), told AS (
        INSERT INTO queue.stale_call_states (user_id, state_version)
        SELECT user_id, state_version FROM added
    )
    SELECT count(*) FROM added
    """  # noqa: S608 - our own column names
)


async def new_with_known_number(tx: Transaction, called_since: datetime) -> list[UserId]:
    """Return the new people whose number is suppressed, listed, or was called since then."""
    rows = await tx.execute(_NEW_WITH_KNOWN_NUMBER, {"called_since": called_since})
    return [UserId(row[0]) for row in rows.all()]


_NEW_WITH_KNOWN_NUMBER = statement(
    """
    SELECT new.user_id FROM queue.rebuilt_entries AS new
    WHERE new.phone_e164 IN (SELECT phone_e164 FROM queue.listed_phones)
        OR new.phone_e164 IN (SELECT phone_e164 FROM queue.suppressions WHERE lifted_at IS NULL)
        OR new.phone_e164 IN (SELECT phone_e164 FROM queue.attempts WHERE ended_at > :called_since)
    ORDER BY new.user_id
    """
)


async def lock_page(tx: Transaction, after: UserId, limit: int) -> list[Entry]:
    """Lock and return people by id from above `after`."""
    rows = await tx.execute(_LOCK_PAGE, {"after": after, "limit": limit})
    return [entry_of(row) for row in rows.all()]


_LOCK_PAGE = statement(
    f"SELECT {COLUMN_NAMES} FROM queue.entries WHERE user_id > :after"  # noqa: S608 - our own
    " ORDER BY user_id LIMIT :limit FOR UPDATE"
)
