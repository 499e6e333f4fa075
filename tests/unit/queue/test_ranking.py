"""The stored key orders people as their full scores do, now and at any later time."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.queue.domain.ranking import Ranking, continued
from services.queue.domain.rules import ScoreRules
from tests.fakes.rules import load_rules

SHIPPED = load_rules().score
START = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
DAY_SECONDS = 24 * 3600
# Two scores nearer than this are one: a key holds a score to about a billionth of a point.
SAME = 1e-5


@dataclass(frozen=True)
class ScoredPerson:
    """What a score is made of, and the score by the rules as they are told to people."""

    user_id: int
    outcome_points: float
    attempt_points: float
    aged_from: datetime
    lender_points: float
    age_points: float
    claimed_at: datetime | None
    entered_at: datetime | None
    last_contact_at: datetime | None
    rules: ScoreRules = field(default=SHIPPED, compare=False)

    def full_score(self, now: datetime) -> float:
        """Add up every factor; written apart from the code under test."""
        entered = self.entered_at or self.aged_from
        score = self.outcome_points + self.attempt_points + self.lender_points + self.age_points
        score += (
            self.rules.ageing_per_week * (now - self.aged_from).total_seconds() / (7 * DAY_SECONDS)
        )
        for weight, since in (
            (self.rules.claim_age_per_day, self.claimed_at or entered),
            (self.rules.contact_age_per_day, self.last_contact_at or entered),
        ):
            score += weight * (now - since).total_seconds() / DAY_SECONDS
        return score


_moments = st.timedeltas(timedelta(days=-400), timedelta(0)).map(lambda ago: START + ago)
_points = st.floats(0, 400) | st.integers(-30, 30).map(float)
_weights = st.floats(-3, 3).map(lambda it: round(it, 3))
_rules = st.builds(
    lambda ageing, claim, contact: replace(
        SHIPPED,
        ageing_per_week=ageing,
        claim_age_per_day=claim,
        contact_age_per_day=contact,
    ),
    st.floats(0, 20).map(lambda it: round(it, 3)),
    _weights,
    _weights,
)
_people = st.lists(
    st.builds(
        ScoredPerson,
        user_id=st.integers(1, 2**63 - 1),
        outcome_points=_points,
        attempt_points=st.floats(0, 50),
        aged_from=_moments,
        lender_points=_points,
        age_points=_points,
        claimed_at=st.none() | _moments,
        entered_at=st.none() | _moments,
        last_contact_at=st.none() | _moments,
    ),
    min_size=2,
    max_size=20,
    unique_by=lambda person: person.user_id,
)
_later = st.timedeltas(timedelta(0), timedelta(days=2000))


def _ruled(people: list[ScoredPerson], rules: ScoreRules) -> list[ScoredPerson]:
    return [ScoredPerson(**{**vars(it), "rules": rules}) for it in people]


@given(people=_people, rules=_rules, offset=st.floats(-1000, 1000), later=_later)
def test_order_by_key_is_order_by_full_score_at_any_later_time(
    people: list[ScoredPerson], rules: ScoreRules, offset: float, later: timedelta
) -> None:
    ranking = Ranking(rules, offset)
    ruled = _ruled(people, rules)
    by_key = sorted(ruled, key=lambda it: (ranking.key(it), -it.user_id))
    for now in (START, START + later):
        for first, second in pairwise(by_key):
            assert first.full_score(now) <= second.full_score(now) + SAME


@given(people=_people, rules=_rules, offset=st.floats(-1000, 1000), later=_later)
def test_the_score_is_the_full_one_and_its_factors_add_up_to_it(
    people: list[ScoredPerson], rules: ScoreRules, offset: float, later: timedelta
) -> None:
    ranking, now = Ranking(rules, offset), START + later
    for person in _ruled(people, rules):
        expected = pytest.approx(person.full_score(now), abs=SAME)
        assert ranking.score(person, now) == expected
        assert sum(it.points for it in ranking.factors(person, now)) == expected


@given(people=_people, rules=_rules, later=_later)
def test_frozen_by_key_is_frozen_by_score(
    people: list[ScoredPerson], rules: ScoreRules, later: timedelta
) -> None:
    ranking, now = Ranking(rules), START + later
    for person in _ruled(people, rules):
        score = person.full_score(now)
        if abs(score - 200) > SAME:
            assert (ranking.key(person) >= ranking.frozen_from(now)) == (score > 200)


@given(people=_people, old=_rules, new=_rules, offset=st.floats(-1000, 1000))
def test_keys_made_at_two_rates_order_by_score_at_the_moment_of_change(
    people: list[ScoredPerson], old: ScoreRules, new: ScoreRules, offset: float
) -> None:
    """Half of the people have been placed by the new rules already."""
    before = Ranking(old, offset)
    after = Ranking(
        new, continued(offset, before.points_per_week, Ranking(new).points_per_week, START)
    )
    keyed = [(before.key(it), it.full_score(START)) for it in _ruled(people[::2], old)]
    keyed += [(after.key(it), it.full_score(START)) for it in _ruled(people[1::2], new)]
    for (_, first), (_, second) in pairwise(sorted(keyed)):
        assert first <= second + SAME
    assert before.frozen_from(START) == pytest.approx(after.frozen_from(START), abs=SAME)


def test_a_fresh_start_has_exactly_the_score_zero() -> None:
    fresh = ScoredPerson(1, 0.0, 0.0, START, 0.0, 0.0, None, START, None)
    assert Ranking(SHIPPED).score(fresh, START) == 0.0


@pytest.mark.parametrize(
    ("number", "points"),
    [(1, 0), (5, 0), (6, 1), (10, 1), (11, 3), (12, 3), (100, 3)],
)
def test_points_for_attempts(number: int, points: float) -> None:
    assert Ranking(SHIPPED).attempt_points(number) == points


@pytest.mark.parametrize(("score", "behind"), [(0, 1), (0.99, 1), (1, 2), (7.3, 8), (-0.5, 0)])
def test_a_skip_ranks_behind_all_people_within_the_same_point(score: float, behind: float) -> None:
    assert Ranking(SHIPPED).behind_its_score(score) == behind
