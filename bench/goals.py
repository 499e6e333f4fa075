"""The goals of the figures, by the result's name: the one place that `make bench` judges by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """The figure, or its ratio to the floor, is at least or at most ``value``."""

    value: float
    is_least: bool
    of_ratio: bool

    def __str__(self) -> str:
        value = f"{self.value:,.2f}".rstrip("0").rstrip(".")
        return f"{'ratio ' if self.of_ratio else ''}{'≥' if self.is_least else '≤'} {value}"

    def is_met(self, ours: float, ratio: float) -> bool:
        """Whether a figure and its ratio to the floor reach the goal."""
        figure = ratio if self.of_ratio else ours
        return figure >= self.value if self.is_least else figure <= self.value


def at_least(value: float) -> Goal:
    """Our own figure, in its unit."""
    return Goal(value, is_least=True, of_ratio=False)


def at_most(value: float) -> Goal:
    """Our own figure, in its unit."""
    return Goal(value, is_least=False, of_ratio=False)


def ratio_at_least(value: float) -> Goal:
    """Ours / floor."""
    return Goal(value, is_least=True, of_ratio=True)


def ratio_at_most(value: float) -> Goal:
    """Ours / floor."""
    return Goal(value, is_least=False, of_ratio=True)


GOALS = {
    "change_latency_50_p50": at_most(18.0),
    "change_latency_50_p99": at_most(60.0),
    "change_latency_200_p50": at_most(35.0),
    "change_latency_200_p99": at_most(110.0),
    "burst": at_most(5.0),
    "burst_single_worst": at_most(1.5),
    "claim_next_100": ratio_at_least(0.65),
    "claim_next_paced_p50": at_most(6.0),
    "claim_next_paced_p99": at_most(15.0),
    "outcome": ratio_at_most(3.0),
    "context_read": ratio_at_least(0.78),
    "context_read_batch_16": at_least(45_000),
    "context_json_bare_cpu": at_most(110.0),
    # 1.3 times as many requests per core.
    "context_json_node_grpc_cpu": ratio_at_most(1 / 1.3),
    "rebuild_50000": ratio_at_most(2.0),
    "rebuild_500000": ratio_at_most(2.0),
    "ingest_rate": ratio_at_least(0.7),
    "relay_rate_singles": ratio_at_least(1.0),
    "sweep_500000": ratio_at_most(1.4),
    "apply_facts_1": ratio_at_most(5.0),
    "apply_facts_100": ratio_at_most(3.5),
    "apply_facts_10000": ratio_at_most(3.0),
}
