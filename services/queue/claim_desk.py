"""Handing out the right next person, checked against the main app in the same request.

Agents who claim at the same moment are served together: one statement reserves people for all of
them, one call checks those, one durable statement hands them out. A few such rounds run side by
side, so the number of connections claims use is bounded whatever the number of agents.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dialler.queue.v1 import queue_pb2

from servicekit import telemetry
from servicekit.clock import Clock
from servicekit.errors import (
    FailedPrecondition,
    PermissionDenied,
    ServiceError,
    Unavailable,
)
from services.queue import messages, metrics
from services.queue.assignment_desk import AssignmentDesk
from services.queue.claim_round import ClaimRound
from services.queue.domain.terms import AgentId, Queue, UserId
from services.queue.figures import Figures
from services.queue.rounds import Rounds
from services.queue.store import agents, assignments
from services.queue.store.answers import Request
from services.queue.store.assignments import Assignment, Standing
from services.queue.store.database import Database
from services.queue.writing import require_same


@dataclass(slots=True)
class Waiting:
    """An agent who waits for an answer."""

    request: Request
    queues: tuple[Queue, ...]
    traceparent: str | None
    answer: asyncio.Future[queue_pb2.ClaimNextResponse]
    rejected: int = 0
    skipped_user_id: UserId | None = None

    @property
    def is_waiting(self) -> bool:
        """False once answered, or when the agent has given up."""
        return not self.answer.done()

    def hand_out(self, assignment: Assignment, *, already_held: bool) -> None:
        """Answer with somebody."""
        if self.is_waiting:
            self.answer.set_result(self.response(assignment, already_held=already_held))

    def response(
        self, assignment: Assignment, *, already_held: bool
    ) -> queue_pb2.ClaimNextResponse:
        """Return the answer that hands this assignment out."""
        return queue_pb2.ClaimNextResponse(
            assignment=messages.assignment_message(assignment),
            already_held=already_held,
            rejected_by_live_check=self.rejected,
        )

    def fail(self, error: ServiceError) -> None:
        """Answer with an error."""
        if self.is_waiting:
            self.answer.set_exception(error)


class ClaimDesk:
    """Serves claims in rounds; a claim waits at most for the rounds under way."""

    def __init__(
        self,
        database: Database,
        make_round: Callable[[], ClaimRound],
        assignment_desk: AssignmentDesk,
        figures: Figures,
        clock: Clock,
        *,
        workers: int,
        batch: int,
    ) -> None:
        """At most `workers` rounds run at a time, each for at most `batch` agents."""
        self._database = database
        self._make_round = make_round
        self._assignment_desk = assignment_desk
        self._figures = figures
        self._clock = clock
        self._rounds: Rounds[Waiting] = Rounds(
            "claim", self._serve, metrics.CLAIM_BATCH, workers=workers, batch=batch
        )

    async def claim(
        self, request: Request, queues: tuple[Queue, ...]
    ) -> queue_pb2.ClaimNextResponse:
        """Return the agent's person, or why there is none.

        Raises Unavailable (MAIN_APP_UNAVAILABLE) when nobody can be checked. A caller who gives
        up may have been handed somebody: the next claim then returns that assignment.
        """
        answer = asyncio.get_running_loop().create_future()
        self._rounds.join(Waiting(request, queues, telemetry.inject(), answer))
        response: queue_pb2.ClaimNextResponse = await answer
        return response

    async def stop(self) -> None:
        """Let the rounds under way end."""
        await self._rounds.stop()

    async def _serve(self, batch: Sequence[Waiting]) -> None:
        left = await self._without_holders(batch)
        by_queues: dict[tuple[Queue, ...], list[Waiting]] = {}
        for waiting in left:
            by_queues.setdefault(waiting.queues, []).append(waiting)
        for queues, group in by_queues.items():
            await self._serve_group(queues, group)

    async def _without_holders(self, batch: Sequence[Waiting]) -> list[Waiting]:
        """Answer those who have asked this before or hold somebody; return the others."""
        async with self._database.statements() as tx:
            standings = await assignments.standing(tx, [it.request for it in batch])
        now = self._clock.now()
        left: list[Waiting] = []
        lapsed: list[Assignment] = []
        for waiting, standing in zip(batch, standings, strict=True):
            held = standing.held
            if _answered_before(waiting, standing):
                continue
            if held is not None and held.is_live(now):
                metrics.CLAIMS.labels("already_held").inc()
                waiting.hand_out(held, already_held=True)
                continue
            if held is not None:
                lapsed.append(held)
            if _is_admitted(waiting, standing):
                left.append(waiting)
        if lapsed:
            await self._assignment_desk.expire([it.assignment_id for it in lapsed])
        return left

    async def _serve_group(self, queues: tuple[Queue, ...], group: list[Waiting]) -> None:
        """Serve agents who take from the same queues, round after round."""
        left = group
        claim_round = self._make_round()
        while left and claim_round.may_go_on(len(group)):
            is_empty = await claim_round.run(queues, left)
            left = [it for it in left if it.is_waiting]
            if left and is_empty:
                return await self._answer_empty(queues, left)
            if left:
                left = await self._without_holders(left)
        for waiting in left:
            metrics.CLAIMS.labels("given_up").inc()
            waiting.fail(_too_many_candidates())
        return None

    async def _answer_empty(self, queues: tuple[Queue, ...], left: Sequence[Waiting]) -> None:
        empty = await self._figures.empty(queues)
        agent_ids = {AgentId(it.request.agent_id) for it in left}
        async with self._database.statements() as tx:
            await agents.seen(tx, list(agent_ids), self._clock.now())
        for waiting in left:
            metrics.CLAIMS.labels("empty").inc()
            if waiting.is_waiting:
                waiting.answer.set_result(
                    queue_pb2.ClaimNextResponse(
                        empty=empty, rejected_by_live_check=waiting.rejected
                    )
                )


def _answered_before(waiting: Waiting, standing: Standing) -> bool:
    if standing.answered is None:
        return False
    try:
        first = require_same(standing.answered, waiting.request)
    except ServiceError as error:
        waiting.fail(error)
    else:
        if waiting.is_waiting:
            waiting.answer.set_result(queue_pb2.ClaimNextResponse.FromString(first))
    return True


def _is_admitted(waiting: Waiting, standing: Standing) -> bool:
    """Note what limits the agent; answers those who may not be handed anybody."""
    waiting.skipped_user_id = standing.skipped_user_id
    if standing.presence is not None and not standing.presence.takes_calls:
        presence = standing.presence.name
        waiting.fail(
            FailedPrecondition(
                "AGENT_NOT_AVAILABLE", "the agent takes no calls now", presence=presence
            )
        )
        return False
    if standing.allowed_queues is not None:
        waiting.queues = tuple(it for it in waiting.queues if it in standing.allowed_queues)
    if not waiting.queues:
        waiting.fail(PermissionDenied("QUEUE_NOT_ALLOWED", "the agent may take from none of these"))
        return False
    return True


def _too_many_candidates() -> Unavailable:
    return Unavailable(
        "CANDIDATES_OUTDATED",
        "too many people at the head no longer qualify; they are being put right",
        retry_after_seconds=1.0,
    )
