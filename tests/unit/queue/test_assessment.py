"""What facts do to a score: lenders, and ages that are reached as time passes."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from services.queue.domain.assessment import Assessor, time_zone_of
from services.queue.domain.facts import ClaimFacts, UserFacts
from services.queue.domain.rules import Rules
from services.queue.rules import AgeStepSection
from services.queue.types import UserId
from tests.fakes.rules import load_rules

NOW = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
AGES = (AgeStepSection(from_age=18, add=-1), AgeStepSection(from_age=65, add=-5))


def _rules(**score: Any) -> Rules:
    rules = load_rules()
    return replace(rules, score=replace(rules.score, **score))


def _facts(*claims: ClaimFacts, born: date | None = None, phone: str | None = None) -> UserFacts:
    return UserFacts(
        UserId(1),
        True,
        1,
        is_enabled=True,
        claims=claims,
        phones=() if phone is None else (phone,),
        date_of_birth=born,
    )


def test_the_lowest_points_of_the_open_claims_lenders_count() -> None:
    assessor = Assessor(_rules(lenders={"Blue Motor": -5.0, "café": 7.0}))

    def points(*claims: ClaimFacts) -> float:
        return assessor.assess(_facts(*claims), NOW).lender_points

    blue, cafe = ClaimFacts(None, lender="BLUE motor "), ClaimFacts(None, lender="CAFE")
    other, none = ClaimFacts(None, lender="other"), ClaimFacts(None)
    ended = ClaimFacts("complete", lender="Blue Motor")
    assert points(blue, cafe, other) == -5
    assert points(cafe) == 7
    assert points(cafe, other) == 0
    assert points(cafe, none) == 0
    assert points(ended, cafe) == 7
    assert points(ended) == 0
    assert points() == 0


def test_the_oldest_open_claim_counts() -> None:
    old, new = NOW - timedelta(days=9), NOW - timedelta(days=1)
    assessor = Assessor(load_rules())
    found = assessor.assess(
        _facts(
            ClaimFacts("cancelled", old - timedelta(days=1)),
            ClaimFacts(None, old),
            ClaimFacts(None, new),
            ClaimFacts(None, None),
        ),
        NOW,
    )
    assert found.claimed_at == old


@pytest.mark.parametrize(
    ("born", "points", "until"),
    [
        (date(2000, 1, 1), -1, datetime(2065, 1, 1, tzinfo=UTC)),
        # Midnight of a summer's day in London.
        (date(2008, 7, 1), 0, datetime(2026, 6, 30, 23, 0, tzinfo=UTC)),
        (date(1960, 6, 2), -5, None),
        (date(1960, 6, 3), -1, datetime(2025, 6, 2, 23, 0, tzinfo=UTC)),
        (date(2012, 2, 29), 0, datetime(2030, 3, 1, tzinfo=UTC)),
        (date(2030, 1, 1), 0, datetime(2048, 1, 1, tzinfo=UTC)),
        (date(9990, 1, 1), 0, None),
        (None, 0, None),
    ],
)
def test_ages_count_from_the_birthday_on(
    born: date | None, points: float, until: datetime | None
) -> None:
    found = Assessor(_rules(ages=AGES)).assess(_facts(ClaimFacts(None), born=born), NOW)
    assert (found.age_points, found.age_points_until) == (points, until)
    if until is not None and until.year < 2100:
        then = Assessor(_rules(ages=AGES)).assess(_facts(ClaimFacts(None), born=born), until)
        assert then.age_points < points


@pytest.mark.parametrize(
    ("phone", "zone"),
    [
        ("+447700900001", None),
        ("+442079460000", None),
        ("+302101234567", "Europe/Athens"),
        ("+12125550123", "America/New_York"),
        # A number of all of the United States.
        ("+18005550123", None),
        ("+999123", None),
        ("nonsense", None),
    ],
)
def test_the_clocks_a_number_lives_by(phone: str, zone: str | None) -> None:
    assert time_zone_of(phone) == zone


def test_the_usual_zone_is_none_of_its_own() -> None:
    assessed = Assessor(load_rules()).assess(_facts(phone="+302101234567"), NOW)
    assert assessed.time_zone == "Europe/Athens"
    rules = load_rules()
    hours = replace(rules.calling_hours, time_zone="Europe/Athens")
    at_home = Assessor(replace(rules, calling_hours=hours))
    assert at_home.assess(_facts(phone="+302101234567"), NOW).time_zone is None
