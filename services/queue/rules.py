"""The validated form of rules.yaml: plain values, no behaviour."""

import re
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import holidays
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from services.queue.domain.terms import Block, Outcome, Queue

DEFAULT_PATH = Path(__file__).with_name("rules.yaml")

E = TypeVar("E", bound=IntEnum)


def _named(kind: type[E]) -> BeforeValidator:
    """Read a member of `kind` by its name in lower case."""
    members = {member.name.lower(): member for member in kind}

    def read(name: object) -> object:
        if name not in members:
            raise ValueError(f"not one of: {', '.join(members)}")
        return members[str(name)]

    return BeforeValidator(read)


QueueName = Annotated[Queue, _named(Queue)]
OutcomeName = Annotated[Outcome, _named(Outcome)]
BlockName = Annotated[Block, _named(Block)]
Points = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Words = Annotated[tuple[str, ...], Field(min_length=1)]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError("not a time zone of the IANA database") from error
    return name


ZoneName = Annotated[str, AfterValidator(_zone)]


def _minute(text: object) -> object:
    """Read a time of day as minutes since midnight; 24:00 is the day's end."""
    found = re.fullmatch(r"([01][0-9]|2[0-4]):([0-5][0-9])", str(text))
    minute = int(found[1]) * 60 + int(found[2]) if found else None
    if minute is None or minute > _DAY_MINUTES:
        raise ValueError("not a time of day such as 08:00")
    return minute


_DAY_MINUTES = 24 * 60
MinuteOfDay = Annotated[int, BeforeValidator(_minute)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExcludedRequirement(_Section):
    """A requirement type that does not count when its reason is exactly this."""

    type: str
    reason: str


class EligibilityRules(_Section):
    """What the words in the main app's columns mean."""

    inactive_user_statuses: Words
    ended_claim_statuses: Words
    pending_requirement_statuses: Words
    excluded_requirement_types: tuple[str, ...]
    excluded_requirements: tuple[ExcludedRequirement, ...]


class AttemptStep(_Section):
    """Points each attempt with a number above `above` adds, up to the next step."""

    above: int = Field(ge=0)
    add: Points


class AgeStep(_Section):
    """Points of a person of that age and older, up to the next step."""

    from_age: int = Field(ge=0, le=150)
    add: Points


class ScoreRules(_Section):
    """Points; 0 is hottest."""

    fresh: Points
    frozen: Points
    ageing_per_week: float = Field(ge=0, allow_inf_nan=False)
    attempts: tuple[AttemptStep, ...]
    lenders: dict[str, Points] = Field(default_factory=dict)
    ages: tuple[AgeStep, ...] = ()
    claim_age_per_day: Points = 0.0
    contact_age_per_day: Points = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fresh >= self.frozen:
            raise ValueError("a fresh start would be frozen")
        numbers = [step.above for step in self.attempts]
        if numbers != sorted(set(numbers)):
            raise ValueError("the steps for attempts must rise")
        ages = [step.from_age for step in self.ages]
        if ages != sorted(set(ages)):
            raise ValueError("the steps for ages must rise")
        return self


class ScoreEffect(_Section):
    """What an outcome does to the score: exactly one of the two."""

    set: Points | None = None
    add: Points | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.set is None) == (self.add is None):
            raise ValueError("give either set or add")
        return self


class CallbackRule(StrEnum):
    """Whether an outcome makes a callback: if a time is given, in any case, or at once."""

    NEVER = "never"
    ALLOWED = "allowed"
    ALWAYS = "always"
    IMMEDIATE = "immediate"


class OutcomeRules(_Section):
    """What one outcome leads to. `block` ends calls until a supervisor lifts it."""

    score: ScoreEffect
    next_call_hours: float | None = Field(ge=0, allow_inf_nan=False)
    callback: CallbackRule = CallbackRule.NEVER
    notes_required: bool = False
    until_phone_changes: bool = False
    live_check_decides: bool = False
    block: BlockName | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.next_call_hours is None) != (self.block is not None):
            raise ValueError("an outcome blocks if and only if there is no next call")
        return self


class CallRules(_Section):
    """When a person may be phoned, and what an agent may say about it."""

    cooling_hours: float = Field(ge=0, allow_inf_nan=False)
    attempts_per_day: int = Field(ge=1)
    attempts_per_period: int = Field(ge=1)
    period_days: int = Field(ge=1, le=366)
    shared_phone_hours: float = Field(ge=0, allow_inf_nan=False)
    callback_longest_days: float = Field(gt=0, le=3650)
    notes_longest_characters: int = Field(gt=0, le=100_000)
    company_time_zone: ZoneName


class CallbackRules(_Section):
    """Who is offered a callback, and what becomes of one that is missed."""

    preferred_minutes: float = Field(ge=0, allow_inf_nan=False)
    retry_minutes: float = Field(gt=0, allow_inf_nan=False)
    retries: int = Field(ge=0, le=100)


class AgentRules(_Section):
    """When an agent counts as there."""

    presence_seconds: Seconds


class Day(StrEnum):
    """A day of the week, in the order of `date.weekday`."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


class DayHours(_Section):
    """From when until when people are phoned, in minutes since midnight."""

    begins_minute: MinuteOfDay = Field(alias="from")
    ends_minute: MinuteOfDay = Field(alias="until")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.begins_minute >= self.ends_minute:
            raise ValueError("calling hours end before they begin")
        return self


class HolidayRules(_Section):
    """Whose public holidays are kept."""

    country: str
    subdivision: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            holidays.country_holidays(self.country, subdiv=self.subdivision)
        except NotImplementedError as error:
            raise ValueError("no holidays are known of this country or part") from error
        return self


class CallingHoursRules(_Section):
    """When people are phoned at all."""

    time_zone: ZoneName
    days: Annotated[dict[Day, DayHours], Field(min_length=1)]
    holidays: HolidayRules | None


class AssignmentRules(_Section):
    """How long somebody is held, and whom a claim looks at."""

    lease_seconds: Seconds
    longest_seconds: Seconds
    reservation_seconds: Seconds
    set_aside_seconds: Seconds
    late_outcome_seconds: float = Field(ge=0, allow_inf_nan=False)
    default_queues: Annotated[tuple[QueueName, ...], Field(min_length=1)]
    candidates_at_most: int = Field(ge=1, le=10_000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lease_seconds > self.longest_seconds:
            raise ValueError("a lease is longer than the longest assignment")
        if len(set(self.default_queues)) != len(self.default_queues):
            raise ValueError("a default queue is named twice")
        if Queue.CALLBACKS in self.default_queues:
            raise ValueError("callbacks come first in any case")
        return self


class RetentionRules(_Section):
    """How long what is no longer needed is kept; who adds a period here gives it a default."""

    request_hours: float = Field(gt=0)
    audit_days: float = Field(gt=0)
    # A year at least: calls are kept as long as their recordings have to be.
    call_days: float = Field(default=400, ge=366, le=36_500)
    call_notes_days: float = Field(default=180, ge=1, le=36_500)
    assignment_days: float = Field(default=90, ge=1, le=36_500)
    prevented_call_days: float = Field(default=90, ge=1, le=36_500)
    closed_callback_days: float = Field(default=180, ge=1, le=36_500)
    lifted_suppression_days: float = Field(default=1095, ge=1, le=36_500)
    absent_person_days: float = Field(default=30, ge=1, le=36_500)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.call_notes_days > self.call_days:
            raise ValueError("notes of calls are kept longer than the calls")
        return self


class Rules(_Section):
    """Everything that decides who is called when."""

    eligibility: EligibilityRules
    score: ScoreRules
    outcomes: dict[OutcomeName, OutcomeRules]
    calls: CallRules
    callbacks: CallbackRules
    agents: AgentRules
    calling_hours: CallingHoursRules
    assignment: AssignmentRules
    retention: RetentionRules

    @field_validator("outcomes")
    @classmethod
    def _complete(cls, value: dict[Outcome, OutcomeRules]) -> dict[Outcome, OutcomeRules]:
        missing = [outcome.name.lower() for outcome in Outcome if outcome not in value]
        if missing:
            raise ValueError(f"no rules for: {', '.join(missing)}")
        return value

    @model_validator(mode="after")
    def _keep_what_is_asked_for(self) -> Self:
        kept = self.retention
        longest = max(self.calls.period_days, self.calls.shared_phone_hours / 24)
        if kept.call_days < longest:
            raise ValueError("calls are not kept for as long as caps and shared numbers ask for")
        if kept.assignment_days * 86_400 < self.assignment.late_outcome_seconds:
            raise ValueError("assignments are not kept for as long as late outcomes are taken")
        return self


def load_rules(path: Path | None = None) -> Rules:
    """Read the rules from `path`, or those we ship.

    Raises OSError when the file cannot be read and ValueError when it is not valid.
    """
    return parse_rules((path or DEFAULT_PATH).read_text(encoding="utf-8"))


def parse_rules(text: str) -> Rules:
    """Return the rules in a file's text; raises ValueError when it is not valid."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error
    return Rules.model_validate(content)
