"""The events of DMS tasks in EventBridge."""

from typing import Any

import pytest

from services.cdc_ingest.domain.formats.records import Kind
from tests.unit.cdc_ingest.bodies import demand, sns

TASK = "DMS Replication Task State Change"


def event(kind: str = "", message: str = "", detail_type: str = TASK, **more: Any) -> Any:
    """An event as EventBridge writes it into SQS."""
    detail: dict[str, Any] = {
        "type": "ReplicationTask",
        "category": "StateChange",
        "eventType": kind,
        "detailMessage": message,
        **more,
    }
    return {
        "version": "0",
        "id": "11a11b11-222b-333a-44d4-01234a5b6789",
        "detail-type": detail_type,
        "source": "aws.dms",
        "time": "2025-06-02T09:00:00Z",
        "resources": ["arn:aws:dms:eu-west-2:123456789012:task:AAAABBBB"],
        "detail": detail,
    }


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (event("REPLICATION_TASK_FAILED", "Stop Reason FATAL_ERROR"), "dms-task-failed"),
        (event("REPLICATION_TASK_STOPPED", "Replication task has stopped."), "dms-task-stopped"),
        (
            event("REPLICATION_TASK_STARTED", "Replication task started, with flag = fresh start"),
            "dms-task-started-afresh",
        ),
        (event("REPLICATION_TASK_STARTED"), "dms-task-started-afresh"),
        (event(eventName="DMS-EVENT-0078"), "dms-task-failed"),
        (event(eventId="DMS-EVENT-0079"), "dms-task-stopped"),
        (event("REPLICATION_FAILED", "", "DMS Replication State Change"), "dms-task-failed"),
        (sns(event("REPLICATION_TASK_FAILED")), "dms-task-failed"),
    ],
)
def test_a_task_that_lost_its_place_asks_for_a_full_run(body: object, cause: str) -> None:
    found = demand(body)
    assert found.lost_track is not None
    assert (found.lost_track.table, found.lost_track.cause) == ("", cause)
    assert (found.keys, found.fault) == (set(), None)


@pytest.mark.parametrize(
    "body",
    [
        event("REPLICATION_TASK_STARTED", "Replication task started, with flag = resume"),
        event("REPLICATION_TASK_CREATED"),
        event("REPLICATION_TASK_DELETED"),
        event("READING_PAUSED_SWAP_FILES_LIMIT_REACHED"),
        event("REPLICATION_INSTANCE_FAILED", "", "DMS Replication Instance State Change"),
        event(eventName="DMS-EVENT-0091"),
        {"source": "aws.dms", "detail-type": TASK},
        {"source": "aws.dms", "detail-type": [], "detail": 5},
        {"source": "aws.dms", "detail-type": TASK, "detail": {"eventType": {}}},
    ],
)
def test_anything_else_is_acknowledged_and_counted(body: object) -> None:
    found = demand(body)
    assert (found.lost_track, found.fault) == (None, None)
    assert found.counts == {("dms_event", Kind.CONTROL): 1}
