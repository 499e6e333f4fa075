"""Statements of a rebuild: staging what it has read, and comparing that with the entries."""

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from servicekit.database import asyncpg_connection
from services.queue.domain.assessment import Assessment
from services.queue.domain.eligibility import EligibilityVerdict
from services.queue.domain.entries import Entry
from services.queue.store.applied_facts import digest_of
from services.queue.store.database import Transaction, statement, wake_dispatch
from services.queue.store.entries import COLUMN_NAMES, COLUMNS, NEW_COLUMNS, entry_of
from services.queue.store.phone_lists import is_listed
from services.queue.types import Queue, Reason, State, UserId


@dataclass(frozen=True, slots=True)
class RebuildRun:
    """A rebuild, and the PostgreSQL process that holds its guard."""

    run_id: UUID
    guard_pid: int


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of person ids, `after` left out and `through` included."""

    after: int
    through: int


@dataclass(frozen=True, slots=True)
class RebuildProgress:
    """A rebuild's progress; `phase` is the number of the contract's RebuildPhase."""

    phase: int
    people_read: int = 0
    people_new: int = 0
    people_different: int = 0
    people_written: int = 0
    conversions: int = 0
    through_user_id: int = 0
    last_user_id: int = 0


# The advisory lock of the one rebuild there is at a time.
GUARD = zlib.crc32(b"queue.rebuild")
_FIGURES = tuple(it.name for it in fields(RebuildProgress))
_IS_GUARDED = f"""EXISTS (
        SELECT FROM pg_locks AS held
        WHERE held.locktype = 'advisory' AND held.granted AND held.pid = :pid
            AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND held.classid = 0 AND held.objid = {GUARD} AND held.objsubid = 1)"""  # noqa: S608 - our own


async def begin(
    tx: Transaction, run: RebuildRun, actor_id: str, figures: RebuildProgress, now: datetime
) -> bool:
    """Begin a rebuild in place of any other.

    Waits for the other's transaction, whose next `hold` then fails. Returns False when the guard is
    not held.
    """
    await tx.execute(_DELETE_RUNS)
    values = {"run_id": run.run_id, "pid": run.guard_pid, "actor_id": actor_id, "now": now}
    rows = await tx.execute(_BEGIN, values | asdict(figures))
    return rows.one_or_none() is not None


_BEGIN = statement(
    f"""
    INSERT INTO queue.rebuild_runs (run_id, guard_pid, actor_id, began_at, {", ".join(_FIGURES)})
    SELECT CAST(:run_id AS uuid), CAST(:pid AS integer), CAST(:actor_id AS text),
        CAST(:now AS timestamptz), {", ".join(f"CAST(:{name} AS bigint)" for name in _FIGURES)}
    WHERE {_IS_GUARDED}
    RETURNING 1
    """
)


async def hold(tx: Transaction, run: RebuildRun, figures: RebuildProgress) -> bool:
    """Write the progress, and keep what is staged until the transaction ends.

    Returns False when another rebuild has begun, which deletes what was staged, or when the guard
    is no longer held.
    """
    values = {"run_id": run.run_id, "pid": run.guard_pid}
    return (await tx.execute(_HOLD, values | asdict(figures))).one_or_none() is not None


_HOLD = statement(
    f"""
    UPDATE queue.rebuild_runs SET {", ".join(f"{name} = :{name}" for name in _FIGURES)}
    WHERE run_id = :run_id AND {_IS_GUARDED}
    RETURNING 1
    """  # noqa: S608 - our own names and numbers
)


async def clear(tx: Transaction) -> None:
    """Delete every rebuild and what it has staged; raises Contention while that is being read.

    Waits for a rebuild that is writing, whose next `hold` then fails, but not for a backup.
    """
    # The row first: a rebuild that is writing has locked it, and reads what is staged.
    await tx.execute(_DELETE_RUNS)
    await tx.execute(_SET_LOCK_TIMEOUT)
    await tx.execute(_TRUNCATE)


_DELETE_RUNS = statement("DELETE FROM queue.rebuild_runs")
_SET_LOCK_TIMEOUT = statement("SET LOCAL lock_timeout = '500ms'")
_TRUNCATE = statement("TRUNCATE queue.rebuilt_people, queue.rebuilt_entries")


async def clear_leftovers(tx: Transaction) -> int:
    """Delete what a rebuild that did not finish has staged; returns how many people that was.

    Does nothing while a rebuild holds the guard.
    """
    is_left = (await tx.execute(_IS_LEFT)).scalar_one()
    if not is_left or not (await tx.execute(_TRY_GUARD)).scalar_one():
        return 0
    count = int((await tx.execute(_COUNT)).scalar_one())
    await clear(tx)
    return count


_IS_LEFT = statement(
    "SELECT EXISTS (SELECT FROM queue.rebuild_runs) OR EXISTS (SELECT FROM queue.rebuilt_people)"
    " OR EXISTS (SELECT FROM queue.rebuilt_entries)"
)
_TRY_GUARD = statement(f"SELECT pg_try_advisory_xact_lock({GUARD})")
_COUNT = statement(
    "SELECT (SELECT count(*) FROM queue.rebuilt_people)"
    " + (SELECT count(*) FROM queue.rebuilt_entries)"
)


async def known_among(tx: Transaction, first: UserId, last: UserId) -> set[int]:
    """Return the ids from `first` to `last`, both included, of known people."""
    rows = await tx.execute(_KNOWN_AMONG, {"first": first, "last": last})
    return {row[0] for row in rows.all()}


_KNOWN_AMONG = statement("SELECT user_id FROM queue.entries WHERE user_id BETWEEN :first AND :last")


async def staged(tx: Transaction, run: RebuildRun, page: Page) -> int:
    """Return how many people of a page are staged."""
    return int((await tx.execute(_STAGED, _place(run, page))).scalar_one())


def _place(run: RebuildRun, page: Page) -> dict[str, Any]:
    return {"run_id": run.run_id, "after": page.after, "through": page.through}


_IN_PAGE = "run_id = :run_id AND user_id > :after AND user_id <= :through"
_STAGED = statement(
    f"SELECT (SELECT count(*) FROM queue.rebuilt_people WHERE {_IN_PAGE})"  # noqa: S608 - our own
    f" + (SELECT count(*) FROM queue.rebuilt_entries WHERE {_IN_PAGE})"
)


async def copy_people(tx: Transaction, run: RebuildRun, people: Iterable[Assessment]) -> None:
    """Stage what was read of known people."""
    await _copy(tx, run, "rebuilt_people", tuple(_PERSON), map(_person_values, people))


# The columns of a person who was read, by the attribute of the assessment that each holds.
_PERSON = {
    "user_id": "user_id",
    "facts_version": "facts_version",
    "phones": "phones",
    "time_zone": "time_zone",
    "eligible_queue": "verdict.queue",
    "eligible_reason": "verdict.reason",
    "open_case_queue": "verdict.open_case_queue",
    "case_reason": "verdict.case_reason",
    "has_signature": "verdict.has_signature",
    "lender_points": "lender_points",
    "age_points": "age_points",
    "age_points_until": "age_points_until",
    "claimed_at": "claimed_at",
    "known_since": "known_since",
}
_person_values = attrgetter(*_PERSON.values())


async def copy_entries(tx: Transaction, run: RebuildRun, entries: Iterable[Entry]) -> None:
    """Stage the entries of new people, placed without regard to their contact status."""
    await _copy(tx, run, "rebuilt_entries", STAGED_COLUMNS, map(_staged_values, entries))


# Columns that calls, callbacks and the contact status fill: NULL of a person who is new.
EMPTY_WHEN_NEW = frozenset(
    {
        *("capped_until", "cap", "phone_free_at", "phone_block", "block"),
        *("callback_id", "callback_at", "callback_agent_id", "kept_until"),
        *("last_outcome", "last_contact_at", "last_agent_id", "last_spoken_at"),
        *("agent_id", "assignment_id", "reserved_by", "reserved_until"),
    }
)
STAGED_COLUMNS = tuple(name for name, _ in COLUMNS if name not in EMPTY_WHEN_NEW)
_staged_values = attrgetter(*STAGED_COLUMNS)


async def _copy(
    tx: Transaction,
    run: RebuildRun,
    table: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    async with asyncpg_connection(tx) as session:
        await session.copy_records_to_table(
            table,
            schema_name="queue",
            columns=("run_id", *columns),
            records=((run.run_id, *row) for row in rows),
        )


async def analyse(tx: Transaction) -> None:
    """Gather statistics of what is staged, from a sample: PostgreSQL has none of a new run."""
    await tx.execute(_ANALYSE)


# Only of columns that statements choose by: the others would double the cost.
_ANALYSE = statement(
    "ANALYZE queue.rebuilt_people (run_id, user_id),"
    " queue.rebuilt_entries (run_id, user_id, state, queue, rank_key)"
)


async def different(
    tx: Transaction, run: RebuildRun, page: Page, after: UserId, limit: int
) -> list[Assessment]:
    """Return what was read of people of a page whose entries differ, by id from above `after`."""
    values = _place(run, page) | {"after": max(page.after, after), "limit": limit}
    rows = await tx.execute(_DIFFERENT, values)
    return [
        Assessment(
            user_id=UserId(row.user_id),
            facts_version=row.facts_version,
            fingerprint=0,
            phones=tuple(row.phones),
            time_zone=row.time_zone,
            verdict=EligibilityVerdict(
                queue=None if row.eligible_queue is None else Queue(row.eligible_queue),
                reason=Reason(row.eligible_reason),
                open_case_queue=None if row.open_case_queue is None else Queue(row.open_case_queue),
                case_reason=Reason(row.case_reason),
                has_signature=row.has_signature,
            ),
            lender_points=row.lender_points,
            age_points=row.age_points,
            age_points_until=row.age_points_until,
            claimed_at=row.claimed_at,
            known_since=row.known_since,
        )
        for row in rows.all()
    ]


_WHERE_DIFFERENT = """entry.facts_version < found.facts_version AND (
            entry.eligible_queue IS DISTINCT FROM found.eligible_queue
            OR entry.eligible_reason <> found.eligible_reason
            OR entry.open_case_queue IS DISTINCT FROM found.open_case_queue
            OR entry.lender_points <> found.lender_points
            OR entry.age_points <> found.age_points
            OR entry.age_points_until IS DISTINCT FROM found.age_points_until
            OR entry.claimed_at IS DISTINCT FROM found.claimed_at
            OR entry.phones <> found.phones
            OR entry.time_zone IS DISTINCT FROM found.time_zone)"""
_DIFFERENT = statement(
    f"""
    SELECT {", ".join(f"found.{name}" for name in _PERSON)}
    FROM queue.rebuilt_people AS found JOIN queue.entries AS entry USING (user_id)
    WHERE found.run_id = :run_id AND found.user_id > :after AND found.user_id <= :through
        AND entry.user_id > :after AND entry.user_id <= :through AND {_WHERE_DIFFERENT}
    ORDER BY found.user_id LIMIT :limit
    """  # noqa: S608 - our own column names
)


@dataclass(frozen=True, slots=True)
class Absence:
    """People of a stretch of ids whom the main app no longer has, and how many it had.

    `through` is the last id of the stretch, None at the end of the page.
    """

    gone: list[UserId]
    present: int
    through: UserId | None


async def absence(
    tx: Transaction, run: RebuildRun, page: Page, version: int, after: UserId, limit: int
) -> Absence:
    """Look at up to `limit` people of a page, by id from above `after`.

    People to whom a later reading than `version` was applied do not count as gone.
    """
    values = _place(run, page) | {
        "after": max(page.after, after),
        "version": version,
        "limit": limit,
        "not_found": Reason.USER_NOT_FOUND,
    }
    gone, present, seen, through = (await tx.execute(_ABSENCE, values)).one()
    return Absence([UserId(it) for it in gone], present, UserId(through) if seen == limit else None)


_ABSENCE = statement(
    """
    WITH stretch AS MATERIALIZED (
        SELECT user_id, facts_version, eligible_reason FROM queue.entries
        WHERE user_id > :after AND user_id <= :through ORDER BY user_id LIMIT :limit
    ), gone AS (
        SELECT entry.user_id FROM stretch AS entry
        WHERE entry.facts_version < :version AND entry.eligible_reason <> :not_found
            AND NOT EXISTS (SELECT FROM queue.rebuilt_people AS found
                WHERE found.run_id = :run_id AND found.user_id = entry.user_id
                    AND found.user_id > :after AND found.user_id <= :through)
            AND NOT EXISTS (SELECT FROM queue.rebuilt_entries AS new
                WHERE new.run_id = :run_id AND new.user_id = entry.user_id
                    AND new.user_id > :after AND new.user_id <= :through)
    )
    SELECT ARRAY(SELECT user_id FROM gone ORDER BY user_id),
        count(*) FILTER (WHERE eligible_reason <> :not_found), count(*), max(user_id)
    FROM stretch
    """
)


class RankPosition(NamedTuple):
    """A position in a queue: a higher key, or the same key and a lower id, comes after it."""

    rank_key: float = -math.inf
    user_id: UserId = UserId(2**63 - 1)


async def ready_after(
    tx: Transaction, run: RebuildRun, queue: Queue, after: RankPosition, limit: int
) -> list[RankPosition]:
    """Return new people who are ready in a queue, in the order of handing out."""
    values = {"run_id": run.run_id, "queue": queue, "limit": limit, **after._asdict()}
    return [RankPosition(*row) for row in (await tx.execute(_READY_AFTER, values)).all()]


# In two parts, each of which is read from an index in order: many people who were imported together
# may have one key.
_READY = f"""SELECT rank_key, user_id FROM queue.rebuilt_entries
        WHERE run_id = :run_id AND state = {int(State.READY)} AND queue = :queue"""  # noqa: S608
_READY_AFTER = statement(
    f"""
    (
        {_READY} AND rank_key = :rank_key AND user_id < :user_id
        ORDER BY user_id DESC LIMIT :limit
    ) UNION ALL (
        {_READY} AND rank_key > :rank_key
        ORDER BY rank_key, user_id DESC LIMIT :limit
    )
    ORDER BY rank_key, user_id DESC LIMIT :limit
    """
)


async def not_ready(tx: Transaction, run: RebuildRun, page: Page) -> list[UserId]:
    """Return the new people of a page who are not ready, by id."""
    return [UserId(row[0]) for row in (await tx.execute(_NOT_READY, _place(run, page))).all()]


_NOT_READY = statement(
    f"SELECT user_id FROM queue.rebuilt_entries WHERE {_IN_PAGE}"  # noqa: S608 - our own
    f" AND state <> {int(State.READY)} ORDER BY user_id"
)


async def insert_new(
    tx: Transaction, run: RebuildRun, user_ids: Sequence[UserId], now: datetime
) -> int:
    """Add new people as they are staged; people added meanwhile are left as they are.

    The end of a person's claims is noted as of `now`, unless the main app does not let the person
    be contacted: then it is noted when that changes.
    """
    values = {"run_id": run.run_id, "user_ids": list(user_ids), "now": now}
    added = int((await tx.execute(_INSERT_NEW, values)).scalar_one())
    wake_dispatch(tx)
    return added


_NO_OPEN_CLAIM = f"'{Reason.CLAIMS_ENDED}', '{Reason.NO_CLAIMS}'"
_INSERT_NEW = statement(
    f"""
    WITH added AS (
        INSERT INTO queue.entries ({COLUMN_NAMES}, state_version)
        SELECT {NEW_COLUMNS}, nextval('queue.state_version') FROM queue.rebuilt_entries AS given
        WHERE given.run_id = :run_id AND given.user_id = ANY(CAST(:user_ids AS bigint[]))
        ORDER BY given.queue, given.rank_key, given.user_id
        ON CONFLICT DO NOTHING
        RETURNING user_id, state_version, phones, eligible_reason, open_case_queue, case_number,
            {digest_of("entries", "NULL::bytea")} AS digest
    ), numbers AS (
        INSERT INTO queue.person_phones (phone_e164, user_id)
        SELECT unnest(phones), user_id FROM added
        ON CONFLICT DO NOTHING
    ), noted AS (
        INSERT INTO queue.applied_facts AS known
            (user_id, digest, open_case_queue, case_number, ended_since)
        SELECT user_id, digest, open_case_queue, case_number,
            CASE WHEN eligible_reason IN ({_NO_OPEN_CLAIM}) THEN CAST(:now AS timestamptz) END
        FROM added
        ON CONFLICT (user_id) DO UPDATE
        SET row_fingerprints = NULL, digest = EXCLUDED.digest,
            open_case_queue = EXCLUDED.open_case_queue, case_number = EXCLUDED.case_number,
            absent_since = NULL,
            ended_since = CASE WHEN EXCLUDED.ended_since IS NOT NULL
                THEN coalesce(known.ended_since, EXCLUDED.ended_since) END
    ), notified AS (
        INSERT INTO queue.stale_call_states (user_id, state_version)
        SELECT user_id, state_version FROM added
    )
    SELECT count(*) FROM added
    """  # noqa: S608 - our own column names
)


async def numbers_of(tx: Transaction, run: RebuildRun, user_ids: Sequence[UserId]) -> list[str]:
    """Return the numbers of these new people."""
    values = {"run_id": run.run_id, "user_ids": list(user_ids)}
    return [row[0] for row in (await tx.execute(_NUMBERS_OF, values)).all()]


_NUMBERS_OF = statement(
    "SELECT DISTINCT unnest(phones) FROM queue.rebuilt_entries"
    " WHERE run_id = :run_id AND user_id = ANY(CAST(:user_ids AS bigint[]))"
)


async def with_status(
    tx: Transaction, run: RebuildRun, user_ids: Sequence[UserId], called_since: datetime
) -> list[UserId]:
    """Return those of these new people who have a contact status to place by.

    That is an objection, or a number that is suppressed, listed, a placeholder, or was called after
    `called_since`.
    """
    values = {"run_id": run.run_id, "user_ids": list(user_ids), "called_since": called_since}
    return [UserId(row[0]) for row in (await tx.execute(_WITH_STATUS, values)).all()]


_WITH_STATUS = statement(
    f"""
    SELECT new.user_id FROM queue.rebuilt_entries AS new
    WHERE new.run_id = :run_id AND new.user_id = ANY(CAST(:user_ids AS bigint[])) AND (
        EXISTS (SELECT FROM queue.suppressions AS active
            WHERE active.user_id = new.user_id AND active.lifted_at IS NULL)
        OR EXISTS (SELECT FROM unnest(new.phones) AS its(phone_e164)
            WHERE {is_listed("its.phone_e164")}
                OR EXISTS (SELECT FROM queue.placeholder_phones AS placeholder
                    WHERE placeholder.phone_e164 = its.phone_e164)
                OR EXISTS (SELECT FROM queue.suppression_lines AS line
                    JOIN queue.suppressions AS active USING (suppression_id)
                    WHERE line.phone_e164 = its.phone_e164 AND active.lifted_at IS NULL)
                OR EXISTS (SELECT FROM queue.attempt_lines AS call
                    WHERE call.phone_e164 = its.phone_e164 AND call.ended_at > :called_since)))
    ORDER BY new.user_id
    """  # noqa: S608 - our own numbers
)


async def lock_page(tx: Transaction, after: UserId, limit: int) -> list[Entry]:
    """Lock and return people by id from above `after`."""
    rows = await tx.execute(_LOCK_PAGE, {"after": after, "limit": limit})
    return [entry_of(row) for row in rows.all()]


_LOCK_PAGE = statement(
    f"SELECT {COLUMN_NAMES} FROM queue.entries WHERE user_id > :after"  # noqa: S608 - our own
    " ORDER BY user_id LIMIT :limit FOR UPDATE"
)
