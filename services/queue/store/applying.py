"""Statements of applying facts: one takes all locks, one reads what the facts are judged by.

They are two, since a row that is joined to a locked one would be as it was before a wait for the
lock. What is written is gathered by `together`.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, bindparam

from servicekit.database_failures import Contention
from services.queue.domain.entries import ContactStatus, Entry
from services.queue.store import contact_status, entries
from services.queue.store.applied_facts import AppliedCase, in_doubt_sql
from services.queue.store.contact_status import Numbers
from services.queue.store.database import PHONES_GUARD, Transaction, arrays, statement
from services.queue.store.person_phones import (
    IS_COUNTED_PLACEHOLDER,
    PAIR_COLUMNS,
    RENUMBERED,
    Pairs,
)
from services.queue.types import Queue, UserId


async def lock(tx: Transaction, user_ids: Sequence[UserId]) -> dict[UserId, Entry]:
    """Lock and return those of these people who are known, in the order of their ids.

    Until the end of the transaction no other one adds one of them, and suppressed phone numbers
    stay as they are. To be called before any row is locked, with each id once: transactions that
    add people take the guards for that in one order, before any row, so there is no deadlock.
    Raises Contention when a person is deleted at this moment.
    """
    rows = (await tx.execute(_LOCK_KNOWN, {"user_ids": list(user_ids)})).all()
    if len(rows) == len(user_ids):
        return {it.user_id: it for it in map(entries.entry_of, rows)}
    if rows:
        # Too late for the guard of the person who has been deleted: the others are locked already.
        raise Contention("PERSON_DELETED", "a person was deleted while facts were applied")
    await tx.execute(_GUARD, {"user_ids": list(user_ids)})
    return await entries.lock(tx, user_ids)


_PHONES = bindparam("phones", PHONES_GUARD, BigInteger)
# Locks all of them or, if there is one who is not known, none. What the guard keeps as it is, is
# read by later statements.
_LOCK_KNOWN = statement(
    f"""
    WITH guarded AS MATERIALIZED (
        SELECT pg_advisory_xact_lock_shared(:phones)
    ), known AS MATERIALIZED (
        SELECT count(*) = cardinality(CAST(:user_ids AS bigint[])) AS are_all
        FROM queue.entries WHERE user_id = ANY(CAST(:user_ids AS bigint[]))
    )
    SELECT {entries.columns_of("entry")}
    FROM guarded CROSS JOIN known CROSS JOIN queue.entries AS entry
    WHERE known.are_all AND entry.user_id = ANY(CAST(:user_ids AS bigint[]))
    ORDER BY entry.user_id FOR UPDATE OF entry
    """  # noqa: S608 - our own column names
).bindparams(_PHONES)
# People with neighbouring ids share a guard: they registered together.
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
).bindparams(_PHONES, bindparam("class", zlib.crc32(b"queue.entries") - 2**31))


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of locked people beside their entries.

    `in_doubt` are those whose record was altered after their facts were applied, each with the case
    as applied, None when that is not known; `held` are those whose assignment has not ended;
    `statuses` are those of the people whose numbers were noted.
    """

    in_doubt: Mapping[UserId, AppliedCase | None]
    held: frozenset[UserId]
    statuses: Mapping[UserId, ContactStatus]


async def read(tx: Transaction, user_ids: Sequence[UserId]) -> Reading:
    """Return what is known of locked people whose numbers are as they were."""
    row = (await tx.execute(_READ, {"locked_ids": list(user_ids)})).one()
    return _reading_of(row, ())


async def read_and_renumber(
    tx: Transaction,
    user_ids: Sequence[UserId],
    removed: Pairs,
    people: Numbers,
    *,
    placeholder_people: int,
    calls_since: datetime,
) -> Reading:
    """Note that locked people have no more numbers than given, and return what is known of them.

    `removed` are those that they had. A number becomes a placeholder with more than
    `placeholder_people` people, and is none any more with fewer; in both cases its people are still
    to be placed.
    """
    pairs = sorted(removed)
    values = contact_status.parameters(people, calls_since)
    values |= arrays(PAIR_COLUMNS, pairs, parameters="removed")
    values |= {"locked_ids": list(user_ids), "limit": placeholder_people}
    values["counted_phones"] = sorted({*values["phones"], *(phone for _, phone in pairs)})
    return _reading_of((await tx.execute(_READ_AND_RENUMBER, values)).one(), people)


def _reading_of(row: Sequence[Any], people: Numbers) -> Reading:
    """Return the reading in a row of `_READ`, which the arrays of statuses may follow."""
    in_doubt = {
        user_id: None
        if number is None
        else AppliedCase(None if queue is None else Queue(queue), number)
        for user_id, queue, number in zip(*(it or () for it in row[:3]), strict=True)
    }
    statuses = contact_status.found_in_arrays(people, row[4:]) if people else {}
    return Reading(in_doubt, frozenset(row[3]), statuses)


_KNOWN = """
    doubt.user_ids, doubt.queues, doubt.numbers, ARRAY(
        SELECT user_id FROM queue.assignments
        WHERE user_id = ANY(CAST(:locked_ids AS bigint[])) AND ended_at IS NULL)
"""
_DOUBT = f"""(
        SELECT array_agg(user_id) AS user_ids, array_agg(open_case_queue) AS queues,
            array_agg(case_number) AS numbers
        FROM ({in_doubt_sql("locked_ids")}) AS altered
    ) AS doubt"""  # noqa: S608 - our own column names
_READ = statement(f"SELECT {_KNOWN} FROM {_DOUBT}")  # noqa: S608 - our own column names
_READ_AND_RENUMBER = statement(
    f"""
    WITH {RENUMBERED}
    SELECT {_KNOWN}, {contact_status.ARRAY_NAMES}
    FROM {_DOUBT} CROSS JOIN
        {contact_status.arrays_sql(contact_status.statuses_sql(IS_COUNTED_PLACEHOLDER))}
    """  # noqa: S608 - our own column names
)
