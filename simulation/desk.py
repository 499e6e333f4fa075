"""The queue's RPCs as agents and supervisors use them, each written into the history."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Generic, TypeVar
from uuid import UUID

import grpc.aio
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.clock import Clock
from servicekit.error_codec import from_grpc
from servicekit.errors import ServiceError
from simulation.checker.reading import phone_of
from simulation.history import (
    AgentLimited,
    Callback,
    CallbackChanged,
    Claimed,
    Extended,
    HandOut,
    History,
    Lifted,
    PhonesImported,
    PresenceSet,
    Record,
    Recorded,
    Released,
    Suppressed,
    Window,
)

A = TypeVar("A")

SUPERVISOR = "supervisor-1"

_RELEASES = {
    "skipped": queue_pb2.RELEASE_REASON_SKIPPED,
    "leaving": queue_pb2.RELEASE_REASON_AGENT_LEAVING,
}


@dataclass(frozen=True, slots=True)
class Asked(Generic[A]):
    """An answer or the reason of an error, and when."""

    at: datetime
    window: Window
    answer: A | None
    error: str


class Desk:
    """Asks, waits for the answer and writes both down; never raises what the queue answers."""

    def __init__(
        self, stub: "queue_pb2_grpc.QueueServiceAsyncStub", history: History, clock: Clock
    ) -> None:
        self._stub = stub
        self._history = history
        self._clock = clock
        self.errors: Counter[str] = Counter()

    async def _ask(self, call: Awaitable[A]) -> "Asked[A]":
        at, began = self._clock.now(), time.perf_counter()
        answer, error = None, ""
        try:
            answer = await call
        except ServiceError as failure:
            error = failure.reason
        return Asked(at, Window(began, time.perf_counter()), answer, error)

    def _note(self, record: Record) -> None:
        self._history.records.append(record)
        if record_error := getattr(record, "error", ""):
            self.errors[f"{type(record).__name__}: {record_error}"] += 1

    async def claim(
        self,
        agent_id: str,
        request_id: str,
        queues: Sequence[str] = (),
        *,
        timeout_seconds: float | None = None,
    ) -> Claimed:
        """Ask for somebody; without much time the answer may be lost."""
        request = queue_pb2.ClaimNextRequest(
            agent_id=agent_id, request_id=request_id, queues=[_queue_number(it) for it in queues]
        )
        asked = await self._ask(self._stub.ClaimNext(request, timeout=timeout_seconds))
        answer = asked.answer or queue_pb2.ClaimNextResponse()
        record = Claimed(
            asked.at,
            asked.window,
            agent_id,
            request_id,
            tuple(queues),
            _hand_out(answer.assignment) if answer.HasField("assignment") else None,
            answer.already_held,
            answer.rejected_by_live_check,
            asked.error,
        )
        self._note(record)
        return record

    async def heartbeat(self, given: HandOut) -> bool:
        """Say that the call goes on; False when the lease has ended."""
        request = queue_pb2.HeartbeatAssignmentRequest(
            assignment_id=given.assignment_id, agent_id=given.agent_id
        )
        asked = await self._ask(self._stub.HeartbeatAssignment(request))
        until = None
        if asked.answer is not None:
            until = asked.answer.assignment.lease_expires_at.ToDatetime(tzinfo=UTC)
        self._note(Extended(asked.at, asked.window, given.assignment_id, until, asked.error))
        return not asked.error

    async def release(self, given: HandOut, how: str, request_id: str) -> None:
        """Give somebody back."""
        request = queue_pb2.ReleaseAssignmentRequest(
            assignment_id=given.assignment_id,
            agent_id=given.agent_id,
            reason=_RELEASES[how],
            request_id=request_id,
        )
        asked = await self._ask(self._stub.ReleaseAssignment(request))
        self._note(Released(asked.at, asked.window, given.assignment_id, how, asked.error))

    async def force_release(self, given: HandOut, request_id: str) -> None:
        """Take somebody from an agent."""
        request = queue_pb2.ForceReleaseAssignmentRequest(
            assignment_id=given.assignment_id,
            actor_id=SUPERVISOR,
            notes="gone home",
            request_id=request_id,
        )
        asked = await self._ask(self._stub.ForceReleaseAssignment(request))
        self._note(Released(asked.at, asked.window, given.assignment_id, "forced", asked.error))

    async def record(
        self,
        given: HandOut,
        outcome: str,
        request_id: str,
        *,
        notes: str = "",
        callback_at: datetime | None = None,
    ) -> Recorded:
        """Say how the call ended."""
        request = queue_pb2.RecordOutcomeRequest(
            assignment_id=given.assignment_id,
            agent_id=given.agent_id,
            outcome=call_state_pb2.Outcome.Value(f"OUTCOME_{outcome.upper()}"),
            notes=notes,
            callback_at=_timestamp(callback_at),
            request_id=request_id,
        )
        asked = await self._ask(self._stub.RecordOutcome(request))
        answer = asked.answer or queue_pb2.RecordOutcomeResponse()
        state = answer.call_state
        record = Recorded(
            asked.at,
            asked.window,
            given.assignment_id,
            given.agent_id,
            request_id,
            outcome,
            notes,
            callback_at,
            _callback(state.open_callback) if state.HasField("open_callback") else None,
            asked.error,
        )
        self._note(record)
        return record

    async def say(self, agent_id: str, presence: str) -> None:
        """Say what an agent is doing."""
        number = queue_pb2.Presence.Value(f"PRESENCE_{presence.upper()}")
        request = queue_pb2.SetAgentPresenceRequest(agent_id=agent_id, presence=number)
        asked = await self._ask(self._stub.SetAgentPresence(request))
        self._note(PresenceSet(asked.at, asked.window, agent_id, presence, asked.error))

    async def limit(self, agent_id: str, queues: Sequence[str]) -> None:
        """Limit an agent to some queues."""
        request = queue_pb2.SetAgentQueuesRequest(
            agent_id=agent_id,
            allowed_queues=[_queue_number(it) for it in queues],
            actor_id=SUPERVISOR,
        )
        asked = await self._ask(self._stub.SetAgentQueues(request))
        self._note(AgentLimited(asked.at, asked.window, agent_id, tuple(queues), asked.error))

    async def schedule(
        self, user_id: int, moment: datetime, preferred: str, request_id: str
    ) -> Callback | None:
        """Agree a callback."""
        request = queue_pb2.ScheduleCallbackRequest(
            user_id=user_id,
            scheduled_for=_timestamp(moment),
            preferred_agent_id=preferred,
            notes="rang in",
            actor_id=SUPERVISOR,
            request_id=request_id,
        )
        asked = await self._ask(self._stub.ScheduleCallback(request))
        changed = _callback(asked.answer.callback) if asked.answer is not None else None
        self._note(
            CallbackChanged(asked.at, asked.window, "scheduled", changed, user_id, asked.error)
        )
        return changed

    async def reschedule(self, callback: Callback, moment: datetime, request_id: str) -> None:
        """Move a callback."""
        request = queue_pb2.RescheduleCallbackRequest(
            callback_id=callback.callback_id,
            scheduled_for=_timestamp(moment),
            actor_id=SUPERVISOR,
            request_id=request_id,
        )
        asked = await self._ask(self._stub.RescheduleCallback(request))
        changed = _callback(asked.answer.callback) if asked.answer is not None else None
        self._note(
            CallbackChanged(asked.at, asked.window, "moved", changed, callback.user_id, asked.error)
        )

    async def cancel(self, callback: Callback, request_id: str) -> None:
        """Call a callback off."""
        request = queue_pb2.CancelCallbackRequest(
            callback_id=callback.callback_id, actor_id=SUPERVISOR, request_id=request_id
        )
        asked = await self._ask(self._stub.CancelCallback(request))
        changed = _callback(asked.answer.callback) if asked.answer is not None else None
        self._note(
            CallbackChanged(
                asked.at, asked.window, "cancelled", changed, callback.user_id, asked.error
            )
        )

    async def callbacks(self, state: str) -> list[Callback]:
        """Return the first callbacks of a state, the earliest first."""
        number = call_state_pb2.CallbackState.Value(f"CALLBACK_STATE_{state.upper()}")
        request = queue_pb2.ListCallbacksRequest(state=number, page_size=50)
        asked = await self._ask(self._stub.ListCallbacks(request))
        return [_callback(it) for it in asked.answer.callbacks] if asked.answer else []

    async def heads(self, queue: str) -> list[int]:
        """Return the people at the head of a queue, first to last."""
        request = queue_pb2.ListEntriesRequest(queue=_queue_number(queue), page_size=60)
        asked = await self._ask(self._stub.ListEntries(request))
        return [it.user_id for it in asked.answer.entries] if asked.answer else []

    async def suppress(self, user_id: int, request_id: str) -> None:
        """Stop every call to somebody."""
        request = queue_pb2.SuppressUserRequest(
            user_id=user_id, actor_id=SUPERVISOR, notes="asked in writing", request_id=request_id
        )
        asked = await self._ask(self._stub.SuppressUser(request))
        self._note(Suppressed(asked.at, asked.window, user_id, asked.error))

    async def lift(self, user_id: int, request_id: str) -> None:
        """Let somebody be called again."""
        request = queue_pb2.LiftSuppressionRequest(
            user_id=user_id, actor_id=SUPERVISOR, notes="asked to be called", request_id=request_id
        )
        asked = await self._ask(self._stub.LiftSuppression(request))
        self._note(Lifted(asked.at, asked.window, user_id, asked.error))

    async def rebuild(self) -> None:
        """Have everybody brought in line, and wait for the end of it."""
        request = queue_pb2.RebuildRequest(actor_id=SUPERVISOR)
        try:
            async for _ in self._stub.Rebuild(request):
                pass
        except ServiceError as failure:
            self.errors[f"Rebuild: {failure.reason}"] += 1

    async def import_phones(self, numbers: Sequence[str]) -> None:
        """Take over a list of numbers nobody may call."""

        async def parts() -> AsyncIterator[queue_pb2.ImportSuppressedPhonesRequest]:
            yield queue_pb2.ImportSuppressedPhonesRequest(
                list_name="tps", actor_id=SUPERVISOR, is_complete=True
            )
            lines = "".join(f'"{number}"\r\n' for number in ("phone", *numbers)).encode()
            for first in range(0, len(lines), 1_000):
                part = lines[first : first + 1_000]
                yield queue_pb2.ImportSuppressedPhonesRequest(csv=part)

        asked = await self._ask(_imported(self._stub.ImportSuppressedPhones(parts())))
        phones = frozenset(filter(None, map(phone_of, numbers)))
        self._note(PhonesImported(asked.at, asked.window, phones, asked.error))


async def _imported(
    call: Awaitable[queue_pb2.ImportSuppressedPhonesResponse],
) -> queue_pb2.ImportSuppressedPhonesResponse:
    """Client streams raise gRPC's own errors."""
    try:
        return await call
    except grpc.aio.AioRpcError as failure:
        raise from_grpc(failure, "queue") from failure


def request_id(rng: Random) -> str:
    """Return a request id of somebody's own."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def queue_name(number: int) -> str:
    """Return a queue's name as the history has it."""
    name = call_state_pb2.Queue.Name(number)  # type: ignore[arg-type]
    return name.removeprefix("QUEUE_").lower()


def _queue_number(name: str) -> "call_state_pb2.Queue.ValueType":
    return call_state_pb2.Queue.Value(f"QUEUE_{name.upper()}")


def _hand_out(message: queue_pb2.Assignment) -> HandOut:
    return HandOut(
        message.assignment_id,
        message.agent_id,
        message.user_id,
        queue_name(message.queue),
        message.started_at.ToDatetime(tzinfo=UTC),
        message.lease_expires_at.ToDatetime(tzinfo=UTC),
    )


def _callback(message: call_state_pb2.Callback) -> Callback:
    state = call_state_pb2.CallbackState.Name(message.state)
    return Callback(
        message.callback_id,
        message.user_id,
        message.scheduled_for.ToDatetime(tzinfo=UTC),
        message.preferred_agent_id,
        state.removeprefix("CALLBACK_STATE_").lower(),
    )


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message
