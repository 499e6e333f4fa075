"""A short simulated morning keeps every rule; with rules broken on purpose it is found out."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.queue.domain.rules import Day
from services.queue.rules import DEFAULT_PATH
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
    copies=int(os.environ.get("DIALLER_TEST_COPIES", "2")),
)
# Few people, who are called again soon when nothing keeps them from it.
BUSY_MORNING = replace(MORNING, people=250, changes=300, ends_at=time(10), copies=1)

Rules = dict[str, Any]


def test_a_morning_keeps_every_rule() -> None:
    result, report = simulate(MORNING)
    assert report.examples == []
    assert len(result.history.tables.attempts) > 100
    assert len(result.history.tables.callbacks) > 20
    assert result.changes.total() >= MORNING.changes
    assert report.checks["no person passed over"] > 200
    assert report.checks["unreported calls kept"] > 0
    assert report.checks["no objection lost"] > 3


def _open_all_day(rules: Rules) -> None:
    all_day = {"from": "00:00", "until": "24:00"}
    rules["calling_hours"]["days"] = {day.value: dict(all_day) for day in Day}


def _never_rest(rules: Rules) -> None:
    rules["outcomes"]["no_answer"]["next_call_hours"] = 0.1
    rules["calls"] |= {"attempts_per_day": 99, "shared_phone_hours": 0, "cooling_hours": 0}
    rules["calls"]["unreported_rest_minutes"] = 0


def _call_placeholders(rules: Rules) -> None:
    rules["calls"]["placeholder_people"] = 10_000


def _credit_every_call(rules: Rules) -> None:
    for outcome in rules["outcomes"].values():
        outcome["is_conversation"] = True


def _count_everything(rules: Rules) -> None:
    rules["eligibility"]["excluded_requirement_types"] = []
    rules["eligibility"]["excluded_requirements"] = []


def _worst_queue_first(rules: Rules) -> None:
    rules["assignment"]["default_queues"].reverse()


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (
            (_open_all_day, _never_rest, _call_placeholders),
            {
                "calling hours",
                "next call",
                "attempts a day",
                "attempts a day of a line",
                "rest after an unreported call",
                "number to call",
            },
        ),
        (
            (_count_everything, _worst_queue_first, _credit_every_call),
            {"no wrong call", "no person passed over", "conversion credited"},
        ),
    ],
    ids=["hours, rests and numbers", "eligibility, order and credit"],
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
