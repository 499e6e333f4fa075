"""What the facts of a person come to: where they put the person, and what they do to the score."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from services.queue.domain.eligibility import Eligibility, Verdict, fold
from services.queue.domain.facts import ClaimFacts, UserFacts
from services.queue.domain.terms import UserId
from services.queue.domain.time_zones import time_zone_of
from services.queue.rules import AgeStep, Rules


class Assessment(NamedTuple):
    """All that the queue keeps of one reading of a person.

    `age_points` hold until `age_points_until`, None for good. `known_since` is the later of the
    person's registration and first claim, None when the main app dates neither. `row_fingerprints`
    are for reconciliation, None when the reading has not seen every row.
    """

    user_id: UserId
    facts_version: int
    fingerprint: int
    phone_e164: str | None
    time_zone: str | None
    verdict: Verdict
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
        """Return what the facts come to at that moment."""
        return self.assess_judged(facts, self.eligibility.judge(facts), now)

    def assess_judged(self, facts: UserFacts, verdict: Verdict, now: datetime) -> Assessment:
        """Return the same for facts whose verdict is known already."""
        open_claims = self._open_claims(facts) if verdict.owes is not None else ()
        age_points, until = self._age_points(facts.date_of_birth, now)
        return Assessment(
            user_id=facts.user_id,
            facts_version=facts.version,
            fingerprint=facts.fingerprint,
            phone_e164=facts.phone_e164,
            time_zone=self._zone_of(facts.phone_e164),
            verdict=verdict,
            lender_points=self._lender_points(open_claims),
            age_points=age_points,
            age_points_until=until,
            claimed_at=_earliest(open_claims),
            known_since=_known_since(facts),
            row_fingerprints=facts.row_fingerprints or (None if facts.exists else b""),
        )

    def _zone_of(self, phone_e164: str | None) -> str | None:
        """Return the zone of the person's clocks; None for the usual one."""
        zone = time_zone_of(phone_e164) if phone_e164 is not None else None
        return None if zone == self._default_zone else zone

    def _open_claims(self, facts: UserFacts) -> tuple[ClaimFacts, ...]:
        return tuple(claim for claim in facts.claims if self.eligibility.is_open(claim))

    def _lender_points(self, claims: Iterable[ClaimFacts]) -> float:
        if not self._lenders:
            return 0.0
        points = (self._lenders.get(fold(claim.lender or ""), 0.0) for claim in claims)
        return min(points, default=0.0)

    def _age_points(self, born: date | None, now: datetime) -> tuple[float, datetime | None]:
        if born is None or not self._ages:
            return 0.0, None
        today = now.astimezone(self._zone).date()
        points = 0.0
        for step in self._ages:
            reached = _birthday(born, step)
            if reached is None:
                break
            if reached > today:
                return points, self._midnight(reached)
            points = step.add
        return points, None

    def _midnight(self, day: date) -> datetime:
        local = datetime(day.year, day.month, day.day, tzinfo=self._zone)
        return local.astimezone(UTC)


def cooled_at(assessment: Assessment, cooling: timedelta, now: datetime) -> datetime | None:
    """Return when the first call may be; None when that is past."""
    at = (assessment.known_since or now) + cooling
    return at if at > now else None


def _birthday(born: date, step: AgeStep) -> date | None:
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


def _known_since(facts: UserFacts) -> datetime | None:
    first_claim = _earliest(facts.claims)
    if facts.created_at is None or first_claim is None:
        return facts.created_at or first_claim
    return max(facts.created_at, first_claim)
