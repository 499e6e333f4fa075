"""When full runs replace change capture, and when they stop."""

from datetime import UTC, datetime, timedelta

import pytest

from services.reconciler.domain.freshness import (
    CaptureSigns,
    CaptureSwitch,
    Freshness,
    FreshnessMode,
    IngestStatus,
    next_freshness,
)

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SILENCE = timedelta(seconds=60)
CAPTURE = Freshness(FreshnessMode.CHANGE_CAPTURE, NOON - timedelta(hours=1))
SILENT = Freshness(FreshnessMode.BATCH, NOON - timedelta(minutes=5), "CAPTURE_SILENT")


def _signs(
    alive_seconds_ago: float | None = 1.0,
    *,
    watched_seconds: float = 3_600.0,
    switch: CaptureSwitch = CaptureSwitch.AUTO,
    is_watched: bool = True,
    is_paused: bool = False,
    is_reachable: bool = True,
) -> CaptureSigns:
    alive_at = None
    if alive_seconds_ago is not None:
        alive_at = NOON - timedelta(seconds=alive_seconds_ago)
    return CaptureSigns(
        switch=switch,
        is_watched=is_watched,
        watched_since=NOON - timedelta(seconds=watched_seconds),
        status=IngestStatus(alive_at, alive_at, is_paused) if is_reachable else None,
        capture_alive_at=alive_at,
    )


def _next_freshness(before: Freshness, signs: CaptureSigns) -> Freshness:
    return next_freshness(before, signs, NOON, SILENCE)


def test_while_messages_arrive_nothing_changes() -> None:
    after = _next_freshness(CAPTURE, _signs(59))
    assert (after.mode, after.since, after.reason) == (CAPTURE.mode, CAPTURE.since, "")
    assert after.capture_alive_at == NOON - timedelta(seconds=59)


@pytest.mark.parametrize(
    ("signs", "reason"),
    [
        (_signs(61), "CAPTURE_SILENT"),
        (_signs(None), "CAPTURE_SILENT"),
        (_signs(61, is_reachable=False), "INGEST_UNREACHABLE"),
        (_signs(1, is_paused=True), "INGEST_PAUSED"),
        (_signs(1, switch=CaptureSwitch.OFF), "CAPTURE_OFF"),
        (_signs(None, switch=CaptureSwitch.OFF, is_watched=False), "CAPTURE_OFF"),
    ],
)
def test_full_runs_replace_capture(signs: CaptureSigns, reason: str) -> None:
    after = _next_freshness(CAPTURE, signs)
    assert (after.mode, after.since, after.reason) == (FreshnessMode.BATCH, NOON, reason)


@pytest.mark.parametrize(
    "signs",
    [
        # A replica that has just begun to watch has received nothing yet.
        _signs(None, watched_seconds=10),
        _signs(600, watched_seconds=10),
        _signs(30, is_reachable=False),
        _signs(None, is_watched=False),
    ],
)
def test_capture_is_trusted_until_it_has_been_silent(signs: CaptureSigns) -> None:
    assert _next_freshness(CAPTURE, signs).mode is FreshnessMode.CHANGE_CAPTURE


def test_a_sign_of_life_ends_it_without_an_operator() -> None:
    after = _next_freshness(SILENT, _signs(1))
    assert (after.mode, after.since, after.reason) == (FreshnessMode.CHANGE_CAPTURE, NOON, "")


def test_a_new_watcher_does_not_take_its_own_ignorance_for_a_sign_of_life() -> None:
    after = _next_freshness(SILENT, _signs(400, watched_seconds=1))
    assert after.mode is FreshnessMode.BATCH
    assert (after.since, after.reason) == (SILENT.since, "CAPTURE_SILENT")


def test_the_beginning_is_kept_while_the_reason_is() -> None:
    assert _next_freshness(SILENT, _signs(500)).since == SILENT.since


@pytest.mark.parametrize("ahead_seconds", [61, 6 * 3_600])
def test_a_sign_of_life_from_the_future_does_not_switch_the_fallback_off(
    ahead_seconds: float,
) -> None:
    after = _next_freshness(CAPTURE, _signs(-ahead_seconds))
    assert (after.mode, after.reason) == (FreshnessMode.BATCH, "CAPTURE_SILENT")
    kept = Freshness(CAPTURE.mode, CAPTURE.since, "", NOON + timedelta(seconds=ahead_seconds))
    assert _next_freshness(kept, _signs(None)).mode is FreshnessMode.BATCH
    assert _next_freshness(kept, _signs(1)).mode is FreshnessMode.CHANGE_CAPTURE


def test_clocks_that_differ_a_little_are_believed() -> None:
    assert _next_freshness(CAPTURE, _signs(-5)).mode is FreshnessMode.CHANGE_CAPTURE
