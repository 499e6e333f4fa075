"""Hands out the next user, checked against the main app in the same request.

Agents that ask at the same moment are served together: one statement reserves users for all of
them, one call checks these users, one durable statement hands them out. A few such batches run
side by side, so the number of connections that hand-outs use is bounded whatever the number of
agents.
"""

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from dialler.queue.v1 import queue_pb2

from servicekit import telemetry
from servicekit.clock import Clock
from servicekit.errors import (
    Internal,
    ServiceError,
    Unavailable,
)
from services.queue import metrics
from services.queue.calls.batching import Batching
from services.queue.calls.handout_batch import HandoutBatch
from services.queue.calls.leases import Leases
from services.queue.calls.waiting_agent import WaitingAgent
from services.queue.people.isolation import isolated
from services.queue.reads.figures import QueueFigures
from services.queue.store import agents, assignments
from services.queue.store.database import Database
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.types import AgentId, Queue


class Handout:
    """Serves agents in batches; an agent waits at most for the batches under way."""

    def __init__(
        self,
        database: Database,
        make_batch: Callable[[], HandoutBatch],
        leases: Leases,
        figures: QueueFigures,
        clock: Clock,
        *,
        workers: int,
        batch: int,
    ) -> None:
        """At most `workers` batches run at a time, each for at most `batch` agents."""
        self._database = database
        self._make_batch = make_batch
        self._leases = leases
        self._figures = figures
        self._clock = clock
        self._batching: Batching[WaitingAgent] = Batching(
            "claim", self._serve, metrics.CLAIM_BATCH, workers=workers, batch=batch
        )

    async def next_user(
        self,
        request: IdempotentRequest,
        queues: tuple[Queue, ...],
        *,
        own_callbacks_only: bool = False,
    ) -> queue_pb2.ClaimNextResponse:
        """Return the agent's next user, or why there is none.

        Raises Unavailable (MAIN_APP_UNAVAILABLE) when no user can be checked, and Conflict
        (CLAIM_ENDED) for a repeat whose assignment has ended. A caller that gives up may have been
        handed a user: the agent's next request then returns that assignment.
        """
        answer = asyncio.get_running_loop().create_future()
        traceparent = telemetry.inject()
        self._batching.join(WaitingAgent(request, queues, own_callbacks_only, traceparent, answer))
        response: queue_pb2.ClaimNextResponse = await answer
        return response

    async def stop(self) -> None:
        """Let the batches under way end."""
        await self._batching.stop()

    async def _serve(self, batch: Sequence[WaitingAgent]) -> None:
        """Serve the agents of a batch, grouped by the queues from which they take."""
        groups: dict[tuple[tuple[Queue, ...], bool], list[WaitingAgent]] = {}
        for agent in await self._admitted(batch):
            groups.setdefault((agent.queues, agent.own_callbacks_only), []).append(agent)
        for (queues, own_callbacks_only), group in groups.items():
            try:
                await self._serve_group(queues, group, own_callbacks_only=own_callbacks_only)
            except ServiceError as error:
                # Other queues may have users who can be checked.
                for agent in group:
                    agent.fail(error)

    async def _admitted(self, batch: Sequence[WaitingAgent]) -> list[WaitingAgent]:
        """Return the agents to hand a user to; every other agent is answered.

        An agent whose records cannot be read is answered with that, and holds up no other agent.
        """
        admitted: list[WaitingAgent] = []

        async def admit(some: Sequence[WaitingAgent]) -> None:
            async with self._database.statements() as tx:
                snapshots = await assignments.snapshots(tx, [it.request for it in some])
            now = self._clock.now()
            left: list[WaitingAgent] = []
            lapsed: list[UUID] = []
            for agent, snapshot in zip(some, snapshots, strict=True):
                held = snapshot.held
                if held is not None and not held.is_live(now):
                    lapsed.append(held.assignment_id)
                    held = None
                if snapshot.answered is not None:
                    agent.repeat(snapshot.answered, held)
                elif held is not None:
                    metrics.CLAIMS.labels("already_held").inc()
                    agent.hand_out(held, already_held=True)
                elif agent.is_admitted(snapshot):
                    left.append(agent)
            if lapsed:
                await self._leases.expire(lapsed)
            admitted.extend(left)

        async def refuse(agent: WaitingAgent, error: Exception) -> None:
            if not isinstance(error, ServiceError):
                error = Internal("AGENT_UNREADABLE", "the agent's own records cannot be read")
            agent.fail(error)

        await isolated([it for it in batch if it.is_waiting], admit, refuse)
        return admitted

    async def _serve_group(
        self, queues: tuple[Queue, ...], group: list[WaitingAgent], *, own_callbacks_only: bool
    ) -> None:
        """Serve agents that take from the same queues, batch after batch."""
        left = [it for it in group if it.is_waiting]
        handout_batch = self._make_batch()
        while left and handout_batch.may_go_on(len(group)):
            is_empty = await handout_batch.run(queues, left, own_callbacks_only=own_callbacks_only)
            left = [it for it in left if it.is_waiting]
            if not left or not is_empty:
                left = await self._admitted(left)
                continue
            if own_callbacks_only:
                queues = tuple(it for it in queues if it is not Queue.CALLBACKS)
            empty = await self._figures.empty(queues)
            agent_ids = {AgentId(it.request.agent_id) for it in left}
            async with self._database.statements() as tx:
                await agents.seen(tx, list(agent_ids), self._clock.now())
            for agent in left:
                metrics.CLAIMS.labels("empty").inc()
                agent.answer_empty(empty)
            return
        for agent in left:
            metrics.CLAIMS.labels("given_up").inc()
            agent.fail(
                Unavailable(
                    "CANDIDATES_OUTDATED",
                    "too many people at the head no longer qualify; they are being repaired",
                    retry_after_seconds=1.0,
                )
            )
