"""Scores, and the key that orders by them without ever being recomputed.

Everybody gains the same points a week, so the difference between two scores never changes. The
key is the score somebody would have had at `ORIGIN`: ordering by it is ordering by the score at any
moment, and a frozen score is a key above one bound that moves with time.
"""

import math
from datetime import UTC, datetime, timedelta

from services.queue.rules import ScoreRules

ORIGIN = datetime(2020, 1, 1, tzinfo=UTC)
WEEK = timedelta(weeks=1)


class Ranking:
    """The rules of scoring, ready to be applied."""

    def __init__(self, rules: ScoreRules) -> None:
        self.rules = rules

    def key(self, score: float, at: datetime) -> float:
        """Return the key of somebody who has `score` at that moment; the lowest is called first."""
        return score - self._aged(at)

    def score(self, key: float, at: datetime) -> float:
        """Return the score at a moment, rounded to a millionth, the most a key can tell."""
        return round(key + self._aged(at), 6)

    def frozen_from(self, at: datetime) -> float:
        """Return the lowest key that is frozen at that moment."""
        return self.rules.frozen - self._aged(at)

    def behind_its_score(self, score: float) -> float:
        """Return the score that comes after everybody's within the same whole point."""
        return math.floor(score) + 1.0

    def attempt_points(self, number: int) -> float:
        """Return the points that attempt `number` since the fresh start adds."""
        reached = [step.add for step in self.rules.attempts if number > step.above]
        return reached[-1] if reached else 0.0

    def _aged(self, at: datetime) -> float:
        return self.rules.ageing_per_week * ((at - ORIGIN) / WEEK)
