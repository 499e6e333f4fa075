"""The rules file: reads and validates it. Its values are those of `services.queue.domain.rules`.

A class here names the fields whose values are limited, and the defaults; it inherits the others.
"""

import hashlib
import re
from datetime import date
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from holidays import HolidayBase, country_holidays
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from services.queue.domain import rules as domain
from services.queue.types import ContactBlock, Outcome, Queue

DEFAULT_PATH = Path(__file__).with_name("rules.yaml")

E = TypeVar("E", bound=IntEnum)


def _named(kind: type[E]) -> BeforeValidator:
    """Read a member of `kind` by its name in lower case."""
    members = {member.name.lower(): member for member in kind}

    def read(name: object) -> object:
        if isinstance(name, kind):
            return name
        if name not in members:
            raise ValueError(f"not one of: {', '.join(members)}")
        return members[str(name)]

    return BeforeValidator(read)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("not a time zone of the IANA database") from error
    return name


_DAY_MINUTES = 24 * 60


def _minute(value: object) -> object:
    """Read a time of day as minutes since midnight; 24:00 is the day's end."""
    found = re.fullmatch(r"([01][0-9]|2[0-4]):([0-5][0-9])", str(value))
    minute = int(found[1]) * 60 + int(found[2]) if found else None
    if minute is None or minute > _DAY_MINUTES:
        raise ValueError("not a time of day such as 08:00")
    return minute


QueueName = Annotated[Queue, _named(Queue)]
OutcomeName = Annotated[Outcome, _named(Outcome)]
ContactBlockName = Annotated[ContactBlock, _named(ContactBlock)]
Points = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Words = Annotated[tuple[str, ...], Field(min_length=1)]
ZoneName = Annotated[str, AfterValidator(_zone)]
DispositionCode = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
MinuteOfDay = Annotated[int, BeforeValidator(_minute)]
KeptDays = Annotated[float, Field(ge=1, le=36_500)]

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ExcludedRequirementSection(domain.ExcludedRequirement):
    """See `domain.ExcludedRequirement`."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EligibilitySection(domain.EligibilityRules):
    """The section `eligibility`."""

    inactive_user_statuses: Words
    ended_claim_statuses: Words
    pending_requirement_statuses: Words
    excluded_requirements: tuple[ExcludedRequirementSection, ...]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AttemptStepSection(domain.AttemptStep):
    """One of `score.attempts`."""

    above: int = Field(ge=0)
    add: Points


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AgeStepSection(domain.AgeStep):
    """One of `score.ages`."""

    from_age: int = Field(ge=0, le=150)
    add: Points


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ScoreSection(domain.ScoreRules):
    """The section `score`."""

    fresh: Points
    frozen: Points
    ageing_per_week: NotNegative
    attempts: tuple[AttemptStepSection, ...]
    lenders: dict[str, Points] = Field(default_factory=dict)
    ages: tuple[AgeStepSection, ...] = ()
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


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ScoreEffectSection(domain.ScoreEffect):
    """What an outcome does to the score."""

    set: Points | None = None
    add: Points | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.set is None) == (self.add is None):
            raise ValueError("give either set or add")
        return self


_NOT_SPOKEN = ("no_answer", "missed_call", "bad_number")
# What is missing from the section `outcomes` of a file from before there was a choice.
_OUTCOME_DEFAULTS: dict[object, dict[str, object]] = {
    "bad_number": {"holds_number": True},
}
# Outcomes that a file from before they were known does not have.
_LATER_OUTCOMES: dict[object, object] = {
    "voicemail_left": {"score": {"add": 1}, "next_call_hours": 24, "is_conversation": False},
    "voicemail_not_left": {"score": {"add": 1}, "next_call_hours": 4, "is_conversation": False},
    "wrong_person": {
        "score": {"add": 50},
        "next_call_hours": 672,
        "until_phone_changes": True,
        "is_conversation": False,
    },
    "deceased": {
        "score": {"add": 200},
        "next_call_hours": None,
        "block": "deceased",
        "notes_required": True,
        "is_conversation": False,
    },
    "language_barrier": {
        "score": {"add": 2},
        "next_call_hours": 72,
        "callback": "allowed",
        "is_conversation": False,
    },
}


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class OutcomeSection(domain.OutcomeRules):
    """One of the section `outcomes`."""

    score: ScoreEffectSection
    next_call_hours: NotNegative | None
    callback: domain.CallbackRule = domain.CallbackRule.NEVER
    notes_required: bool = False
    until_phone_changes: bool = False
    holds_number: bool = False
    live_check_decides: bool = False
    block: ContactBlockName | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.next_call_hours is None) != (self.block is not None):
            raise ValueError("an outcome blocks if and only if there is no next call")
        if self.holds_number and self.block is not None:
            raise ValueError("an outcome holds a number for the hours to the next call")
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DispositionSection(domain.DispositionRules):
    """One of the section `dispositions`."""

    code: DispositionCode
    label: str = Field(min_length=1, max_length=100)
    outcome: OutcomeName


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CallSection(domain.CallRules):
    """The section `calls`."""

    cooling_hours: NotNegative
    attempts_per_day: int = Field(ge=1)
    attempts_per_period: int = Field(ge=1)
    period_days: int = Field(ge=1, le=366)
    shared_phone_hours: NotNegative
    unreported_rest_minutes: NotNegative = 30.0
    placeholder_people: int = Field(default=20, ge=1)
    conversion_credit_days: float = Field(default=90, ge=0, le=3650)
    callback_longest_days: float = Field(gt=0, le=3650)
    notes_longest_characters: int = Field(gt=0, le=100_000)
    company_time_zone: ZoneName


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CallbackSection(domain.CallbackRules):
    """The section `callbacks`."""

    preferred_minutes: NotNegative
    retry_minutes: Seconds
    retries: int = Field(ge=0, le=100)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PhoneListSection(domain.PhoneListRules):
    """The section `phone_lists`."""

    oldest_days: dict[str, Seconds] = Field(default_factory=lambda: {"tps": 28.0, "ctps": 28.0})


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AgentSection(domain.AgentRules):
    """The section `agents`."""

    presence_seconds: Seconds
    skips_per_hour: int | None = Field(default=None, ge=1)
    open_callbacks: int | None = Field(default=None, ge=1)
    may_choose: bool = False
    longest_call_seconds: Seconds = 3600.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PauseSection(domain.PauseRules):
    """The section `pauses`."""

    longest_days: float = Field(default=31, gt=0, le=366)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DayHoursSection(domain.DayHours):
    """One of `calling_hours.days`."""

    begins_minute: MinuteOfDay = Field(alias="from")
    ends_minute: MinuteOfDay = Field(alias="until")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.begins_minute >= self.ends_minute:
            raise ValueError("calling hours end before they begin")
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PublicHolidays:
    """The public holidays of a country or of a part of it; contains their days."""

    country: str
    subdivision: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            country_holidays(self.country, subdiv=self.subdivision)
        except NotImplementedError as error:
            raise ValueError("no holidays are known of this country or part") from error
        return self

    def __contains__(self, day: object) -> bool:
        return isinstance(day, date) and day in self._days

    @cached_property
    def _days(self) -> HolidayBase:
        return country_holidays(self.country, subdiv=self.subdivision)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class CallingHoursSection(domain.CallingHoursRules):
    """The section `calling_hours`."""

    time_zone: ZoneName
    days: Annotated[dict[domain.Day, DayHoursSection], Field(min_length=1)]
    holidays: PublicHolidays | None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class AssignmentSection(domain.AssignmentRules):
    """The section `assignment`."""

    lease_seconds: Seconds
    longest_seconds: Seconds
    reservation_seconds: Seconds
    set_aside_seconds: Seconds
    late_outcome_seconds: NotNegative
    amend_minutes: NotNegative = 10.0
    default_queues: Annotated[tuple[QueueName, ...], Field(min_length=1)]
    candidates_at_most: int = Field(ge=1, le=10_000)
    longest_waiting_one_in: int = Field(default=10, ge=0, le=1_000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.lease_seconds > self.longest_seconds:
            raise ValueError("a lease is longer than the longest assignment")
        if len(set(self.default_queues)) != len(self.default_queues):
            raise ValueError("a default queue is named twice")
        if Queue.CALLBACKS in self.default_queues:
            raise ValueError("callbacks come first in any case")
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RetentionSection(domain.RetentionRules):
    """The section `retention`; a period that is added here gets a default."""

    request_hours: float = Field(gt=0)
    audit_days: float = Field(gt=0)
    # A year at least: calls are kept as long as their recordings have to be (CMCOB 2.3.6R), counted
    # from the latest of the call, the end of the claims and the close of the latest complaint.
    call_days: float = Field(default=400, ge=366, le=36_500)
    call_notes_days: KeptDays = 180.0
    assignment_days: KeptDays = 90.0
    prevented_call_days: KeptDays = 90.0
    closed_callback_days: KeptDays = 180.0
    lifted_suppression_days: KeptDays = 1095.0
    absent_person_days: KeptDays = 30.0
    report_days: KeptDays = 2557.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.call_notes_days > self.call_days:
            raise ValueError("notes of calls are kept longer than the calls")
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RulesFile(domain.Rules):
    """The whole file."""

    eligibility: EligibilitySection
    score: ScoreSection
    outcomes: dict[OutcomeName, OutcomeSection]
    dispositions: tuple[DispositionSection, ...] = ()
    calls: CallSection
    callbacks: CallbackSection
    phone_lists: PhoneListSection = Field(default_factory=PhoneListSection)
    agents: AgentSection
    pauses: PauseSection = Field(default_factory=PauseSection)
    calling_hours: CallingHoursSection
    assignment: AssignmentSection
    retention: RetentionSection

    @field_validator("outcomes", mode="before")
    @classmethod
    def _complete_older_files(cls, value: object) -> object:
        """Add what a file of an earlier release does not say, by what it meant there."""
        if not isinstance(value, dict):
            return value
        return {
            name: {"is_conversation": name not in _NOT_SPOKEN}
            | _OUTCOME_DEFAULTS.get(name, {})
            | rule
            if isinstance(rule, dict)
            else rule
            for name, rule in (_LATER_OUTCOMES | value).items()
        }

    @field_validator("outcomes")
    @classmethod
    def _check_outcomes(cls, value: dict[Outcome, OutcomeSection]) -> dict[Outcome, OutcomeSection]:
        missing = [outcome.name.lower() for outcome in Outcome if outcome not in value]
        if missing:
            raise ValueError(f"no rules for: {', '.join(missing)}")
        return value

    @field_validator("dispositions")
    @classmethod
    def _check_dispositions(
        cls, value: tuple[DispositionSection, ...]
    ) -> tuple[DispositionSection, ...]:
        codes = [it.code for it in value]
        if len(set(codes)) != len(codes):
            raise ValueError("a disposition's code is given twice")
        names = {it.name.lower() for it in Outcome}
        if taken := names.intersection(codes):
            raise ValueError(f"a disposition has the code of an outcome: {min(taken)}")
        return value

    @model_validator(mode="after")
    def _check_retention(self) -> Self:
        kept = self.retention
        held = [it.next_call_hours or 0.0 for it in self.outcomes.values() if it.holds_number]
        longest = max(self.calls.period_days, max((self.calls.shared_phone_hours, *held)) / 24)
        if kept.call_days < longest:
            raise ValueError("calls are not kept for as long as caps and shared numbers ask for")
        if kept.assignment_days * 86_400 < self.assignment.late_outcome_seconds:
            raise ValueError("assignments are not kept for as long as late outcomes are taken")
        return self


_FILE = TypeAdapter(RulesFile)


def parse_rules(text: str) -> domain.Rules:
    """Return the rules in a file's text; raises ValueError when it is not valid."""
    try:
        content = yaml.load(text, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error
    return _FILE.validate_python(content)


_PLACING_NO_PERSON = {
    **dict.fromkeys(("retention", "phone_lists", "agents", "pauses", "dispositions"), True),
    "assignment": {"longest_waiting_one_in": True},
}


def hash_of(rules: domain.Rules) -> str:
    """Return what tells these rules from others, but for those that place no person."""
    placing = _FILE.dump_json(rules, exclude=_PLACING_NO_PERSON)  # type: ignore[arg-type]
    return hashlib.blake2b(placing, digest_size=16).hexdigest()
