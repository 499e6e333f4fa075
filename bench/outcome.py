"""Outcomes recorded one after the other, beside a bare transaction that writes the same rows."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg
import grpc
from dialler.model.v1 import call_state_pb2 as model
from dialler.queue.v1 import queue_pb2 as pb
from dialler.queue.v1.queue_pb2_grpc import QueueServiceStub

from bench.load import cpu_seconds
from bench.measurement import ROUNDS, BenchResult, load_average, summarise
from devstack.stack import Stack

if TYPE_CHECKING:
    # In the stubs only.
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

CALLS = 40
QUEUES = (model.QUEUE_UNSIGNED_USERS, model.QUEUE_OUTSTANDING_REQUESTS)
# The tables that an outcome writes.
TABLES = (
    *("assignments", "live_lines", "attempts", "attempt_lines", "entries", "outbox"),
    *("stale_call_states", "agents", "audit", "requests"),
)
# About as long as those of the queue.
_RESPONSE, _EVENT = b"r" * 160, b"e" * 220


@dataclass(frozen=True)
class Round:
    """What a round took, for each outcome."""

    milliseconds: float
    cpu_microseconds: float


async def measure(stack: Stack) -> list[BenchResult]:
    """Milliseconds until an outcome is durable, and what it costs its process."""
    address = stack.addresses.postgres.replace("+asyncpg", "")
    ours: list[Round] = []
    floor: list[Round] = []
    async with (
        grpc.aio.insecure_channel(stack.addresses.grpc["queue"]) as channel,
        asyncpg.create_pool(address, min_size=1, max_size=1) as pool,
        pool.acquire() as postgres,
    ):
        desk = _Desk(QueueServiceStub(channel), stack.services["queue"].pid)
        try:
            async with _bare(postgres) as bare:
                for number in range(ROUNDS + 1):
                    rounds = await bare.round(), await desk.round()
                    # The first is for the plans and caches of both.
                    if number:
                        floor.append(rounds[0])
                        ours.append(rounds[1])
        finally:
            await postgres.execute(_FORGET, desk.agent_id)
    conditions = f"{CALLS} calls without an answer, one after the other, durable"
    name = "bare transaction (one statement) that writes the same rows"
    return [
        summarise(
            "outcome",
            [it.milliseconds for it in ours],
            [it.milliseconds for it in floor],
            unit="ms",
            conditions=f"{conditions}; load {load_average()}",
            floor_name=name,
        ),
        summarise(
            "outcome_cpu",
            [it.cpu_microseconds for it in ours],
            [it.cpu_microseconds for it in floor],
            unit="µs of that process's CPU an outcome",
            conditions=f"{conditions}; load {load_average()}",
            floor_name=f"{name}, the caller's own process",
        ),
    ]


class _Desk:
    """An agent at the queue service, over gRPC."""

    def __init__(self, stub: QueueServiceAsyncStub, pid: int) -> None:
        self._stub = stub
        self._pid = pid
        self.agent_id = f"bench-{uuid.uuid4().hex[:6]}"

    async def round(self) -> Round:
        """Claim and report; the claims are not measured."""
        seconds = cpu = 0.0
        for _ in range(CALLS):
            claim = pb.ClaimNextRequest(
                agent_id=self.agent_id, queues=QUEUES, request_id=str(uuid.uuid4())
            )
            claimed = await self._stub.ClaimNext(claim, timeout=20)
            if not claimed.HasField("assignment"):
                raise RuntimeError("the queues ran empty: start with more people")
            report = pb.RecordOutcomeRequest(
                assignment_id=claimed.assignment.assignment_id,
                agent_id=self.agent_id,
                outcome=model.OUTCOME_NO_ANSWER,
                request_id=str(uuid.uuid4()),
            )
            before, began = cpu_seconds(self._pid), time.perf_counter()
            await self._stub.RecordOutcome(report, timeout=20)
            seconds += time.perf_counter() - began
            cpu += cpu_seconds(self._pid) - before
        return Round(seconds / CALLS * 1e3, cpu / CALLS * 1e6)


# Puts the people back, as the next run needs them.
_FORGET = """
WITH called AS (DELETE FROM queue.attempts WHERE agent_id = $1 RETURNING user_id)
UPDATE queue.entries AS entry SET state = 1, queue = eligible_queue, reason = eligible_reason,
    hold = NULL, due_at = NULL, rest_until = NULL, capped_until = NULL, cap = NULL,
    attempts = 0, attempts_in_case = 0, last_outcome = NULL, last_contact_at = NULL
FROM called WHERE entry.user_id = called.user_id
"""


class _BareTransaction:
    """One durable statement that ends an assignment in a copy of the queue's tables."""

    def __init__(self, postgres: asyncpg.Connection, sql: str) -> None:
        self._postgres = postgres
        self._sql = sql

    async def round(self) -> Round:
        """Begin assignments, which is not measured, and end them one after the other."""
        now = datetime.now(UTC)
        held = await self._postgres.fetch(_BEGIN, CALLS, "bench", now)
        entries = {
            row["user_id"]: row
            for row in await self._postgres.fetch(
                "SELECT * FROM bench.entries WHERE user_id = ANY($1)",
                [row["user_id"] for row in held],
            )
        }
        cpu, began = cpu_seconds(os.getpid()), time.perf_counter()
        for row in held:
            fixed = (
                *(row["assignment_id"], row["user_id"], "bench", now),
                *(uuid.uuid4(), _RESPONSE, [_EVENT, _EVENT]),
            )
            await self._postgres.execute(self._sql, *fixed, *entries[row["user_id"]])
        seconds, cpu = time.perf_counter() - began, cpu_seconds(os.getpid()) - cpu
        return Round(seconds / CALLS * 1e3, cpu / CALLS * 1e6)


_BEGIN = """
WITH free AS (
    SELECT user_id, lines FROM bench.entries WHERE lines <> '{}'
        AND NOT EXISTS (SELECT FROM bench.attempts WHERE attempts.user_id = entries.user_id)
    LIMIT $1
), begun AS (
    INSERT INTO bench.assignments (assignment_id, agent_id, user_id, queue, reason, score, fence,
        started_at, lease_expires_at, lines)
    SELECT gen_random_uuid(), $2 || user_id, user_id, 1, '', 0, 1, $3, $3, lines FROM free
    RETURNING assignment_id, user_id, lines
), called AS (
    INSERT INTO bench.live_lines SELECT unnest(lines), assignment_id FROM begun
    ON CONFLICT DO NOTHING
)
SELECT assignment_id, user_id FROM begun
"""
_END = """
WITH ended AS (
    UPDATE bench.assignments SET ended_at = $4, ending = 1 WHERE assignment_id = $1
    RETURNING lines
), freed AS (
    DELETE FROM bench.live_lines WHERE assignment_id = $1
), kept AS (
    INSERT INTO bench.attempts (assignment_id, user_id, agent_id, queue, outcome, notes, ended_at)
    VALUES ($1, $2, $3, 1, 5, '', $4)
), kept_lines AS (
    INSERT INTO bench.attempt_lines SELECT $1, unnest(lines), $2, $4 FROM ended
), moved AS (
    UPDATE bench.entries SET {columns} WHERE user_id = $2
), notified AS (
    INSERT INTO bench.stale_call_states (user_id, state_version) VALUES ($2, 1)
), posted AS (
    INSERT INTO bench.outbox (event) SELECT unnest($7::bytea[])
), seen AS (
    INSERT INTO bench.agents (agent_id, presence, presence_since, last_seen_at)
    VALUES ($3, 1, $4, $4) ON CONFLICT (agent_id) DO UPDATE SET last_seen_at = $4
), noted AS (
    INSERT INTO bench.audit (at, actor_id, action, user_id, details)
    VALUES ($4, $3, 'OUTCOME_RECORDED', $2, jsonb_build_object('assignment_id', $1))
)
INSERT INTO bench.requests (agent_id, request_id, method, payload_hash, response, made_at)
VALUES ($3, $5, 'RecordOutcome', $6, $6, $4)
"""


@asynccontextmanager
async def _bare(postgres: asyncpg.Connection) -> AsyncIterator[_BareTransaction]:
    """Copy the tables, with their indexes, and the people; all is dropped afterwards."""
    await postgres.execute("DROP SCHEMA IF EXISTS bench CASCADE; CREATE SCHEMA bench")
    for table in TABLES:
        await postgres.execute(f"CREATE TABLE bench.{table} (LIKE queue.{table} INCLUDING ALL)")
    await postgres.execute("INSERT INTO bench.entries SELECT * FROM queue.entries")
    await postgres.execute("ANALYZE bench.entries")
    columns = await postgres.fetch(
        "SELECT attname AS name, format_type(atttypid, atttypmod) AS kind FROM pg_attribute"
        " WHERE attrelid = 'bench.entries'::regclass AND attnum > 0 AND NOT attisdropped"
        " ORDER BY attnum"
    )
    given = ", ".join(
        f"{it['name']} = ${place}::{it['kind']}" for place, it in enumerate(columns, 8)
    )
    yield _BareTransaction(postgres, _END.replace("{columns}", given))
    await postgres.execute("DROP SCHEMA bench CASCADE")
