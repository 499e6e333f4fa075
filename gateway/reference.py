"""Reference data: queues, outcomes with their rules, reasons, and every enumeration."""

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self

from dialler.queue.v1 import queue_pb2
from fastapi import Header, Response
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from gateway.access_trail import View
from gateway.agents import Presence
from gateway.fields import optional_in
from gateway.schemas import (
    CallbackState,
    Conversion,
    EntryState,
    EventType,
    Hold,
    Outcome,
    QueueName,
    ReleaseReason,
    name_in,
    outcome_name,
)
from servicekit.clock import Clock
from servicekit.errors import ServiceError

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

# How long clients may go by it, and how long it is not asked for anew here.
CACHED_SECONDS = 3_600
KEPT_SECONDS = 60.0


class CallbackRule(StrEnum):
    """Whether an outcome makes a callback."""

    NEVER = "never"
    ALLOWED = "allowed"
    ALWAYS = "always"
    IMMEDIATE = "immediate"


class OutcomeRule(BaseModel):
    """What one outcome leads to."""

    outcome: Outcome
    sets_score: float | None = Field(description="null: it adds points instead.")
    adds_points: float | None = Field(description="null: it sets the score instead.")
    next_call_hours: float | None = Field(description="0: at once; null: never.")
    callback: CallbackRule | None = Field(
        description="allowed: when `callback_at` is given; always: it should be given; never and "
        "immediate: it may not be given."
    )
    notes_required: bool
    stops_calls: bool = Field(description="Until a supervisor says otherwise.")

    @classmethod
    def of(cls, message: queue_pb2.OutcomeRule) -> Self | None:
        """Return what the message says; None for an outcome newer than we are."""
        outcome = outcome_name(message.outcome)
        if outcome is None:
            return None
        rule = name_in(queue_pb2.CallbackRule.Name, "CALLBACK_RULE_", message.callback)
        numbers = ("sets_score", "adds_points", "next_call_hours")
        said = {it: optional_in(message, it) for it in numbers}
        return cls(
            outcome=outcome,
            callback=CallbackRule(rule) if rule else None,
            notes_required=message.notes_required,
            stops_calls=message.stops_calls,
            **said,
        )


class CallLimits(BaseModel):
    """Limits on calls and on what an agent may say of them."""

    callback_longest_days: float
    notes_longest_characters: int
    attempts_per_day: int
    attempts_per_period: int
    period_days: int
    lease_seconds: float = Field(description="Send a heartbeat well within it.")


class Reference(BaseModel):
    """What a desk must know of the rules, and every enumeration of this API."""

    outcomes: list[OutcomeRule]
    limits: CallLimits
    company_time_zone: str = Field(examples=["Europe/London"])
    reasons: list[str] = Field(description="Why people are in a queue, or kept out of one.")
    queues: list[QueueName]
    entry_states: list[EntryState]
    holds: list[Hold]
    callback_states: list[CallbackState]
    conversions: list[Conversion]
    release_reasons: list[ReleaseReason]
    presences: list[Presence]
    event_types: list[EventType]
    audit_actions: list[str]

    @classmethod
    def of(cls, message: queue_pb2.GetReferenceResponse) -> Self:
        """Return what the message says."""
        return cls(
            outcomes=[rule for it in message.outcomes if (rule := OutcomeRule.of(it))],
            limits=CallLimits(
                callback_longest_days=message.callback_longest_days,
                notes_longest_characters=message.notes_longest_characters,
                attempts_per_day=message.attempts_per_day,
                attempts_per_period=message.attempts_per_period,
                period_days=message.period_days,
                lease_seconds=message.lease_seconds,
            ),
            company_time_zone=message.company_time_zone,
            reasons=list(message.reasons),
            queues=list(QueueName),
            entry_states=list(EntryState),
            holds=list(Hold),
            callback_states=list(CallbackState),
            conversions=list(Conversion),
            release_reasons=list(ReleaseReason),
            presences=list(Presence),
            event_types=list(EventType),
            audit_actions=[*message.actions, *View],
        )


class ReferenceRoutes:
    """Reference data; what was last known while the queue is away."""

    def __init__(self, queue: "QueueServiceAsyncStub", clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._body = b""
        self._etag = ""
        self._kept_until = 0.0

    async def reference(
        self,
        if_none_match: Annotated[
            str | SkipJsonSchema[None],
            Header(description="The `ETag` of the version the client holds."),
        ] = None,
    ) -> Response:
        """Queues, outcomes with their rules, reasons and every enumeration; good for an hour."""
        if self._clock.monotonic() >= self._kept_until:
            await self._ask()
        headers = {
            "ETag": self._etag,
            "Cache-Control": f"private, max-age={CACHED_SECONDS}",
            "Vary": "Authorization",
        }
        sent = (if_none_match or "").split(",")
        if any(it.strip() in (self._etag, "*") for it in sent):
            return Response(None, 304, headers)
        return Response(self._body, 200, headers, "application/json")

    async def _ask(self) -> None:
        try:
            answer = await self._queue.GetReference(queue_pb2.GetReferenceRequest())
        except ServiceError:
            if not self._body:
                raise
            return
        self._body = Reference.of(answer).model_dump_json().encode()
        # Weak: compressed or not, it says the same.
        self._etag = f'W/"{hashlib.blake2b(self._body, digest_size=12).hexdigest()}"'
        self._kept_until = self._clock.monotonic() + KEPT_SECONDS
