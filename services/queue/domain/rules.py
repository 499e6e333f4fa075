"""The numbers and words that decide which person is called when: plain values.

`services.queue.rules` reads them from a file and validates them; rules.yaml explains each.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from services.queue.types import ContactBlock, Outcome, Queue


@dataclass(frozen=True, kw_only=True)
class ExcludedRequirement:
    """A requirement type that does not count when its reason is exactly this."""

    type: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class EligibilityRules:
    """What the words in the main app's columns mean."""

    inactive_user_statuses: tuple[str, ...]
    ended_claim_statuses: tuple[str, ...]
    pending_requirement_statuses: tuple[str, ...]
    excluded_requirement_types: tuple[str, ...]
    excluded_requirements: tuple[ExcludedRequirement, ...]


@dataclass(frozen=True, kw_only=True)
class AttemptStep:
    """Points each attempt with a number above `above` adds, up to the next step."""

    above: int
    add: float


@dataclass(frozen=True, kw_only=True)
class AgeStep:
    """Points of a person of that age and older, up to the next step."""

    from_age: int
    add: float


@dataclass(frozen=True, kw_only=True)
class ScoreRules:
    """Points; 0 is hottest."""

    fresh: float
    frozen: float
    ageing_per_week: float
    attempts: tuple[AttemptStep, ...]
    lenders: Mapping[str, float]
    ages: tuple[AgeStep, ...]
    claim_age_per_day: float
    contact_age_per_day: float


@dataclass(frozen=True, kw_only=True)
class ScoreEffect:
    """What an outcome does to the score: exactly one of the two."""

    set: float | None
    add: float | None


class CallbackRule(StrEnum):
    """Whether an outcome makes a callback: if a time is given, in any case, or at once."""

    NEVER = "never"
    ALLOWED = "allowed"
    ALWAYS = "always"
    IMMEDIATE = "immediate"


@dataclass(frozen=True, kw_only=True)
class OutcomeRules:
    """What one outcome leads to.

    `block` ends calls until a supervisor lifts it; `is_conversation` tells that the agent spoke
    with the person; `holds_number` that other people are not called on the number either, for
    `next_call_hours`.
    """

    score: ScoreEffect
    next_call_hours: float | None
    callback: CallbackRule
    is_conversation: bool
    notes_required: bool
    until_phone_changes: bool
    holds_number: bool
    live_check_decides: bool
    block: ContactBlock | None


@dataclass(frozen=True, kw_only=True)
class DispositionRules:
    """A way for a call to end that supervisors have named; its effects are those of `outcome`."""

    code: str
    label: str
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class CallRules:
    """When a person may be phoned, and what an agent may say about it."""

    cooling_hours: float
    attempts_per_day: int
    attempts_per_period: int
    period_days: int
    shared_phone_hours: float
    unreported_rest_minutes: float
    placeholder_people: int
    conversion_credit_days: float
    callback_longest_days: float
    notes_longest_characters: int
    company_time_zone: str


@dataclass(frozen=True, kw_only=True)
class CallbackRules:
    """Which agent is offered a callback first, and what becomes of a missed one."""

    preferred_minutes: float
    retry_minutes: float
    retries: int


@dataclass(frozen=True, kw_only=True)
class PhoneListRules:
    """When a list of numbers that must not be called counts as old, by the list's name."""

    oldest_days: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class AgentRules:
    """When an agent counts as present or in a call, and whom it may skip, keep and choose."""

    presence_seconds: float
    skips_per_hour: int | None
    open_callbacks: int | None
    may_choose: bool
    longest_call_seconds: float


@dataclass(frozen=True, kw_only=True)
class PauseRules:
    """How long a pause of hand-outs may last."""

    longest_days: float


class Day(StrEnum):
    """A day of the week, in the order of `date.weekday`."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


@dataclass(frozen=True, kw_only=True)
class DayHours:
    """From when until when people are phoned, in minutes since midnight."""

    begins_minute: int
    ends_minute: int


@dataclass(frozen=True, kw_only=True)
class CallingHoursRules:
    """When people are phoned at all; no person is on a day of `holidays`."""

    time_zone: str
    days: Mapping[Day, DayHours]
    holidays: Container[date] | None


@dataclass(frozen=True, kw_only=True)
class AssignmentRules:
    """How long a person is held, and how many people a hand-out looks at.

    Of `longest_waiting_one_in` hand-outs of a queue one goes to the person who has been ready
    longest; none does when it is 0.
    """

    lease_seconds: float
    longest_seconds: float
    reservation_seconds: float
    set_aside_seconds: float
    late_outcome_seconds: float
    amend_minutes: float
    default_queues: tuple[Queue, ...]
    candidates_at_most: int
    longest_waiting_one_in: int


@dataclass(frozen=True, kw_only=True)
class RetentionRules:
    """How long what is no longer needed is kept."""

    request_hours: float
    audit_days: float
    call_days: float
    call_notes_days: float
    assignment_days: float
    prevented_call_days: float
    closed_callback_days: float
    lifted_suppression_days: float
    absent_person_days: float
    report_days: float


@dataclass(frozen=True, kw_only=True)
class Rules:
    """All rules."""

    eligibility: EligibilityRules
    score: ScoreRules
    outcomes: Mapping[Outcome, OutcomeRules]
    dispositions: tuple[DispositionRules, ...]
    calls: CallRules
    callbacks: CallbackRules
    phone_lists: PhoneListRules
    agents: AgentRules
    pauses: PauseRules
    calling_hours: CallingHoursRules
    assignment: AssignmentRules
    retention: RetentionRules
