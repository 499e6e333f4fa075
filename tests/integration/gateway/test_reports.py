"""Reports as supervisors read them, and as a spreadsheet does."""

import csv
import io

import httpx
import pytest
from dialler.model.v1 import call_state_pb2, event_pb2
from dialler.queue.v1 import queue_pb2

from tests.fakes.running_gateway import RunningGateway

pytestmark = pytest.mark.integration

UNSIGNED = call_state_pb2.QUEUE_UNSIGNED_USERS
NOVEMBER = {"from": "2026-11-01", "until": "2026-11-30", "period": "total"}


@pytest.fixture(autouse=True)
def counted(gateway: RunningGateway) -> None:
    row = queue_pb2.ReportRow
    gateway.services.queue.report_rows = {
        queue_pb2.REPORT_CALLS: [
            row(queue=UNSIGNED, agent_id="anna", result=0, number=3),
            row(queue=UNSIGNED, agent_id="anna", result=call_state_pb2.OUTCOME_NO_ANSWER, number=6),
            row(
                queue=UNSIGNED,
                agent_id="anna",
                result=call_state_pb2.OUTCOME_GOING_TO_COMPLETE,
                number=2,
            ),
        ],
        queue_pb2.REPORT_CONVERSIONS: [
            row(
                queue=UNSIGNED,
                agent_id=agent_id,
                result=event_pb2.CONVERSION_SIGNATURE_OBTAINED,
                number=4,
                timed=2,
                seconds=2 * 86_400 * 5,
            )
            for agent_id in ("anna", "=cmd|' /C calc'!A0")
        ],
        queue_pb2.REPORT_CALLBACKS: [
            row(
                since="2026-11-02",
                queue=call_state_pb2.QUEUE_CALLBACKS,
                hour=9,
                result=call_state_pb2.CALLBACK_STATE_DONE,
                number=5,
            )
        ],
        queue_pb2.REPORT_PEOPLE: [
            row(queue=UNSIGNED, result=call_state_pb2.ENTRY_STATE_READY, number=7, timed=2)
        ],
    }


async def _rows(
    supervisor: httpx.AsyncClient, report: str, **asked: str
) -> list[dict[str, object]]:
    """Return the rows of a report without what it does not tell."""
    response = await supervisor.get(f"/v1/reports/{report}", params=NOVEMBER | asked)
    assert response.status_code == 200
    body = response.json()
    assert body["report"] == report
    assert body["counted_at"] == "2026-11-30T18:00:00.000000Z"
    return [{name: it for name, it in row.items() if it is not None} for row in body["rows"]]


async def test_each_report_adds_up_what_was_counted(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    calls = {
        "queue": "unsigned_users",
        "calls": 8,
        "unreported_calls": 3,
        "conversations": 2,
        "contact_rate": 0.25,
    }
    assert await _rows(supervisor, "calls", by="agent") == [{**calls, "agent_id": "anna"}]
    assert await _rows(supervisor, "outcomes", by="agent") == [
        {"queue": "unsigned_users", "agent_id": "anna", "outcome": outcome, "calls": number}
        for outcome, number in (("no_answer", 6), ("going_to_complete", 2))
    ]
    conversions = await _rows(supervisor, "conversions", by="agent")
    assert conversions[0] == {
        "queue": "unsigned_users",
        "agent_id": "anna",
        "conversion": "signature_obtained",
        "conversions": 4,
        "average_days": 5.0,
    }
    agents = await _rows(supervisor, "agents")
    assert agents[1] == {**calls, "agent_id": "anna", "conversions": 4}
    assert agents[0] == {"queue": "unsigned_users", "agent_id": "=cmd|' /C calc'!A0"} | {
        "conversions": 4
    }
    assert await _rows(supervisor, "callbacks", by="hour", period="day") == [
        {
            "since": "2026-11-02",
            "queue": "callbacks",
            "hour": 9,
            "callback_state": "done",
            "callbacks": 5,
        }
    ]
    assert await _rows(supervisor, "queues", queue="unsigned_users") == [
        {"queue": "unsigned_users", "state": "ready", "people": 3.5}
    ]
    request = gateway.services.queue.requests("GetReport")[-1]
    assert (request.first_day, request.last_day) == ("2026-11-01", "2026-11-30")
    assert (request.period, request.queue) == (queue_pb2.REPORT_PERIOD_TOTAL, UNSIGNED)


async def test_a_spreadsheet_takes_no_cell_for_a_formula(supervisor: httpx.AsyncClient) -> None:
    response = await supervisor.get("/v1/reports/agents", params=NOVEMBER | {"format": "csv"})
    assert response.headers["content-type"].startswith("text/csv")
    assert response.headers["content-disposition"] == 'attachment; filename="agents.csv"'
    header, *lines = csv.reader(io.StringIO(response.text))
    assert header == [
        *("since", "queue", "agent_id", "calls", "unreported_calls", "conversations"),
        *("contact_rate", "conversions"),
    ]
    assert ["", "unsigned_users", "anna", "8", "3", "2", "0.25", "4"] in lines
    assert ["", "unsigned_users", "'=cmd|' /C calc'!A0", "", "", "", "", "4"] in lines


@pytest.mark.parametrize(
    "wrong", [{"from": "2026-11-31"}, {"period": "year"}, {"by": "person"}, {"format": "xml"}]
)
async def test_what_is_no_report_is_refused(
    supervisor: httpx.AsyncClient, wrong: dict[str, str]
) -> None:
    response = await supervisor.get("/v1/reports/calls", params=NOVEMBER | wrong)
    assert response.status_code == 422
    assert response.json()["reason"] == "INVALID_REQUEST"
