"""Scores, and the rank key, which orders people by score and is never recomputed.

Every part of a score that grows with time grows at the same rate for all people in a queue, so the
difference between two scores never changes. The rank key is the score less the points that time has
added since `ORIGIN`. Ordering by the key is ordering by the score at any moment, and a score is
frozen if its key is above one bound, which moves with time.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from services.queue.domain.rules import ScoreRules

ORIGIN = datetime(2020, 1, 1, tzinfo=UTC)
WEEK = timedelta(weeks=1)
DAY = timedelta(days=1)

_DAYS_A_WEEK = 7


class Scored(Protocol):
    """The parts of a person's score."""

    @property
    def outcome_points(self) -> float:
        """Points of the fresh start and of outcomes since."""
        ...

    @property
    def attempt_points(self) -> float:
        """Points of attempts since the score was last set."""
        ...

    @property
    def aged_from(self) -> datetime:
        """When the score was last set: ageing counts from then."""
        ...

    @property
    def lender_points(self) -> float:
        """Points by lender."""
        ...

    @property
    def age_points(self) -> float:
        """Points by the person's age."""
        ...

    @property
    def claimed_at(self) -> datetime | None:
        """When the oldest open claim was made."""
        ...

    @property
    def entered_at(self) -> datetime | None:
        """When the person entered the queue."""
        ...

    @property
    def last_contact_at(self) -> datetime | None:
        """When the last call ended."""
        ...


class Factor(NamedTuple):
    """One part of a score at a moment."""

    name: str
    points: float
    words: str


class Ranking:
    """The rules of scoring, ready to be applied.

    `offset` keeps keys comparable with those made at another rate: see `continued`.
    """

    def __init__(self, rules: ScoreRules, offset: float = 0.0) -> None:
        self.rules = rules
        self.offset = offset
        per_day = rules.claim_age_per_day + rules.contact_age_per_day
        self.points_per_week = rules.ageing_per_week + _DAYS_A_WEEK * per_day

    def key(self, scored: Scored) -> float:
        """Return the rank key; the person with the lowest is called first."""
        rules = self.rules
        key = (
            scored.outcome_points
            + scored.attempt_points
            + scored.lender_points
            + scored.age_points
            - rules.ageing_per_week * _weeks(scored.aged_from)
            - self.offset
        )
        if rules.claim_age_per_day:
            key -= rules.claim_age_per_day * _DAYS_A_WEEK * _weeks(_claimed_at(scored))
        if rules.contact_age_per_day:
            key -= rules.contact_age_per_day * _DAYS_A_WEEK * _weeks(_contact_at(scored))
        return key

    def score(self, scored: Scored, at: datetime) -> float:
        """Return the score at a moment, rounded to a millionth, the precision of a key."""
        return self.score_of_key(self.key(scored), at)

    def score_of_key(self, key: float, at: datetime) -> float:
        """Return the score at a moment of the person with this key."""
        return round(key + self._grown(at), 6)

    def frozen_from(self, at: datetime) -> float:
        """Return the lowest key that is frozen at that moment."""
        return self.rules.frozen - self._grown(at)

    def behind_its_score(self, score: float) -> float:
        """Return the score that comes after all others within the same whole point."""
        return math.floor(score) + 1.0

    def attempt_points(self, number: int) -> float:
        """Return the points that attempt `number` since the fresh start adds."""
        reached = [step.add for step in self.rules.attempts if number > step.above]
        return reached[-1] if reached else 0.0

    def factors(self, scored: Scored, at: datetime) -> list[Factor]:
        """Return the parts of the score at a moment; their points add up to it."""
        rules = self.rules
        aged = (at - scored.aged_from) / WEEK
        claim_days = (at - _claimed_at(scored)) / DAY
        contact_days = (at - _contact_at(scored)) / DAY
        return [
            Factor("BASE", scored.outcome_points, "fresh start and outcomes since"),
            Factor("ATTEMPTS", scored.attempt_points, "attempts beyond the first ones"),
            Factor(
                "AGEING",
                rules.ageing_per_week * aged,
                f"{rules.ageing_per_week:g} points a week for {aged:.2f} weeks",
            ),
            Factor("LENDER", scored.lender_points, "the lenders of the open claims"),
            Factor("PERSON_AGE", scored.age_points, "the person's age"),
            Factor(
                "CLAIM_AGE",
                rules.claim_age_per_day * claim_days,
                f"{rules.claim_age_per_day:g} points a day for {claim_days:.1f} days"
                " since the oldest open claim",
            ),
            Factor(
                "CONTACT_AGE",
                rules.contact_age_per_day * contact_days,
                f"{rules.contact_age_per_day:g} points a day for {contact_days:.1f} days"
                " since the last contact",
            ),
        ]

    def _grown(self, at: datetime) -> float:
        return self.points_per_week * _weeks(at) + self.offset


def continued(offset: float, rate: float, new_rate: float, at: datetime) -> float:
    """Return the offset that makes keys at `new_rate` points a week comparable with older ones.

    At that moment equal scores have equal keys at both rates.
    """
    return offset + (rate - new_rate) * _weeks(at)


def _weeks(moment: datetime) -> float:
    return (moment - ORIGIN) / WEEK


def _claimed_at(scored: Scored) -> datetime:
    return scored.claimed_at or scored.entered_at or scored.aged_from


def _contact_at(scored: Scored) -> datetime:
    return scored.last_contact_at or scored.entered_at or scored.aged_from
