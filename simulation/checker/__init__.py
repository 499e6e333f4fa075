"""Says whether a simulated week went by the rules of the domain.

Knows the rules by itself and imports nothing of the services, so that a mistake of theirs cannot
be one of its own: it goes by what was in MySQL, what was asked and answered, and at the end by
what the tables hold.
"""

import math

from simulation.checker.callbacks import check_callbacks
from simulation.checker.findings import Report
from simulation.checker.ledger import check_tables
from simulation.checker.replay import Replay
from simulation.checker.state import AllowedDelays, CheckerState
from simulation.history import CallbackClosed, Record, WeekHistory, Window


def check(history: WeekHistory, delays: AllowedDelays | None = None) -> Report:
    """Return the verdict on a week that is over."""
    report = Report()
    replay = Replay(CheckerState.of(history, delays or AllowedDelays()), report)
    records = [*history.records, *_closings(history)]
    for record in sorted(records, key=lambda it: (it.at, it.window.ended)):
        replay.take(record)
    if history.ended_at is not None:
        replay.finish(history.ended_at)
    check_tables(history, replay, report)
    check_callbacks(history, replay, report)
    return report


def _closings(history: WeekHistory) -> list[Record]:
    """Return what the queue did by itself, of which no answer told: last of its moment."""
    return [
        CallbackClosed(row.closed_at, _LAST, row)
        for row in history.tables.callbacks
        if row.state == "closed" and row.closed_at is not None
    ]


_LAST = Window(math.inf, math.inf)
