"""Scores as the checker works them out, with what it cannot know kept as an interval.

All people age alike, so a score less its ageing since an origin, the key, orders people for ever.
The services may learn of a change some minutes late, and a fresh start counts from then; so a key
has a lowest and a highest possible value.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

from simulation.checker.rules import AGEING_PER_WEEK, Effect, attempt_points

_ORIGIN = datetime(2024, 1, 1, tzinfo=UTC)


def aged(at: datetime) -> float:
    """Return the points that every person has gained since the origin."""
    return AGEING_PER_WEEK * ((at - _ORIGIN) / timedelta(weeks=1))


class Key(NamedTuple):
    """A person's place in the order; `fresh_at` is the fresh start while nothing followed it.

    `attempts` are the numbers of attempts since the fresh start that are possible.
    """

    low: float
    high: float
    attempts: tuple[int, int]
    fresh_at: datetime | None = None

    @classmethod
    def fresh(cls, first: datetime, last: datetime) -> Self:
        """Return the key of a fresh start noticed at some moment from `first` to `last`."""
        return cls(-aged(last), -aged(first), (0, 0), first if first == last else None)

    def or_else(self, other: "Key") -> "Key":
        """Return the key of a person of whom either may be true."""
        attempts = (
            min(self.attempts[0], other.attempts[0]),
            max(self.attempts[1], other.attempts[1]),
        )
        return Key(min(self.low, other.low), max(self.high, other.high), attempts)

    def lowest_score(self, at: datetime) -> float:
        """Return the lowest score the person may have."""
        return self.low + aged(at)

    def highest_score(self, at: datetime) -> float:
        """Return the highest score the person may have."""
        return self.high + aged(at)

    def after(self, effect: Effect, at: datetime) -> "Key":
        """Return the key after a call."""
        fewest, most = self.attempts[0] + 1, self.attempts[1] + 1
        if effect.sets is not None:
            key = effect.sets - aged(at)
            return Key(key, key, (fewest, most))
        return Key(
            self.low + effect.adds + attempt_points(fewest),
            self.high + effect.adds + attempt_points(most),
            (fewest, most),
        )

    def behind(self, at: datetime) -> "Key":
        """Return the key at the back of its score, that is of its whole point."""
        low = math.floor(round(self.lowest_score(at) - _ROUNDING, 6)) + 1.0 - aged(at)
        high = math.floor(round(self.highest_score(at) + _ROUNDING, 6)) + 1.0 - aged(at)
        return Key(low, high, self.attempts)

    def is_surely_before(self, other: "Key") -> bool:
        """Return whether this one comes first whatever is true."""
        return self.high < other.low - _SLIGHTLY


# Sums of the same points in another order differ by less; scores are told to a millionth.
_SLIGHTLY = 1e-6
_ROUNDING = 1e-7
