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
from simulation.checker.reading import phones_of
from simulation.history import (
    AgentLimited,
    CallbackChanged,
    CallbackRecord,
    ClaimRecord,
    HandOutRecord,
    HeartbeatRecord,
    LiftRecord,
    OutcomeRecord,
    PhonesImported,
    PresenceSet,
    Record,
    ReleaseRecord,
    SuppressionRecord,
    WeekHistory,
    Window,
)

A = TypeVar("A")

SUPERVISOR = "supervisor-1"

_RELEASES = {
    "skipped": queue_pb2.RELEASE_REASON_SKIPPED,
    "leaving": queue_pb2.RELEASE_REASON_AGENT_LEAVING,
}


@dataclass(frozen=True, slots=True)
class QueueAnswer(Generic[A]):
    """An answer or the reason of an error, and when."""

    at: datetime
    window: Window
    answer: A | None
    error: str


class SimulatedDesk:
    """Asks, waits for the answer and writes both down; never raises what the queue answers."""

    def __init__(
        self, stub: "queue_pb2_grpc.QueueServiceAsyncStub", history: WeekHistory, clock: Clock
    ) -> None:
        self._stub = stub
        self._history = history
        self._clock = clock
        self.errors: Counter[str] = Counter()
        # The ids of those that stand, by number.
        self.bare_objections: dict[str, str] = {}

    async def _ask(self, call: Awaitable[A]) -> "QueueAnswer[A]":
        at, began = self._clock.now(), time.perf_counter()
        answer, error = None, ""
        try:
            answer = await call
        except ServiceError as failure:
            error = failure.reason
        return QueueAnswer(at, Window(began, time.perf_counter()), answer, error)

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
    ) -> ClaimRecord:
        """Ask for a person; without much time the answer may be lost."""
        request = queue_pb2.ClaimNextRequest(
            agent_id=agent_id, request_id=request_id, queues=[_queue_number(it) for it in queues]
        )
        asked = await self._ask(self._stub.ClaimNext(request, timeout=timeout_seconds))
        answer = asked.answer or queue_pb2.ClaimNextResponse()
        record = ClaimRecord(
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

    async def heartbeat(self, given: HandOutRecord) -> bool:
        """Say that the call goes on; False when the lease has ended."""
        request = queue_pb2.HeartbeatAssignmentRequest(
            assignment_id=given.assignment_id, agent_id=given.agent_id
        )
        asked = await self._ask(self._stub.HeartbeatAssignment(request))
        until = None
        if asked.answer is not None:
            until = asked.answer.assignment.lease_expires_at.ToDatetime(tzinfo=UTC)
        self._note(HeartbeatRecord(asked.at, asked.window, given.assignment_id, until, asked.error))
        return not asked.error

    async def release(self, given: HandOutRecord, how: str, request_id: str) -> None:
        """Release a person."""
        request = queue_pb2.ReleaseAssignmentRequest(
            assignment_id=given.assignment_id,
            agent_id=given.agent_id,
            reason=_RELEASES[how],
            request_id=request_id,
        )
        asked = await self._ask(self._stub.ReleaseAssignment(request))
        self._note(ReleaseRecord(asked.at, asked.window, given.assignment_id, how, asked.error))

    async def force_release(self, given: HandOutRecord, request_id: str) -> None:
        """Take a person from an agent."""
        request = queue_pb2.ForceReleaseAssignmentRequest(
            assignment_id=given.assignment_id,
            actor_id=SUPERVISOR,
            notes="gone home",
            request_id=request_id,
        )
        asked = await self._ask(self._stub.ForceReleaseAssignment(request))
        self._note(
            ReleaseRecord(asked.at, asked.window, given.assignment_id, "forced", asked.error)
        )

    async def record(
        self,
        given: HandOutRecord,
        outcome: str,
        request_id: str,
        *,
        notes: str = "",
        callback_at: datetime | None = None,
    ) -> OutcomeRecord:
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
        record = OutcomeRecord(
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
    ) -> CallbackRecord | None:
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
            CallbackChanged(
                asked.at, asked.window, "scheduled", changed, user_id, asked.error, moment
            )
        )
        return changed

    async def reschedule(self, callback: CallbackRecord, moment: datetime, request_id: str) -> None:
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
            CallbackChanged(
                asked.at, asked.window, "moved", changed, callback.user_id, asked.error, moment
            )
        )

    async def cancel(self, callback: CallbackRecord, request_id: str) -> None:
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

    async def callbacks(self, state: str) -> list[CallbackRecord]:
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

    async def object_to_calls(self, user_id: int, actor_id: str, request_id: str) -> None:
        """Record an objection of a person that an actor heard outside a call."""
        request = queue_pb2.SuppressUserRequest(
            user_id=user_id, actor_id=actor_id, notes="asked in writing", request_id=request_id
        )
        asked = await self._ask(self._stub.SuppressUser(request))
        self._note(SuppressionRecord(asked.at, asked.window, user_id, asked.error))

    async def object_to_number(self, written: str, actor_id: str, request_id: str) -> None:
        """Record an objection to a bare number, which holds exactly one number."""
        request = queue_pb2.SuppressUserRequest(
            phone=written, actor_id=actor_id, notes="a stranger answered", request_id=request_id
        )
        asked = await self._ask(self._stub.SuppressUser(request))
        (phone,) = phones_of(written)
        if asked.answer is not None:
            self.bare_objections[phone] = asked.answer.suppression_id
        self._note(SuppressionRecord(asked.at, asked.window, 0, asked.error, phone))

    async def lift(self, user_id: int, what: str, request_id: str) -> None:
        """Lift the objection or the no_claim mark of a person, or the only one when not said."""
        request = queue_pb2.LiftSuppressionRequest(
            user_id=user_id,
            actor_id=SUPERVISOR,
            notes="asked to be called",
            request_id=request_id,
            what=queue_pb2.Lifted.Value(f"LIFTED_{what.upper() or 'UNSPECIFIED'}"),
        )
        asked = await self._ask(self._stub.LiftSuppression(request))
        self._note(LiftRecord(asked.at, asked.window, user_id, asked.error, what))

    async def lift_number(self, phone: str, request_id: str) -> None:
        """Lift the objection to a bare number, as the checker writes it."""
        request = queue_pb2.LiftSuppressionRequest(
            suppression_id=self.bare_objections.pop(phone),
            actor_id=SUPERVISOR,
            notes="belongs to another person now",
            request_id=request_id,
        )
        asked = await self._ask(self._stub.LiftSuppression(request))
        self._note(LiftRecord(asked.at, asked.window, 0, asked.error, phone=phone))

    async def objections(self) -> frozenset[int | str]:
        """Return the people and the bare numbers of whom an objection stands."""
        found: set[int | str] = set()
        request = queue_pb2.ListSuppressionsRequest(page_size=200)
        while True:
            page = await self._stub.ListSuppressions(request)
            for it in page.suppressions:
                found.update([it.user_id] if it.user_id else phones_of(it.phone_e164))
            if not page.next_page_token:
                return frozenset(found)
            request.page_token = page.next_page_token

    async def rebuild(self) -> None:
        """Have every person compared and repaired, and wait for the end."""
        request = queue_pb2.RebuildRequest(actor_id=SUPERVISOR)
        try:
            async for _ in self._stub.Rebuild(request):
                pass
        except ServiceError as failure:
            self.errors[f"Rebuild: {failure.reason}"] += 1

    async def import_phones(self, numbers: Sequence[str]) -> None:
        """Take over a list of numbers that may not be called."""

        async def parts() -> AsyncIterator[queue_pb2.ImportSuppressedPhonesRequest]:
            yield queue_pb2.ImportSuppressedPhonesRequest(
                list_name="tps", actor_id=SUPERVISOR, is_complete=True, allow_shrink=True
            )
            lines = "".join(f'"{number}"\r\n' for number in ("phone", *numbers)).encode()
            for first in range(0, len(lines), 1_000):
                part = lines[first : first + 1_000]
                yield queue_pb2.ImportSuppressedPhonesRequest(csv=part)
            yield queue_pb2.ImportSuppressedPhonesRequest(is_last=True)

        asked = await self._ask(_imported(self._stub.ImportSuppressedPhones(parts())))
        phones = frozenset(phone for written in numbers for phone in phones_of(written))
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
    """Return a request id of the participant's own."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def queue_name(number: int) -> str:
    """Return a queue's name as the history has it."""
    name = call_state_pb2.Queue.Name(number)  # type: ignore[arg-type]
    return name.removeprefix("QUEUE_").lower()


def _queue_number(name: str) -> "call_state_pb2.Queue.ValueType":
    return call_state_pb2.Queue.Value(f"QUEUE_{name.upper()}")


def _hand_out(message: queue_pb2.Assignment) -> HandOutRecord:
    return HandOutRecord(
        message.assignment_id,
        message.agent_id,
        message.user_id,
        queue_name(message.queue),
        message.started_at.ToDatetime(tzinfo=UTC),
        message.lease_expires_at.ToDatetime(tzinfo=UTC),
    )


def _callback(message: call_state_pb2.Callback) -> CallbackRecord:
    state = call_state_pb2.CallbackState.Name(message.state)
    return CallbackRecord(
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
