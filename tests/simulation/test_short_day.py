"""A short simulated morning keeps every rule; with rules broken on purpose it is found out."""

from collections.abc import Callable
from dataclasses import replace
from datetime import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.queue.rules import DEFAULT_PATH, Day
from simulation.plan import Plan
from simulation.run import simulate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

MORNING = Plan(
    people=600,
    agents=10,
    changes=900,
    days=1,
    ends_at=time(10, 30),
    loop_seconds=0.01,
)
# Few people, who are called again soon when nothing keeps them from it.
BUSY_MORNING = replace(MORNING, people=250, changes=300, ends_at=time(10))

Rules = dict[str, Any]


def test_a_morning_keeps_every_rule() -> None:
    lived, report = simulate(MORNING)
    assert report.examples == []
    assert len(lived.history.tables.attempts) > 100
    assert len(lived.history.tables.callbacks) > 20
    assert lived.changes.total() >= MORNING.changes
    assert report.checks["nobody passed over"] > 200


def _open_all_day(rules: Rules) -> None:
    all_day = {"from": "00:00", "until": "24:00"}
    rules["calling_hours"]["days"] = {day.value: dict(all_day) for day in Day}


def _never_rest(rules: Rules) -> None:
    rules["outcomes"]["no_answer"]["next_call_hours"] = 0.1
    rules["calls"] |= {"attempts_per_day": 99, "shared_phone_hours": 0, "cooling_hours": 0}


def _count_everything(rules: Rules) -> None:
    rules["eligibility"]["excluded_requirement_types"] = []
    rules["eligibility"]["excluded_requirements"] = []


def _worst_queue_first(rules: Rules) -> None:
    rules["assignment"]["default_queues"].reverse()


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        ((_open_all_day, _never_rest), {"calling hours", "next call", "attempts a day"}),
        ((_count_everything, _worst_queue_first), {"no wrong call", "nobody passed over"}),
    ],
    ids=["hours and rests", "eligibility and order"],
)
def test_rules_broken_on_purpose_are_found_out(
    tmp_path: Path, spoil: tuple[Callable[[Rules], None], ...], found: set[str]
) -> None:
    rules = yaml.safe_load(DEFAULT_PATH.read_text(encoding="utf-8"))
    for each in spoil:
        each(rules)
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rules), encoding="utf-8")
    _, report = simulate(replace(BUSY_MORNING, rules_path=path))
    assert found <= set(report.broken)
