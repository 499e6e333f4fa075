"""The stored key orders people as their scores do, now and at any later time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.queue.domain.ranking import Ranking
from services.queue.rules import load_rules

RANKING = Ranking(load_rules().score)
START = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
# Two scores nearer than this are one: a key holds a score to about a billionth.
SAME = 1e-6


@dataclass(frozen=True)
class Scored:
    """Somebody who was given a score at a moment; written apart from the code under test."""

    user_id: int
    score: float
    at: datetime

    def score_later(self, now: datetime) -> float:
        """5 points a week, as the rules have it."""
        return self.score + 5.0 * (now - self.at).total_seconds() / (7 * 24 * 3600)


_moments = st.timedeltas(timedelta(days=-400), timedelta(0)).map(lambda ago: START + ago)
_people = st.lists(
    st.builds(
        Scored,
        user_id=st.integers(1, 2**63 - 1),
        score=st.floats(0, 400) | st.integers(0, 30).map(float),
        at=_moments,
    ),
    min_size=2,
    max_size=30,
    unique_by=lambda person: person.user_id,
)


@given(people=_people, later=st.timedeltas(timedelta(0), timedelta(days=2000)))
def test_order_by_key_is_order_by_score_at_any_later_time(
    people: list[Scored], later: timedelta
) -> None:
    now = START + later
    by_key = sorted(people, key=lambda it: (RANKING.key(it.score, it.at), -it.user_id))
    for first, second in pairwise(by_key):
        ahead, behind = first.score_later(now), second.score_later(now)
        assert ahead <= behind + SAME


@given(score=st.floats(0, 400), at=_moments, later=st.timedeltas(timedelta(0), timedelta(2000)))
def test_the_score_comes_back_out_of_the_key(score: float, at: datetime, later: timedelta) -> None:
    person = Scored(1, score, at)
    found = RANKING.score(RANKING.key(score, at), at + later)
    assert found == pytest.approx(person.score_later(at + later), abs=2 * SAME)


@given(score=st.floats(0, 400), at=_moments, later=st.timedeltas(timedelta(0), timedelta(2000)))
def test_frozen_by_key_is_frozen_by_score(score: float, at: datetime, later: timedelta) -> None:
    now = at + later
    expected = Scored(1, score, at).score_later(now)
    is_frozen = RANKING.key(score, at) >= RANKING.frozen_from(now)
    if abs(expected - 200) > SAME:
        assert is_frozen == (expected > 200)


def test_equal_scores_have_equal_keys() -> None:
    assert RANKING.key(0, START) == RANKING.key(0.0, START)
    assert RANKING.score(RANKING.key(0, START), START) == 0.0


@pytest.mark.parametrize(
    ("number", "points"),
    [(1, 0), (5, 0), (6, 1), (10, 1), (11, 3), (12, 3), (100, 3)],
)
def test_points_for_attempts(number: int, points: float) -> None:
    assert RANKING.attempt_points(number) == points


@pytest.mark.parametrize(("score", "behind"), [(0, 1), (0.99, 1), (1, 2), (7.3, 8), (-0.5, 0)])
def test_behind_everybody_within_the_same_point(score: float, behind: float) -> None:
    assert RANKING.behind_its_score(score) == behind
