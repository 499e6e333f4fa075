"""Reads the queue's tables for the checker when the week is over, with statements of its own."""

from collections.abc import Sequence
from typing import Any

from dialler.model.v1 import call_state_pb2, event_pb2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from simulation.desk import queue_name
from simulation.history import (
    AssignmentRow,
    AttemptRow,
    CallbackRow,
    ConversionRecord,
    EntryRow,
    Tables,
)


async def read_tables(postgres_url: str) -> Tables:
    """Return everything the checker compares."""
    engine = create_async_engine(postgres_url)
    try:
        async with engine.connect() as connection:
            return Tables(
                assignments=tuple(map(_assignment, await _rows(connection, _ASSIGNMENTS))),
                attempts=tuple(map(_attempt, await _rows(connection, _ATTEMPTS))),
                conversions=tuple(map(_conversion, await _rows(connection, _CONVERSIONS))),
                callbacks=tuple(map(_callback, await _rows(connection, _CALLBACKS))),
                entries=tuple(map(_entry, await _rows(connection, _ENTRIES))),
            )
    finally:
        await engine.dispose()


async def count_blocked(postgres_url: str) -> dict[str, int]:
    """Return how many people are kept from being called at the end, by the queue's reason."""
    engine = create_async_engine(postgres_url)
    try:
        async with engine.connect() as connection:
            rows = await _rows(connection, _BLOCKED)
    finally:
        await engine.dispose()
    return {str(reason): int(people) for reason, people in rows}


async def _rows(connection: AsyncConnection, query: str) -> Sequence[Any]:
    return (await connection.execute(text(query))).all()


_ASSIGNMENTS = """
    SELECT assignment_id, agent_id, user_id, queue, started_at, lease_expires_at, ended_at
    FROM queue.assignments
"""
_ATTEMPTS = """
    SELECT assignment_id, user_id, agent_id, outcome, notes, ended_at FROM queue.attempts
"""
_CONVERSIONS = "SELECT user_id, queue, conversion, agent_id, recorded_at FROM queue.conversions"
_CALLBACKS = """
    SELECT callback_id, user_id, state, scheduled_for, misses, closed_at, closed_reason
    FROM queue.callbacks
"""
_ENTRIES = "SELECT user_id, attempts, last_outcome, last_agent_id FROM queue.entries"
_BLOCKED = """
    SELECT reason, count(*) FROM queue.entries
    WHERE open_case_queue IS NOT NULL AND queue IS NULL GROUP BY reason ORDER BY reason
"""


def _assignment(row: Any) -> AssignmentRow:
    return AssignmentRow(str(row[0]), row[1], row[2], queue_name(row[3]), row[4], row[5], row[6])


def _attempt(row: Any) -> AttemptRow:
    return AttemptRow(str(row[0]), row[1], row[2], _outcome(row[3]), row[4], row[5])


def _conversion(row: Any) -> ConversionRecord:
    kind = event_pb2.Conversion.Name(row[2]).removeprefix("CONVERSION_").lower()
    return ConversionRecord(row[0], queue_name(row[1]), kind, row[3], row[4])


def _callback(row: Any) -> CallbackRow:
    name = call_state_pb2.CallbackState.Name(row[2])
    state = name.removeprefix("CALLBACK_STATE_").lower()
    return CallbackRow(str(row[0]), row[1], state, row[3], row[4], row[5], row[6] or "")


def _entry(row: Any) -> EntryRow:
    return EntryRow(row[0], row[1], _outcome(row[2]) or None, row[3])


def _outcome(number: int | None) -> str:
    if not number:
        return ""
    name = call_state_pb2.Outcome.Name(number)  # type: ignore[arg-type]
    return name.removeprefix("OUTCOME_").lower()
