"""100 and 1,000 agents claiming, beside bare SQL and beside two task queues on PostgreSQL."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

import asyncpg
import grpc
from dialler.model.v1 import call_state_pb2 as model
from dialler.queue.v1 import queue_pb2 as pb
from dialler.queue.v1.queue_pb2_grpc import QueueServiceStub

from bench.claim_floor import BareSql
from bench.claim_peers import PgQueuer, Procrastinate
from bench.claims import CONNECTIONS, ClaimingAgent, Claims, Contender, crowd, paced
from bench.load import cpu_seconds
from bench.measurement import ROUNDS, BenchResult, load_average, percentile, summarise
from devstack.stack import Stack

CROWDS = (100, 1_000)
SECONDS = 4.0
# Of 100 agents each claims once in two seconds: some fifty times what people on the phone do.
PACED_AGENTS = 100
PACED_PER_SECOND = 50.0
QUEUES = (model.QUEUE_UNSIGNED_USERS, model.QUEUE_OUTSTANDING_REQUESTS)

_SHARES = (("p50", 0.5), ("p99", 0.99))


async def measure(stack: Stack) -> list[BenchResult]:
    """Rates of whole turns (claim, give back) and latencies of claims; rounds interleaved."""
    results = []
    async with _contenders(stack) as contenders:
        for agents in CROWDS:
            results += await _at_once(contenders, agents)
        results += await _at_a_pace(contenders[:2])
        results.append(await _cost(contenders[:2], stack.services["queue"].pid))
    return results


@asynccontextmanager
async def _contenders(stack: Stack) -> AsyncIterator[list[Contender]]:
    """Ours first, then the floor, then the peers."""
    async with AsyncExitStack() as opened:
        yield [
            await opened.enter_async_context(Ours.open(stack)),
            await opened.enter_async_context(BareSql.open(stack)),
            await opened.enter_async_context(Procrastinate.open(stack)),
            await opened.enter_async_context(PgQueuer.open(stack)),
            await opened.enter_async_context(PgQueuer.open(stack, together=10)),
        ]


async def _at_once(contenders: Sequence[Contender], agents: int) -> list[BenchResult]:
    names = ("", "", "_procrastinate", "_pgqueuer", "_pgqueuer_10")
    rounds = await _rounds(contenders, lambda it: crowd(it, agents, SECONDS))
    ours, floor = rounds[:2]
    load = load_average()
    conditions = f"{agents} agents, each claim given back at once, durable, one copy; load {load}"
    results = [
        _compared(f"claim_next_{agents}", ours, floor, _rate, "claims/s", conditions, contenders[1])
    ]
    results += _latencies(f"claim_next_{agents}", ours, floor, conditions, contenders[1])
    for name, peer, contender in list(zip(names, rounds, contenders, strict=True))[2:]:
        lacking = f"{conditions}; the peer: {contender.backlog} jobs, no check, no fence, no gRPC"
        results.append(
            _compared(
                f"claim_next_{agents}{name}", ours, peer, _rate, "claims/s", lacking, contender
            )
        )
    return results


async def _at_a_pace(contenders: Sequence[Contender]) -> list[BenchResult]:
    ours, floor = await _rounds(
        contenders, lambda it: paced(it, PACED_AGENTS, PACED_PER_SECOND, SECONDS)
    )
    conditions = (
        f"{PACED_AGENTS} agents, {PACED_PER_SECOND:.0f} claims/s, each given back at once;"
        f" load {load_average()}"
    )
    return _latencies("claim_next_paced", ours, floor, conditions, contenders[1])


async def _cost(contenders: Sequence[Contender], queue: int) -> BenchResult:
    """Return what the queue's process spends on a claim, beside who asks PostgreSQL by itself."""
    costs: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for mine, contender, pid in zip(costs, contenders, (queue, os.getpid()), strict=True):
            before = cpu_seconds(pid)
            claims = await crowd(contender, CROWDS[0], SECONDS)
            mine.append((cpu_seconds(pid) - before) / len(claims.latencies) * 1e6)
    return summarise(
        "claim_next_cpu",
        *costs,
        unit="µs of that process's CPU a claim",
        conditions=f"{CROWDS[0]} agents, each claim given back at once; load {load_average()}",
        floor_name="bare SQL, the agents' own process included",
    )


async def _rounds(
    contenders: Sequence[Contender], run: Callable[[Contender], Awaitable[Claims]]
) -> list[list[Claims]]:
    """Let each run in turn; returns the rounds of each."""
    rounds: list[list[Claims]] = [[] for _ in contenders]
    for _ in range(ROUNDS):
        for mine, contender in zip(rounds, contenders, strict=True):
            mine.append(await run(contender))
    return rounds


def _rate(claims: Claims) -> float:
    return claims.rate


def _latencies(
    name: str, ours: Sequence[Claims], floor: Sequence[Claims], conditions: str, bare: Contender
) -> list[BenchResult]:
    return [
        _compared(
            f"{name}_{label}",
            ours,
            floor,
            lambda it, share=share: percentile(it.latencies, share) * 1000,  # type: ignore[misc]
            "ms",
            conditions,
            bare,
        )
        for label, share in _SHARES
    ]


def _compared(
    name: str,
    ours: Sequence[Claims],
    theirs: Sequence[Claims],
    figure: Callable[[Claims], float],
    unit: str,
    conditions: str,
    contender: Contender,
) -> BenchResult:
    return summarise(
        name,
        [figure(it) for it in ours],
        [figure(it) for it in theirs],
        unit=unit,
        conditions=conditions,
        floor_name=contender.name,
    )


class Ours(Contender):
    """The queue service, over gRPC, every claim checked against the main app."""

    name = "queue service"

    def __init__(self, channel: grpc.aio.Channel, postgres: asyncpg.Pool) -> None:
        self._stub = QueueServiceStub(channel)
        self._postgres = postgres

    @classmethod
    @asynccontextmanager
    async def open(cls, stack: Stack) -> AsyncIterator[Self]:
        """Connect to the stack's queue, and to its database for giving back."""
        address = stack.addresses.postgres.replace("+asyncpg", "")
        async with (
            grpc.aio.insecure_channel(stack.addresses.grpc["queue"]) as channel,
            asyncpg.create_pool(address, min_size=CONNECTIONS, max_size=CONNECTIONS) as postgres,
        ):
            yield cls(channel, postgres)

    async def claim(self, agent: ClaimingAgent) -> str:
        """Claim as the agent; returns the assignment."""
        answer = await self._stub.ClaimNext(
            pb.ClaimNextRequest(
                agent_id=agent.agent_id, queues=QUEUES, request_id=str(uuid.uuid4())
            ),
            timeout=20,
        )
        if not answer.HasField("assignment"):
            raise RuntimeError("the queues ran empty: start with more people")
        assignment_id: str = answer.assignment.assignment_id
        return assignment_id

    async def give_back(self, agent: ClaimingAgent, claimed: str) -> None:
        """Undo the claim as the floor does, in one statement: it is claims that are measured."""
        await self._postgres.execute(_GIVE_BACK, uuid.UUID(claimed))


_GIVE_BACK = """
WITH ended AS (
    UPDATE queue.assignments SET ended_at = now(), ending = 2 WHERE assignment_id = $1
    RETURNING user_id
), freed AS (
    DELETE FROM queue.live_lines WHERE assignment_id = $1
)
UPDATE queue.entries AS entry SET state = 1, agent_id = NULL, assignment_id = NULL
FROM ended WHERE entry.user_id = ended.user_id
"""
