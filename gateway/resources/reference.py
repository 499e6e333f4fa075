"""Reference data: queues, outcomes with their rules, reasons, and every enumeration."""

import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Self

from dialler.queue.v1 import queue_pb2
from fastapi import Header, Response
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from gateway.access.audit import ViewAction
from gateway.resources.agents import Presence
from gateway.resources.assignments import ReleaseReason
from gateway.resources.callbacks import CallbackState
from gateway.resources.fields import (
    OUTCOMES,
    CallDirection,
    Conversion,
    EntryState,
    EnumNames,
    EventType,
    Hold,
    Outcome,
    QueueName,
    optional_in,
)
from gateway.resources.suppressions import SuppressionKind
from servicekit.clock import Clock
from servicekit.errors import ServiceError

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

# For how long clients may cache it, and for how long this process does.
CACHED_SECONDS = 3_600
KEPT_SECONDS = 60.0


class CallbackRule(StrEnum):
    """Whether an outcome makes a callback."""

    NEVER = "never"
    ALLOWED = "allowed"
    ALWAYS = "always"
    IMMEDIATE = "immediate"


CALLBACK_RULES = EnumNames(CallbackRule, queue_pb2.CallbackRule)


class OutcomeRule(BaseModel):
    """The rules of one outcome."""

    outcome: Outcome
    sets_score: float | None = Field(description="null: the outcome adds points instead.")
    adds_points: float | None = Field(description="null: the outcome sets the score instead.")
    next_call_hours: float | None = Field(description="0: at once; null: never.")
    callback: CallbackRule | None = Field(
        description="allowed: when `callback_at` is given; always: it should be given; never and "
        "immediate: it may not be given."
    )
    notes_required: bool
    stops_calls: bool = Field(description="Whether calls stop until a supervisor lifts that.")
    is_conversation: bool = Field(
        description="Whether the agent spoke with the person, so that a conversion may be credited "
        "to the agent."
    )
    holds_number: bool = Field(
        description="Whether other people are not called on the number for `next_call_hours` "
        "either."
    )
    until_phone_changes: bool = Field(
        description="Whether another number of the person ends the wait for the next call."
    )

    @classmethod
    def of(cls, message: queue_pb2.OutcomeRule) -> Self | None:
        """Return what the message says; None for an outcome newer than this gateway."""
        outcome = OUTCOMES.name(message.outcome)
        if outcome is None:
            return None
        numbers = ("sets_score", "adds_points", "next_call_hours")
        return cls(
            outcome=outcome,
            callback=CALLBACK_RULES.name(message.callback),
            notes_required=message.notes_required,
            stops_calls=message.stops_calls,
            is_conversation=message.is_conversation,
            holds_number=message.holds_number,
            until_phone_changes=message.until_phone_changes,
            **{it: optional_in(message, it) for it in numbers},
        )


class Disposition(BaseModel):
    """A way for a call to end that supervisors have named; its effects are those of `outcome`."""

    code: str = Field(examples=["moved_abroad"])
    label: str = Field(examples=["Moved abroad"])
    outcome: Outcome

    @classmethod
    def of(cls, message: queue_pb2.Disposition) -> Self | None:
        """Return what the message says; None for an outcome newer than this gateway."""
        outcome = OUTCOMES.name(message.outcome)
        if outcome is None:
            return None
        return cls(code=message.code, label=message.label, outcome=outcome)


class CallLimits(BaseModel):
    """Limits on calls and on their reports."""

    callback_longest_days: float
    notes_longest_characters: int
    attempts_per_day: int
    attempts_per_period: int
    period_days: int
    lease_seconds: float = Field(description="Send a heartbeat well before its end.")
    amend_minutes: float = Field(description="For how long after a report its agent may amend it.")
    unreported_rest_minutes: float = Field(
        description="For how long a person is not called after a call without a report."
    )


class Reference(BaseModel):
    """What a desk needs of the rules, and every enumeration of this API."""

    outcomes: list[OutcomeRule]
    dispositions: list[Disposition] = Field(
        description="Further ways for a call to end, which the rules name."
    )
    limits: CallLimits
    company_time_zone: str = Field(examples=["Europe/London"])
    agents_may_choose: bool = Field(
        description="Whether agents may take a person of their own choice to phone (`manual`)."
    )
    reasons: list[str] = Field(description="Why people are in a queue, or ineligible for it.")
    queues: list[QueueName]
    entry_states: list[EntryState]
    holds: list[Hold]
    call_directions: list[CallDirection]
    callback_states: list[CallbackState]
    conversions: list[Conversion]
    suppression_kinds: list[SuppressionKind]
    release_reasons: list[ReleaseReason]
    presences: list[Presence]
    event_types: list[EventType]
    audit_actions: list[str]

    @classmethod
    def of(cls, message: queue_pb2.GetReferenceResponse) -> Self:
        """Return what the message says."""
        return cls(
            outcomes=[rule for it in message.outcomes if (rule := OutcomeRule.of(it))],
            dispositions=[named for it in message.dispositions if (named := Disposition.of(it))],
            limits=CallLimits(
                callback_longest_days=message.callback_longest_days,
                notes_longest_characters=message.notes_longest_characters,
                attempts_per_day=message.attempts_per_day,
                attempts_per_period=message.attempts_per_period,
                period_days=message.period_days,
                lease_seconds=message.lease_seconds,
                amend_minutes=message.amend_minutes,
                unreported_rest_minutes=message.unreported_rest_minutes,
            ),
            company_time_zone=message.company_time_zone,
            agents_may_choose=message.agents_may_choose,
            reasons=list(message.reasons),
            queues=list(QueueName),
            entry_states=list(EntryState),
            holds=list(Hold),
            call_directions=list(CallDirection),
            callback_states=list(CallbackState),
            conversions=list(Conversion),
            suppression_kinds=list(SuppressionKind),
            release_reasons=list(ReleaseReason),
            presences=list(Presence),
            event_types=list(EventType),
            audit_actions=[*message.actions, *ViewAction],
        )


class ReferenceRoutes:
    """Reference data; the last version while the queue is unavailable."""

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
        """Queues, outcomes with their rules, reasons and every enumeration; valid for an hour."""
        if self._clock.monotonic() >= self._kept_until:
            try:
                answer = await self._queue.GetReference(queue_pb2.GetReferenceRequest())
            except ServiceError:
                # The last version is served until the queue answers.
                if not self._body:
                    raise
            else:
                self._body = Reference.of(answer).model_dump_json().encode()
                # Weak: the same content compressed or not.
                self._etag = f'W/"{hashlib.blake2b(self._body, digest_size=12).hexdigest()}"'
                self._kept_until = self._clock.monotonic() + KEPT_SECONDS
        headers = {
            "ETag": self._etag,
            "Cache-Control": f"private, max-age={CACHED_SECONDS}",
            "Vary": "Authorization",
        }
        sent = (if_none_match or "").split(",")
        if any(it.strip() in (self._etag, "*") for it in sent):
            return Response(None, 304, headers)
        return Response(self._body, 200, headers, "application/json")
