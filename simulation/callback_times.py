"""Times at which people say they want to be called, closed hours among them."""

from datetime import UTC, datetime, time, timedelta
from random import Random

from simulation.plan import LONDON

_SATURDAY = 5


def wanted_time(rng: Random, now: datetime) -> datetime:
    """Return a time, mostly within calling hours; in the past for one in a hundred."""
    roll = rng.random()
    if roll < 0.01:
        return now - timedelta(minutes=5)
    if roll < 0.50:
        return now + timedelta(minutes=rng.randint(10, 240))
    if roll < 0.85:
        return _at(now, rng.randint(1, 4), time(rng.randint(8, 19), rng.randint(0, 59)))
    if roll < 0.95:
        # Near closing: just before, at, or just after it.
        minutes = rng.choice((50, 59, 60, 61, 75, 90))
        hours, minute = divmod(19 * 60 + minutes, 60)
        return _at(now, rng.randint(0, 2), time(hours, minute))
    days = (_SATURDAY - now.astimezone(LONDON).weekday()) % 7
    if rng.random() < 0.5:
        return _at(now, days, time(16 + rng.randint(0, 3), rng.choice((30, 59, 0))))
    return _at(now, days + 1, time(rng.randint(9, 18)))


def _at(now: datetime, days: int, clock: time) -> datetime:
    """Return that time of London's clocks so many days later, the next day when it is past."""
    day = now.astimezone(LONDON).date() + timedelta(days=days)
    moment = datetime.combine(day, clock, tzinfo=LONDON).astimezone(UTC)
    return moment if moment > now else moment + timedelta(days=1)
