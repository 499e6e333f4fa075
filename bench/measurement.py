"""Interleaved rounds of ours and a floor, and what is told of them."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.goals import GOALS

ROUNDS = 5

Sample = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class BenchResult:
    """One figure beside its floor. ``ratio`` is ours / floor: for a rate higher is better, for a
    time lower is. Spreads are half the distance between the extreme rounds, as a share of the
    median."""

    name: str
    ours: float
    floor: float
    ratio: float
    unit: str
    conditions: str
    floor_name: str
    rounds: int
    ours_spread: float
    floor_spread: float


async def interleave(
    name: str,
    ours: Sample,
    floor: Sample,
    *,
    unit: str,
    conditions: str,
    floor_name: str,
    rounds: int = ROUNDS,
) -> BenchResult:
    """Measure both in turn ``rounds`` times, so that the machine's moods meet both alike."""
    our_samples, floor_samples = [], []
    for _ in range(rounds):
        floor_samples.append(await floor())
        our_samples.append(await ours())
    return summarise(
        name, our_samples, floor_samples, unit=unit, conditions=conditions, floor_name=floor_name
    )


def summarise(
    name: str,
    ours: Sequence[float],
    floor: Sequence[float],
    *,
    unit: str,
    conditions: str,
    floor_name: str,
) -> BenchResult:
    """Return medians, their ratio and spreads of rounds already measured."""
    our_median, floor_median = statistics.median(ours), statistics.median(floor)
    return BenchResult(
        name=name,
        ours=our_median,
        floor=floor_median,
        ratio=our_median / floor_median,
        unit=unit,
        conditions=conditions,
        floor_name=floor_name,
        rounds=len(ours),
        ours_spread=_spread(ours),
        floor_spread=_spread(floor),
    )


def _spread(samples: Sequence[float]) -> float:
    return (max(samples) - min(samples)) / 2 / statistics.median(samples)


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the value that ``share`` (0 to 1) of the samples do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def load_average() -> str:
    """Return how many processes wanted a core over the last minute, and how many cores there are:
    figures of a machine that others use too say little by themselves."""
    return f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def show(results: Sequence[BenchResult], console: Console) -> None:
    """Print the table for people."""
    table = Table(title="ours beside the floor, medians of interleaved rounds")
    for column in ("name", "ours", "floor", "ratio", "goal", "unit", "the floor is", "conditions"):
        numeric = column in ("ours", "floor", "ratio")
        table.add_column(column, justify="right" if numeric else "left")
    for each in results:
        table.add_row(
            each.name,
            f"{each.ours:,.4g} ±{each.ours_spread:.0%}",
            f"{each.floor:,.4g} ±{each.floor_spread:.0%}",
            f"{each.ratio:.2f}",
            judged(each.name, each.ours, each.ratio),
            each.unit,
            each.floor_name,
            each.conditions,
        )
    console.print(table)


def judged(name: str, ours: float, ratio: float) -> str:
    """Return the goal of a figure and whether it is met; empty without a goal."""
    goal = GOALS.get(name)
    return f"{goal}: {'met' if goal.is_met(ours, ratio) else 'not met'}" if goal else ""


def save(results: Sequence[BenchResult], path: Path) -> None:
    """Write the figures for machines, keeping those of benchmarks that were not run now.

    All are held against the goals of today.
    """
    kept = {}
    if path.exists():
        kept = {each["name"]: each for each in json.loads(path.read_text(encoding="utf-8"))}
    kept |= {each.name: asdict(each) for each in results}
    ordered = [
        figures | {"goal": judged(name, figures["ours"], figures["ratio"])}
        for name, figures in sorted(kept.items())
    ]
    path.write_text(json.dumps(ordered, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
