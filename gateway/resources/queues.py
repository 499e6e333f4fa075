"""Queues: their sizes, today's figures, and a queue's entries."""

from typing import TYPE_CHECKING, Annotated, Self

from dialler.queue.v1 import queue_pb2
from fastapi import Query
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from gateway.resources.fields import (
    ENTRY_STATES,
    HOLDS,
    OUTCOMES,
    QUEUES,
    AgentIdQuery,
    CallerOf,
    EntryState,
    Hold,
    Id,
    Moment,
    Outcome,
    QueueName,
    UpperSnake,
    require_queues,
)
from gateway.resources.pauses import QueuePause
from servicekit.call_state_json import moment_in

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub


class QueueStats(BaseModel):
    """The size of one queue, by state."""

    queue: QueueName | None
    ready: int
    waiting: int
    assigned: int
    oldest_ready_since: Moment | None
    holds: dict[Hold, int] = Field(description="Waiting people, by what holds them.")
    blocked: dict[str, int] = Field(
        description="People with an open case who are ineligible for calls, by reason."
    )

    @classmethod
    def of(cls, message: queue_pb2.QueueStats) -> Self:
        """Return what the message says."""
        return cls(
            queue=QUEUES.name(message.queue),
            ready=message.ready,
            waiting=message.waiting,
            assigned=message.assigned,
            oldest_ready_since=moment_in(message, "oldest_ready_since"),
            holds={hold: it.people for it in message.holds if (hold := HOLDS.name(it.hold))},
            blocked={it.reason: it.people for it in message.blocked},
        )


class Queues(BaseModel):
    """All queues at this moment, and today's figures."""

    queues: list[QueueStats]
    agents_on_assignment: int
    calls_today: int
    conversions_today: int
    wrong_calls_prevented_today: int
    outcomes_today: dict[Outcome, int] = Field(description="Calls since midnight by outcome.")
    dispositions_today: dict[str, int] = Field(
        description="Calls since midnight that were reported by a disposition, by its code; "
        "`outcomes_today` counts them as well."
    )
    callbacks_missed: int = Field(description="Callbacks on the supervisors' list.")
    unreported_calls_today: int = Field(
        description="Calls since midnight that no agent has reported; `calls_today` does not count "
        "them."
    )
    pauses: list[QueuePause] = Field(description="Pauses in force, the earliest first.")

    @classmethod
    def of(cls, message: queue_pb2.GetQueueStatsResponse) -> Self:
        """Return what the message says."""
        return cls(
            queues=[QueueStats.of(each) for each in message.queues],
            agents_on_assignment=message.agents_on_assignment,
            calls_today=message.calls_today,
            conversions_today=message.conversions_today,
            wrong_calls_prevented_today=message.wrong_calls_prevented_today,
            outcomes_today={
                outcome: it.calls
                for it in message.outcomes_today
                if (outcome := OUTCOMES.name(it.outcome))
            },
            dispositions_today={it.code: it.calls for it in message.dispositions_today},
            callbacks_missed=message.callbacks_missed,
            unreported_calls_today=message.unreported_calls_today,
            pauses=[QueuePause.of(it) for it in message.pauses],
        )


class QueueEntry(BaseModel):
    """One person's entry in a queue."""

    user_id: Id
    queue: QueueName | None
    state: EntryState | None
    score: float
    attempts: int
    last_outcome: Outcome | None
    next_call_at: Moment | None
    entered_at: Moment | None
    reason: str
    assigned_agent_id: str | None
    hold: Hold | None = Field(description="What keeps the person from being called now.")

    @classmethod
    def of(cls, message: queue_pb2.QueueEntry) -> Self:
        """Return what the message says."""
        return cls(
            user_id=str(message.user_id),
            queue=QUEUES.name(message.queue),
            state=ENTRY_STATES.name(message.state),
            score=message.score,
            attempts=message.attempts,
            last_outcome=OUTCOMES.name(message.last_outcome),
            next_call_at=moment_in(message, "next_call_at"),
            entered_at=moment_in(message, "entered_at"),
            reason=message.reason,
            assigned_agent_id=message.assigned_agent_id or None,
            hold=HOLDS.name(message.hold),
        )


class QueueEntries(BaseModel):
    """One page of a queue, in the order in which people are handed out."""

    entries: list[QueueEntry]
    next_page_token: str | None = Field(description="null at the end.")


class QueueRoutes:
    """The sizes and entries of the queues."""

    def __init__(self, queue: "QueueServiceAsyncStub") -> None:
        self._queue = queue

    async def stats(self) -> Queues:
        """The sizes of all queues, and today's figures."""
        return Queues.of(await self._queue.GetQueueStats(queue_pb2.GetQueueStatsRequest()))

    async def entries(
        self,
        caller: CallerOf,
        queue: QueueName,
        state: Annotated[EntryState, Query(description="Only people in this state.")] = (
            EntryState.READY
        ),
        page_size: Annotated[int, Query(ge=1, le=1000, description="Above 200 is 200.")] = 50,
        page_token: Annotated[
            str, Query(max_length=500, description="`next_page_token` of the page before.")
        ] = "",
        hold: Annotated[
            Hold | SkipJsonSchema[None], Query(description="Only people held by this.")
        ] = None,
        reason: Annotated[
            UpperSnake | SkipJsonSchema[None],
            Query(
                description="Only people in the queue, or ineligible, for this reason. With the "
                "state `out`, `NO_CALLABLE_NUMBER` lists people without any number that can be "
                "called.",
                examples=["NO_SIGNATURE"],
            ),
        ] = None,
        last_outcome: Annotated[
            Outcome | SkipJsonSchema[None],
            Query(description="Only people whose last call had this outcome."),
        ] = None,
        agent_id: AgentIdQuery = None,
        attempts_at_least: Annotated[
            int, Query(ge=0, le=10_000, description="Only people with at least so many calls.")
        ] = 0,
    ) -> QueueEntries:
        """One page of a queue in the order in which people are handed out."""
        require_queues(caller, [queue])
        answer = await self._queue.ListEntries(
            queue_pb2.ListEntriesRequest(
                queue=QUEUES.number(queue),
                state=ENTRY_STATES.number(state),
                page_size=page_size,
                page_token=page_token,
                hold=HOLDS.number(hold),
                reason=reason or "",
                last_outcome=OUTCOMES.number(last_outcome),
                agent_id=agent_id or "",
                attempts_at_least=attempts_at_least,
            )
        )
        return QueueEntries(
            entries=[QueueEntry.of(each) for each in answer.entries],
            next_page_token=answer.next_page_token or None,
        )
