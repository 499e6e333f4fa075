"""The verdicts that stand beside the figures of `make bench`."""

import pytest

from bench.goals import GOALS
from bench.measurement import judged


@pytest.mark.parametrize(
    ("name", "ours", "ratio", "expected"),
    [
        ("context_read", 9_999.0, 0.78, "ratio ≥ 0.78: met"),
        ("context_read", 9_999.0, 0.77, "ratio ≥ 0.78: not met"),
        ("context_read_batch_16", 45_000.0, 0.1, "≥ 45,000: met"),
        ("context_read_batch_16", 44_999.0, 9.0, "≥ 45,000: not met"),
        ("rebuild_50000", 9.0, 2.0, "ratio ≤ 2: met"),
        ("rebuild_50000", 0.1, 2.1, "ratio ≤ 2: not met"),
        ("burst", 5.0, 9.0, "≤ 5: met"),
        ("burst", 5.1, 1.0, "≤ 5: not met"),
    ],
)
def test_a_figure_is_judged_by_its_goal(
    name: str, ours: float, ratio: float, expected: str
) -> None:
    assert judged(name, ours, ratio) == expected


def test_a_figure_without_a_goal_has_no_verdict() -> None:
    assert "no_such_bench" not in GOALS
    assert judged("no_such_bench", 1.0, 1.0) == ""
