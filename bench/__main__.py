"""Run the benchmarks: all, or the one named with ``--only``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console

from bench import burst, change_latency, claim_next, context_read, ingest_rate, relay_rate
from bench.measurement import Result, save, show
from devstack.desk import Desk
from devstack.stack import Stack

BENCHMARKS: dict[str, Callable[[Stack], Awaitable[list[Result]]]] = {
    "context_read": context_read.measure,
    "change_latency": change_latency.measure,
    "claim_next": claim_next.measure,
    "ingest_rate": ingest_rate.measure,
    "relay_rate": relay_rate.measure,
    "burst": burst.measure,
}
USERS = 5_000


def main() -> int:
    """Print a table, write ``bench/results.json``; 2 for a name nobody knows."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=sorted(BENCHMARKS))
    names = [parser.parse_args().only or ""]
    if names == [""]:
        names = list(BENCHMARKS)
    console = Console(width=160)
    folder = Path(__file__).parent.parent / ".stack" / "bench"
    with Stack(folder, users=USERS, report=console.print) as stack:
        # The first fill of the queues is not what is measured.
        with Desk(stack.addresses, "supervisor", "bench") as desk:
            desk.await_reconciled()
        results = asyncio.run(_measure(names, stack, console))
    show(results, console)
    save(results, Path(__file__).parent / "results.json")
    return 0


async def _measure(names: list[str], stack: Stack, console: Console) -> list[Result]:
    results = []
    for name in names:
        console.print(f"Measuring {name} ...")
        results += await BENCHMARKS[name](stack)
    return results


if __name__ == "__main__":
    sys.exit(main())
