"""`make simulate`: live a week, say how it went, exit with 1 when a rule was broken."""

import argparse
import pickle
import sys
from collections import Counter
from datetime import date, datetime, time
from pathlib import Path

from simulation.history import WeekHistory
from simulation.plan import ORDINARY_MONDAY, Plan
from simulation.run import simulate
from simulation.summary import lines, progress_line


def main() -> int:
    """Run what the command line asks for."""
    given = _arguments()
    plan = _plan(given)
    result, report = simulate(plan, lambda words: print(words, flush=True), _tell)
    if given.keep is not None:
        given.keep.write_bytes(pickle.dumps(result))
    print(f"\r{'':<70}\nSimulated in {result.real_seconds:,.0f} seconds.\n")
    for line in lines(plan, result, report):
        print(line)
    return 1 if report.violations else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--people", type=int, default=50_000)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--changes", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--first-day",
        type=date.fromisoformat,
        default=ORDINARY_MONDAY,
        help="such as 2026-03-27 for a change of the clocks, 2026-04-02 for Easter",
    )
    parser.add_argument(
        "--ends-at", type=time.fromisoformat, help="cut the last day short, such as 12:00"
    )
    parser.add_argument("--rules", type=Path, help="other rules for the queue, not for the checker")
    parser.add_argument("--tick-seconds", type=float, default=10.0)
    parser.add_argument("--loop-seconds", type=float, default=0.1)
    parser.add_argument("--copies", type=int, default=1, help="of every service")
    parser.add_argument("--logs", type=Path, help="leave the services' logs in this folder")
    parser.add_argument("--keep", type=Path, help="pickle the week into this file, to look into it")
    return parser.parse_args()


def _plan(given: argparse.Namespace) -> Plan:
    return Plan(
        people=given.people,
        agents=given.agents,
        changes=given.changes,
        days=given.days,
        seed=given.seed,
        first_day=given.first_day,
        ends_at=given.ends_at,
        rules_path=given.rules,
        tick_seconds=given.tick_seconds,
        loop_seconds=given.loop_seconds,
        copies=given.copies,
        logs=given.logs,
    )


def _tell(at: datetime, history: WeekHistory, changes: Counter[str]) -> None:
    print(f"\r{progress_line(at, history, changes.total())}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
