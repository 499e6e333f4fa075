"""Times in the future count as the receipt, and GetStatus shows them."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cdc_ingest.domain.formats.records import ChangeFile
from services.cdc_ingest.domain.messages import Arrival, ChangeTimes, ClockSkew
from services.cdc_ingest.domain.people import Demand
from services.cdc_ingest.domain.watermark import Watermark
from services.cdc_ingest.metrics import PipelineMetrics
from services.cdc_ingest.sqs.message_reader import read_message
from tests.unit.cdc_ingest.bodies import PEOPLE, arrival, debezium, dms, maxwell, message

NOW = datetime(2026, 6, 2, 12, tzinfo=UTC)
FAR = "2099-01-01T00:00:00.000000Z"


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@pytest.mark.parametrize(
    "body",
    [
        dms(data={"id": 5}, timestamp=FAR),
        dms(data={"id": 5}, **{"commit-timestamp": FAR}),
        dms("", "heartbeat", **{"record-type": "control", "timestamp": FAR}),
        debezium(after={"id": 5}) | {"ts_ms": 4_070_908_800_000},
        maxwell(data={"id": 5}) | {"ts": 4_070_908_800},
    ],
)
def test_a_record_of_2099_is_no_sign_of_life_from_2099(body: object) -> None:
    found = arrival(body)
    received = found.message.received_at
    watermark = Watermark(60)
    watermark.hold(found)
    assert watermark.alive_at is not None
    assert watermark.alive_at <= received
    watermark.finish(found.message)
    assert watermark.applied_through is not None
    assert watermark.applied_through <= received
    assert found.times.ahead > timedelta(days=10_000)


def test_a_file_of_2099_counts_from_its_notice() -> None:
    file = ChangeFile("b", "mainapp/users/a.csv", "users", written_at=NOW + seconds(60))
    found = Arrival(message("x"), Demand(), ChangeTimes(NOW), (file,))
    assert found.captured_from == NOW


def test_a_record_of_2099_that_comes_again_and_again_is_no_new_sign_of_life() -> None:
    body = message(json.dumps(dms(data={"id": 5}, timestamp=FAR)))
    watermark = Watermark(60)
    for hour in range(3):
        received = NOW + timedelta(hours=hour)
        again = replace(body, receipt=str(hour), received_at=received, sent_at=NOW)
        found = read_message(again, PEOPLE)
        watermark.hold(found)
        watermark.finish(again)
    assert watermark.alive_at == NOW + timedelta(milliseconds=1)


MOMENTS = st.none() | st.integers(-100, 100).map(lambda n: NOW + seconds(n))


@given(MOMENTS, MOMENTS)
def test_no_stage_is_later_than_the_receipt(
    committed: datetime | None, captured: datetime | None
) -> None:
    times = ChangeTimes(NOW, committed, captured)
    for told, kept in ((committed, times.committed_at), (captured, times.captured_at)):
        assert kept == (None if told is None else min(told, NOW))
    latest = max((t for t in (committed, captured) if t is not None), default=NOW)
    assert times.ahead == max(latest - NOW, seconds(0))


def test_the_worst_of_ten_minutes_is_shown() -> None:
    skew = ClockSkew()
    assert skew.ahead(NOW) == seconds(0)
    skew.note(seconds(5), NOW)
    skew.note(seconds(3), NOW + seconds(10))
    skew.note(seconds(0), NOW + seconds(20))
    assert skew.ahead(NOW + seconds(30)) == seconds(5)
    assert skew.ahead(NOW + seconds(601)) == seconds(0)
    skew.note(seconds(1), NOW + seconds(700))
    assert skew.ahead(NOW + seconds(700)) == seconds(1)


def test_the_ledger_notes_what_arrives() -> None:
    pipeline_metrics = PipelineMetrics()
    found = arrival(dms(data={"id": 5}, timestamp=FAR))
    pipeline_metrics.arrived([found])
    assert pipeline_metrics.skew.ahead(found.message.received_at) > timedelta(days=10_000)
