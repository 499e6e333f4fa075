"""Lists of phone numbers that must not be called: what they are made up of, and their age."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby


@dataclass(frozen=True, slots=True)
class CurrentEdition:
    """One edition of a list in force; `dated_on` and `source` are as its import said."""

    edition_id: int
    list_name: str
    actor_id: str
    is_complete: bool
    numbers: int
    became_current_at: datetime
    dated_on: date | None
    source: str | None


@dataclass(frozen=True, slots=True)
class ListInForce:
    """A list in force. It is of the day of its latest edition, which may be an addition.

    `is_old` when that is longer ago than the rules have it; `oldest_days` None for no limit.
    """

    list_name: str
    dated_on: date
    oldest_days: float | None
    is_old: bool
    editions: Sequence[CurrentEdition]


def lists_of(
    editions: Sequence[CurrentEdition], oldest_days: Mapping[str, float], now: datetime
) -> list[ListInForce]:
    """Return the lists that editions in force make up; `editions` come list by list."""
    lists = []
    for list_name, group in groupby(editions, key=lambda it: it.list_name):
        its = list(group)
        dated_on = max(it.dated_on or it.became_current_at.date() for it in its)
        limit = oldest_days.get(list_name)
        is_old = limit is not None and now.date() - dated_on > timedelta(days=limit)
        lists.append(ListInForce(list_name, dated_on, limit, is_old, its))
    return lists
