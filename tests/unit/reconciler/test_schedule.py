"""Which runs are due."""

from datetime import UTC, datetime, timedelta

import pytest

from services.reconciler.domain.freshness import FreshnessMode
from services.reconciler.domain.runs import RunKind
from services.reconciler.domain.schedule import Schedule

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
CAPTURE, BATCH = FreshnessMode.CHANGE_CAPTURE, FreshnessMode.BATCH
FULL, CHANGED, WARMING, HOUSEKEEPING = RunKind
SCHEDULE = Schedule(
    {
        FULL: timedelta(hours=6),
        CHANGED: timedelta(minutes=15),
        WARMING: timedelta(hours=1),
        HOUSEKEEPING: timedelta(days=1),
    },
    timedelta(minutes=1),
)


def _due(
    mode: FreshnessMode = CAPTURE, begun_minutes: float = 0, **minutes: float
) -> list[RunKind]:
    last = {RunKind[kind]: NOON - timedelta(minutes=ago) for kind, ago in minutes.items()}
    return SCHEDULE.due(mode, last, NOON - timedelta(minutes=begun_minutes), NOON)


def test_nothing_is_due_at_first() -> None:
    assert _due() == []


@pytest.mark.parametrize(
    ("minutes", "kinds"),
    [
        (15, [CHANGED]),
        (60, [CHANGED, WARMING]),
        (360, [FULL, CHANGED, WARMING]),
        (1_440, list(RunKind)),
    ],
)
def test_kinds_never_requested_count_from_the_beginning(
    minutes: float, kinds: list[RunKind]
) -> None:
    assert _due(begun_minutes=minutes) == kinds


def test_a_run_counts_from_every_requester() -> None:
    assert _due(begun_minutes=400, FULL=359, CHANGED=14, WARMING=59, HOUSEKEEPING=0) == []
    assert _due(begun_minutes=400, FULL=360, CHANGED=14, WARMING=59) == [FULL]


def test_a_full_run_covers_changed_rows_too() -> None:
    assert CHANGED not in _due(FULL=14, CHANGED=30)


def test_full_runs_follow_one_another_while_capture_is_unavailable() -> None:
    assert _due(BATCH, FULL=1, CHANGED=500, WARMING=0, HOUSEKEEPING=0) == [FULL]
    assert _due(BATCH, FULL=0.9, CHANGED=500, WARMING=0, HOUSEKEEPING=0) == []


def test_what_is_not_scheduled_never_runs() -> None:
    schedule = Schedule({}, timedelta(minutes=1))
    long_ago = NOON - timedelta(days=99)
    assert schedule.due(CAPTURE, {}, long_ago, NOON) == []
    assert schedule.due(BATCH, {}, long_ago, NOON) == [FULL]


@pytest.mark.parametrize("every", [{FULL: timedelta(hours=6)}, {}], ids=["often", "never"])
def test_a_full_run_that_failed_is_due_again_soon_after(every: dict[RunKind, timedelta]) -> None:
    schedule = Schedule(every, timedelta(minutes=1), timedelta(minutes=15))

    def due(minutes: int | None) -> list[RunKind]:
        failed_at = None if minutes is None else NOON - timedelta(minutes=minutes)
        return schedule.due(CAPTURE, {FULL: NOON - timedelta(hours=1)}, NOON, NOON, failed_at)

    assert due(14) == []
    assert due(15) == [FULL]
    assert due(None) == []
