"""Run the benchmarks: all, or the one named with ``--only``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console

from bench import (
    apply_facts,
    burst,
    change_latency,
    claim_next,
    context_json,
    context_read,
    ingest_rate,
    list_import,
    mysql_load,
    outcome,
    rebuild,
    relay_rate,
    search,
    sse_clients,
    sweep,
    telemetry_overhead,
)
from bench.measurement import BenchResult, save, show
from devstack.desk import Desk
from devstack.stack import Stack

BENCHMARKS: dict[str, Callable[[Stack], Awaitable[list[BenchResult]]]] = {
    "context_read": context_read.measure,
    "context_json": context_json.measure,
    "change_latency": change_latency.measure,
    "claim_next": claim_next.measure,
    "outcome": outcome.measure,
    "apply_facts": apply_facts.measure,
    "mysql_load": mysql_load.measure,
    "search": search.measure,
    "ingest_rate": ingest_rate.measure,
    "relay_rate": relay_rate.measure,
    "burst": burst.measure,
    "telemetry_overhead": telemetry_overhead.measure,
    "sse_clients": sse_clients.measure,
}
REBUILD = "rebuild"
SWEEP = "sweep"
LIST_IMPORT = "list_import"
# Each has a stack of its own.
ALONE = (REBUILD, SWEEP, LIST_IMPORT)
# What costs MySQL much or little shows with as many people as there are.
OF_MANY = frozenset({"mysql_load", "search"})
USERS = 5_000
PEOPLE = 50_000
# A thousand agents ask at once, and releases come on top.
ENVIRONMENT = {"QUEUE_MAX_CONCURRENT_CALLS": "4000"} | context_json.ENVIRONMENT
FOLDER = Path(__file__).parent.parent / ".stack"


def main() -> int:
    """Print a table, write ``bench/results.json``; 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=sorted([*BENCHMARKS, *ALONE]))
    parser.add_argument(
        "--people", type=int, default=PEOPLE, help="of rebuild, sweep, mysql_load and search"
    )
    parser.add_argument("--numbers", type=int, default=list_import.NUMBERS, help="of list_import")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else [*BENCHMARKS, *ALONE]
    console = Console(width=160)
    results: list[BenchResult] = []
    for group, users in (
        ([it for it in BENCHMARKS if it in names and it not in OF_MANY], USERS),
        ([it for it in names if it in OF_MANY], arguments.people),
    ):
        if group:
            results += _with_stack(group, users, console)
    if REBUILD in names:
        results += _rebuild(arguments.people, console)
    if SWEEP in names:
        results += _sweep(arguments.people, console)
    if LIST_IMPORT in names:
        results += _list_import(arguments.numbers, console)
    show(results, console)
    save(results, Path(__file__).parent / "results.json")
    return 0


def _with_stack(names: list[str], users: int, console: Console) -> list[BenchResult]:
    folder = FOLDER / ("bench" if users == USERS else f"bench-of-{users}")
    with Stack(folder, users=users, extra_environment=ENVIRONMENT, report=console.print) as stack:
        # The first fill of the queues is not what is measured.
        with Desk(stack.addresses, "supervisor", "bench") as desk:
            desk.await_reconciled()
        return asyncio.run(_measure(names, stack, console))


async def _measure(names: list[str], stack: Stack, console: Console) -> list[BenchResult]:
    results = []
    for name in names:
        console.print(f"Measuring {name} ...")
        results += await BENCHMARKS[name](stack)
    return results


def _rebuild(people: int, console: Console) -> list[BenchResult]:
    folder = FOLDER / f"bench-{people}"
    with Stack(folder, users=min(USERS, people), report=console.print) as stack:
        console.print(f"Measuring {REBUILD} with {people:,} people ...")
        return asyncio.run(rebuild.measure(stack, people))


def _sweep(people: int, console: Console) -> list[BenchResult]:
    folder = FOLDER / f"bench-sweep-{people}"
    environment = sweep.ENVIRONMENT
    with Stack(folder, users=people, extra_environment=environment, report=console.print) as stack:
        console.print(f"Bringing {people:,} people into the queues ...")
        with Desk(stack.addresses, "supervisor", "bench") as desk:
            desk.await_reconciled(seconds=1_800)
        console.print(f"Measuring {SWEEP} with {people:,} people ...")
        return asyncio.run(sweep.measure(stack, people))


def _list_import(numbers: int, console: Console) -> list[BenchResult]:
    with Stack(FOLDER / "bench-lists", users=1_000, report=console.print) as stack:
        console.print(f"Measuring {LIST_IMPORT} with {numbers:,} numbers ...")
        return asyncio.run(list_import.measure(stack, numbers))


if __name__ == "__main__":
    sys.exit(main())
