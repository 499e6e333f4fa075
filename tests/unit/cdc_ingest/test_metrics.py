"""The counts of received messages and records."""

import pytest
from prometheus_client import REGISTRY

from services.cdc_ingest.metrics import PipelineMetrics
from tests.unit.cdc_ingest.bodies import arrival, debezium, dms, kinesis, maxwell, s3_record


def _count(form: str, kind: str) -> float:
    labels = {"format": form, "kind": kind}
    return REGISTRY.get_sample_value("dialler_cdc_ingest_records_total", labels) or 0.0


@pytest.mark.parametrize(
    ("body", "counted", "records", "ignored"),
    [
        (dms(data={"id": 5}), [("dms", "row")], 1, 0),
        (dms("jobs", data={"id": 5}), [("dms", "foreign")], 1, 1),
        (kinesis(debezium("claims", "t")), [("debezium", "lost_track")], 1, 0),
        (kinesis(None), [("kinesis", "envelope"), ("debezium", "tombstone")], 1, 1),
        (maxwell(kind="table-create"), [("maxwell", "schema")], 1, 1),
        (dms("claims", data={"id": 9, "user_id": 0}), [("dms", "ownerless")], 1, 1),
        (s3_record("mainapp/jobs/a.csv"), [("s3", "foreign")], 1, 1),
        (dms("", "heartbeat", **{"record-type": "control"}), [("dms", "heartbeat")], 0, 0),
        ("hello", [("unknown", "unreadable")], 0, 0),
        (dms(data={"id": "x"}), [("dms", "unreadable")], 0, 0),
    ],
)
def test_records_are_counted_by_format_and_kind(
    body: object, counted: list[tuple[str, str]], records: int, ignored: int
) -> None:
    before = [_count(*each) for each in counted]
    pipeline_metrics = PipelineMetrics()
    pipeline_metrics.arrived([arrival(body)])
    assert [_count(*each) for each in counted] == [count + 1 for count in before]
    assert (pipeline_metrics.records, pipeline_metrics.records_ignored) == (records, ignored)
