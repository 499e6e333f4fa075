"""Events of calls and missed calls over REST."""

import httpx
import pytest

from tests.fakes.running_gateway import RunningGateway

pytestmark = pytest.mark.integration

EVENT = {
    "kind": "ended",
    "at": "2030-06-03T18:00:00+01:00",
    "duration_seconds": 61.5,
    "provider": "acme",
    "provider_call_id": "C1",
    "recording_reference": "rec/1",
}


async def test_a_bridge_notes_an_event_of_any_assignment_an_agent_of_its_own(
    gateway: RunningGateway, http: httpx.AsyncClient
) -> None:
    held = gateway.services.queue.hold("agent-1", 7)
    path = f"/v1/assignments/{held.assignment_id}/events"
    for role, subject, status in (
        ("service", "bridge", 200),
        ("agent", "agent-1", 200),
        ("agent", "agent-2", 409),
    ):
        response = await http.post(path, json=EVENT, headers=gateway.headers(role, subject))
        assert response.status_code == status, response.text
        if status == 200:
            assert response.json()["is_live"] is True
            assert response.json()["lease_expires_at"].startswith("2025-06-02T09:01:00")
    first = gateway.services.queue.requests("RecordCallEvent")[0]
    assert (first.actor_id, first.own_only, first.event.duration_seconds) == ("bridge", False, 61.5)
    assert first.event.at.ToJsonString() == "2030-06-03T17:00:00Z"
    response = await http.post(
        path, json=EVENT | {"kind": "sung"}, headers=gateway.headers("service", "bridge")
    )
    assert response.status_code == 422


async def test_a_missed_call_answers_with_the_callbacks(
    gateway: RunningGateway, http: httpx.AsyncClient
) -> None:
    gateway.services.queue.phones["+447700900123"] = [7]
    body = {"phone": "+447700900123", "missed_at": "2025-06-02T09:00:00Z"}
    headers = gateway.headers("service", "bridge")
    response = await http.post("/v1/missed-calls", json=body, headers=headers)
    assert [it["user_id"] for it in response.json()["callbacks"]] == ["7"]
