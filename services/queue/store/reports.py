"""Figures for reports: counted a day at a time, and read by period."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from services.queue.store.database import Transaction, statement
from services.queue.types import (
    Counted,
    Dimension,
    Period,
    Queue,
    State,
)

# Calls of a person from this one on are counted together.
LATE_CALL = 10

# The key of the advisory lock of the replica that counts.
_COUNTING = zlib.crc32(b"queue.report_counts")


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """Which figures are asked for; `dimension` None adds all parts up."""

    report: Counted
    first_day: date
    last_day: date
    period: Period
    dimension: Dimension | None = None
    queue: Queue | None = None
    agent_id: str = ""


@dataclass(frozen=True, slots=True)
class ReportFigures:
    """The figures of one period, queue, part and result; see `queue.report_figures`."""

    since: date | None
    queue: Queue
    part: str
    result: int
    number: int
    timed: int
    seconds: int


async def lock_counting(tx: Transaction) -> bool:
    """Keep other replicas from counting until the transaction ends, unless one is at it."""
    return bool((await tx.execute(_TRY_LOCK, {"key": _COUNTING})).scalar_one())


_TRY_LOCK = statement("SELECT pg_try_advisory_xact_lock(:key)")


async def first_moment(tx: Transaction) -> datetime | None:
    """Return when the oldest call or conversion that is kept was."""
    return (await tx.execute(_FIRST_MOMENT)).scalar_one_or_none()


_FIRST_MOMENT = statement(
    "SELECT least((SELECT min(ended_at) FROM queue.attempts),"
    " (SELECT min(recorded_at) FROM queue.conversions))"
)


async def counted_days(tx: Transaction, since: date) -> Mapping[date, datetime]:
    """Return when each day since then was counted last."""
    rows = await tx.execute(_COUNTED_DAYS, {"since": since})
    return {row[0]: row[1] for row in rows.all()}


_COUNTED_DAYS = statement("SELECT day, counted_at FROM queue.report_days WHERE day >= :since")


async def count_day(
    tx: Transaction, day: date, start: datetime, end: datetime, zone: str, now: datetime
) -> None:
    """Count the calls, conversions and callbacks of a day anew; `zone` is that of its hours."""
    values = {"day": day, "start": start, "end": end, "zone": zone}
    await tx.execute(_FORGET_DAY, {"day": day})
    for count in _COUNTS:
        await tx.execute(count, values)
    await tx.execute(_NOTE_DAY, {"day": day, "now": now})


_FORGET_DAY = statement(
    "DELETE FROM queue.report_figures"  # noqa: S608 - our own number
    f" WHERE day = :day AND report <> {int(Counted.PEOPLE)}"
)
_NOTE_DAY = statement(
    "INSERT INTO queue.report_days (day, counted_at) VALUES (:day, :now)"
    " ON CONFLICT (day) DO UPDATE SET counted_at = excluded.counted_at"
)


def _hour(moment: str) -> str:
    return f"to_char({moment} AT TIME ZONE CAST(:zone AS text), 'HH24')"


def _calls_until(person: str, moment: str) -> str:
    return (
        "(SELECT CAST(count(*) AS text) FROM (SELECT FROM queue.attempts AS earlier"  # noqa: S608
        f" WHERE earlier.user_id = {person} AND earlier.ended_at <= {moment} LIMIT {LATE_CALL})"
        " AS counted)"
    )


def _count(report: Counted, parts: Mapping[Dimension, str], counted: str, sums: str) -> str:
    """Return the SQL that counts what `counted` selects, once for each dimension."""
    columns = ", ".join(f"({int(dimension)}, {part})" for dimension, part in parts.items())
    return f"""
        INSERT INTO queue.report_figures
            (report, dimension, day, queue, part, result, number, timed, seconds)
        SELECT {int(report)}, dimension, CAST(:day AS date), queue, part, result, count(*), {sums}
        FROM ({counted}) AS counted CROSS JOIN LATERAL (VALUES {columns}) AS by (dimension, part)
        GROUP BY dimension, queue, part, result
    """  # noqa: S608 - our own columns and numbers


_ALL_PARTS = {
    Dimension.AGENT: "agent_id",
    Dimension.HOUR: "hour",
    Dimension.CALL_NUMBER: "call_number",
}
_COUNTS = (
    statement(
        _count(
            Counted.CALLS,
            _ALL_PARTS,
            f"""
            SELECT queue, agent_id, coalesce(outcome, 0) AS result, {_hour("ended_at")} AS hour,
                {_calls_until("call.user_id", "call.ended_at")} AS call_number
            FROM queue.attempts AS call WHERE ended_at >= :start AND ended_at < :end
            """,  # noqa: S608 - our own columns
            "0, 0",
        )
    ),
    statement(
        _count(
            Counted.CONVERSIONS,
            _ALL_PARTS,
            f"""
            SELECT queue, coalesce(agent_id, '') AS agent_id, conversion AS result,
                {_hour("recorded_at")} AS hour, recorded_at - wanted_since AS took,
                {_calls_until("done.user_id", "done.recorded_at")} AS call_number
            FROM queue.conversions AS done WHERE recorded_at >= :start AND recorded_at < :end
            """,  # noqa: S608 - our own columns
            "count(took), coalesce(CAST(sum(extract(epoch FROM took)) AS bigint), 0)",
        )
    ),
    statement(
        _count(
            Counted.CALLBACKS,
            {Dimension.AGENT: "agent_id", Dimension.HOUR: "hour"},
            f"""
            SELECT {int(Queue.CALLBACKS)} AS queue, coalesce(preferred_agent_id, '') AS agent_id,
                state AS result, {_hour("scheduled_for")} AS hour
            FROM queue.callbacks WHERE closed_at >= :start AND closed_at < :end
            """,  # noqa: S608 - our own number
            "0, 0",
        )
    ),
)


async def count_people(tx: Transaction, day: date, hour: str) -> None:
    """Count the people in each queue and state now, as the figures of this hour."""
    values = {"day": day, "hour": hour}
    await tx.execute(_FORGET_HOUR, values)
    await tx.execute(_COUNT_PEOPLE, values)


_THIS_HOUR = f"report = {int(Counted.PEOPLE)} AND dimension = {int(Dimension.HOUR)} AND day = :day"
_FORGET_HOUR = statement(
    f"DELETE FROM queue.report_figures WHERE {_THIS_HOUR} AND part = :hour"  # noqa: S608
)
# With zeros, so that an average is of every hour that was counted.
_COUNT_PEOPLE = statement(
    f"""
    INSERT INTO queue.report_figures
        (report, dimension, day, queue, part, result, number, timed, seconds)
    SELECT {int(Counted.PEOPLE)}, {int(Dimension.HOUR)}, CAST(:day AS date), a_queue.queue,
        CAST(:hour AS text), a_state.state, coalesce(people, 0), 1, 0
    FROM unnest(CAST('{{1,2,3}}' AS smallint[])) AS a_queue (queue)
    CROSS JOIN unnest(CAST('{{1,2,3,4,5}}' AS smallint[])) AS a_state (state)
    LEFT JOIN (
        SELECT coalesce(queue, open_case_queue) AS queue,
            CASE state WHEN {int(State.RESERVED)} THEN {int(State.READY)} ELSE state END AS state,
            count(*) AS people
        FROM queue.entries WHERE queue IS NOT NULL OR open_case_queue IS NOT NULL GROUP BY 1, 2
    ) AS counted ON counted.queue = a_queue.queue AND counted.state = a_state.state
    """  # noqa: S608 - our own numbers
)


async def read(tx: Transaction, query: ReportQuery, limit: int) -> list[ReportFigures]:
    """Return up to `limit` rows in the order of their periods."""
    # Hours are the fewest parts to add up; agents are told apart among agents alone.
    by_agent = Dimension.AGENT if query.agent_id else Dimension.HOUR
    values = {
        "report": query.report,
        "dimension": query.dimension or by_agent,
        "first_day": query.first_day,
        "last_day": query.last_day,
        "queue": query.queue or 0,
        "agent_id": query.agent_id,
        "limit": limit,
    }
    rows = await tx.execute(_READ[query.period, query.dimension is not None], values)
    return [
        ReportFigures(
            since, Queue(queue), part or "", result, int(number), int(timed), int(seconds)
        )
        for since, queue, part, result, number, timed, seconds in rows.all()
    ]


_SINCE = {
    Period.DAY: "day",
    Period.WEEK: "CAST(date_trunc('week', day) AS date)",
    Period.MONTH: "CAST(date_trunc('month', day) AS date)",
    Period.TOTAL: "CAST(NULL AS date)",
}
_READ = {
    (period, by_part): statement(
        f"""
        SELECT {since} AS since, queue, {"part" if by_part else "CAST(NULL AS text)"} AS by_part,
            result, sum(number), sum(timed), sum(seconds)
        FROM queue.report_figures
        WHERE report = :report AND dimension = :dimension AND day BETWEEN :first_day AND :last_day
            AND (:queue = 0 OR queue = :queue) AND (:agent_id = '' OR part = :agent_id)
        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT :limit
        """  # noqa: S608 - our own columns
    )
    for period, since in _SINCE.items()
    for by_part in (False, True)
}
