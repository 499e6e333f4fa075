"""Runs a plan from nothing to the verdict."""

import time
from collections.abc import Callable

import uvloop

from simulation.checker import check
from simulation.checker.findings import Report
from simulation.plan import Plan
from simulation.servers import running_servers
from simulation.week import Progress, Week, WeekResult


def simulate(
    plan: Plan,
    report: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda _at, _history, _changes: None,
) -> tuple[WeekResult, Report]:
    """Return the week and the checker's verdict; starts and stops private servers for it."""
    report(f"Making {plan.people:,} people and starting servers and services ...")
    with running_servers(plan) as servers:
        report(f"Living {plan.days} day(s) from {plan.first_day} on ...")
        began = time.monotonic()
        result = uvloop.run(Week(plan, servers, progress).run())
        result.real_seconds = time.monotonic() - began
    report("Checking ...")
    return result, check(result.history)
