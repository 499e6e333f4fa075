"""One line on whether data is fresh."""

from typing import Any

import pytest
from dialler.cdc_ingest.v1 import cdc_ingest_pb2
from dialler.reconciler.v1 import reconciler_pb2

from gateway.resources.pipeline import Ingest, data_health
from gateway.resources.reconciliations import Freshness


def _ingest(alive: int = 1_000, through: int = 1_000, **changes: Any) -> Ingest:
    status = cdc_ingest_pb2.GetStatusResponse(**changes)
    status.capture_alive_at.seconds = alive
    status.applied_through.seconds = through
    return Ingest.of(status)


def _freshness(mode: str, reason: str = "") -> Freshness:
    number = reconciler_pb2.FreshnessMode.Value(f"FRESHNESS_MODE_{mode}")
    answer = reconciler_pb2.GetFreshnessResponse(mode=number, reason=reason)
    answer.since.seconds = answer.verified_at.seconds = 500
    return Freshness.of(answer)


CAPTURE = _freshness("CHANGE_CAPTURE")


def test_fresh() -> None:
    health = data_health(_ingest(), CAPTURE, {})
    assert health.fresh
    assert health.summary.startswith("Fresh: ")
    assert "1970-01-01T00:16:40" in health.summary


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        ({"cache_distrusted": "MISCONF"}, "the cache cannot be used (MISCONF)"),
        ({"events_lost": "READONLY"}, "events stand still, Redis cannot be used (READONLY)"),
        ({"cache_distrusted": "OOM", "events_lost": "OOM"}, "events stand still"),
    ],
)
def test_a_redis_that_cannot_be_used_is_not_fresh(reasons: dict[str, str], words: str) -> None:
    health = data_health(_ingest(), CAPTURE, {}, **reasons)
    assert not health.fresh
    assert words in health.summary


@pytest.mark.parametrize(
    ("ingest", "freshness", "unavailable", "words"),
    [
        (_ingest(), None, {"freshness": "UPSTREAM_UNAVAILABLE"}, "reconciler cannot be asked (UPS"),
        (
            _ingest(),
            _freshness("BATCH", "CAPTURE_SILENT"),
            {},
            "unavailable (CAPTURE_SILENT) since 1970",
        ),
        (None, CAPTURE, {"ingest": "NOT_CONFIGURED"}, "ingest cannot be asked (NOT_CONFIGURED)"),
        (_ingest(downstream_unavailable=True), CAPTURE, {}, "changes wait in SQS"),
        (_ingest(paused=True), CAPTURE, {}, "the ingest is paused"),
        (_ingest(dead_letter_alarm=True), CAPTURE, {}, "the ingest is paused"),
        (_ingest(through=969, backlog_messages=7), CAPTURE, {}, "7 messages wait"),
    ],
)
def test_not_fresh_and_why(
    ingest: Ingest | None, freshness: Freshness | None, unavailable: dict[str, str], words: str
) -> None:
    health = data_health(ingest, freshness, unavailable)
    assert not health.fresh
    assert words in health.summary


@pytest.mark.parametrize(("ahead", "words"), [(0.05, ""), (3_600, "3600 s ahead")])
def test_times_ahead_of_the_ingest_are_said_and_data_is_fresh_all_the_same(
    ahead: float, words: str
) -> None:
    health = data_health(_ingest(capture_ahead_seconds=ahead), CAPTURE, {})
    assert health.fresh
    assert words in health.summary
    assert ("ahead" in health.summary) == bool(words)
