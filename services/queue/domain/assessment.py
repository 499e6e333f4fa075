"""Assesses facts: where they put a person, and what they add to the score."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from phonenumbers import NumberParseException, parse
from phonenumbers.timezone import time_zones_for_number

from services.queue.domain.eligibility import Eligibility, EligibilityVerdict, fold
from services.queue.domain.facts import ClaimFacts, UserFacts
from services.queue.domain.rules import AgeStep, Rules
from services.queue.types import UserId


class Assessment(NamedTuple):
    """What the queue keeps of one reading of a person.

    `age_points` hold until `age_points_until`, None for good. `known_since` is the later of the
    person's registration and first claim, None when the main app dates neither. `row_fingerprints`
    are for reconciliation, None when the reading has not seen every row.
    """

    user_id: UserId
    facts_version: int
    fingerprint: int
    phones: tuple[str, ...]
    time_zone: str | None
    verdict: EligibilityVerdict
    lender_points: float
    age_points: float
    age_points_until: datetime | None
    claimed_at: datetime | None
    known_since: datetime | None
    row_fingerprints: bytes | None = None


class Assessor:
    """The rules that read facts, ready to be applied to many people."""

    def __init__(self, rules: Rules) -> None:
        self.eligibility = Eligibility(rules.eligibility)
        self._lenders = {fold(name): points for name, points in rules.score.lenders.items()}
        self._ages = rules.score.ages
        self._zone = ZoneInfo(rules.calls.company_time_zone)
        self._default_zone = rules.calling_hours.time_zone

    def assess(self, facts: UserFacts, now: datetime) -> Assessment:
        """Return the assessment of the facts at that moment."""
        verdict = self.eligibility.judge(facts)
        claims = facts.claims if verdict.open_case_queue is not None else ()
        open_claims = [claim for claim in claims if self.eligibility.is_open(claim)]
        lender_points = [self.lender_points(claim.lender) for claim in open_claims]
        return self.assess_judged(
            facts.user_id,
            facts.version,
            facts.phones,
            verdict,
            min(lender_points, default=0.0),
            self.age_points(facts.date_of_birth, now),
            _earliest(open_claims),
            known_since(facts.created_at, _earliest(facts.claims)),
            facts.fingerprint,
            facts.row_fingerprints or (None if facts.exists else b""),
        )

    def assess_judged(
        self,
        user_id: UserId,
        version: int,
        phones: tuple[str, ...],
        verdict: EligibilityVerdict,
        lender_points: float,
        age_points: tuple[float, datetime | None],
        claimed_at: datetime | None,
        known_since: datetime | None,
        fingerprint: int = 0,
        row_fingerprints: bytes | None = None,
    ) -> Assessment:
        """Return the assessment of a person of whom all but the phone numbers is judged already."""
        time_zone = time_zone_of(phones[0]) if phones else None
        return Assessment(
            user_id,
            version,
            fingerprint,
            phones,
            None if time_zone == self._default_zone else time_zone,
            verdict,
            lender_points,
            *age_points,
            claimed_at,
            known_since,
            row_fingerprints,
        )

    def lender_points(self, lender: str | None) -> float:
        """Return the points of an open claim's lender; the lowest of a person's count."""
        return self._lenders.get(fold(lender or ""), 0.0) if self._lenders else 0.0

    def age_points(self, born: date | None, now: datetime) -> tuple[float, datetime | None]:
        """Return the points of the person's age, and the moment at which they change."""
        if born is None or not self._ages:
            return 0.0, None
        today = now.astimezone(self._zone).date()
        points = 0.0
        for step in self._ages:
            reached = _day_of_age(born, step)
            if reached is None:
                break
            if reached > today:
                local = datetime(reached.year, reached.month, reached.day, tzinfo=self._zone)
                return points, local.astimezone(UTC)
            points = step.add
        return points, None


def known_since(registered_at: datetime | None, first_claim_at: datetime | None) -> datetime | None:
    """Return the later of the two, and the one that is dated if the other is not."""
    return max(filter(None, (registered_at, first_claim_at)), default=None)


def cooled_at(assessment: Assessment, cooling: timedelta, now: datetime) -> datetime | None:
    """Return when the first call may be; None when that is past."""
    at = (assessment.known_since or now) + cooling
    return at if at > now else None


def _day_of_age(born: date, step: AgeStep) -> date | None:
    """Return when the age is reached; None beyond the calendar. 29 February counts as 1 March."""
    year = born.year + step.from_age
    if year > date.max.year:
        return None
    try:
        return born.replace(year=year)
    except ValueError:
        return date(year, 3, 1)


def _earliest(claims: Iterable[ClaimFacts]) -> datetime | None:
    return min((it.created_at for it in claims if it.created_at is not None), default=None)


def time_zone_of(phone_e164: str) -> str | None:
    """Return the one zone of the number's area; None when there are several or it is not known.

    None for British numbers: mobile ones are Jersey's, Guernsey's and the Isle of Man's too, whose
    clocks agree.
    """
    return None if phone_e164.startswith("+44") else _zone_of_area(phone_e164)


# Without the British numbers, which are far too many for a cache.
@lru_cache(maxsize=4096)
def _zone_of_area(phone_e164: str) -> str | None:
    try:
        zones = time_zones_for_number(parse(phone_e164))
    except NumberParseException:
        return None
    return zones[0] if len(zones) == 1 and zones[0] != "Etc/Unknown" else None
