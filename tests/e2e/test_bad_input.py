"""What is wrong is answered precisely: RFC 9457 problems with a reason code."""

from __future__ import annotations

import uuid

import httpx
import pytest

from devstack.desk import Desk
from devstack.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def _problem(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    body = response.json()
    assert body["status"] == status
    return str(body["reason"])


def test_unknown_person(supervisor: Desk) -> None:
    response = supervisor.client.get("/v1/people/999999999/context")
    assert _problem(response, 404) == "USER_NOT_FOUND"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer not.a.token", "Basic YTpi"])
def test_malformed_token(stack: Stack, header: str) -> None:
    headers = {"Authorization": header} if header else {}
    response = httpx.get(f"{stack.addresses.gateway}/v1/queues", headers=headers)
    assert _problem(response, 401)
    assert "www-authenticate" in response.headers


def test_supervisor_does_not_claim(supervisor: Desk) -> None:
    assert _problem(supervisor.post("/v1/assignments"), 403)


def test_agent_does_not_start_reconciliations(agent: Desk) -> None:
    assert _problem(agent.post("/v1/reconciliations", {"reason": "curious"}), 403)


def test_claiming_with_a_live_assignment_returns_it(agent: Desk) -> None:
    first = agent.claim()
    second = agent.claim()
    assert second["already_held"] is True
    assert second["assignment"]["assignment_id"] == first["assignment"]["assignment_id"]


def test_outcome_on_someone_elses_assignment(stack: Stack, agent: Desk) -> None:
    assignment = agent.claim()["assignment"]
    with Desk(stack.addresses, "agent") as other:
        response = other.record(assignment["assignment_id"], "no_answer")
    assert _problem(response, 409) == "ASSIGNMENT_NOT_YOURS"


def test_second_outcome_on_an_ended_assignment(agent: Desk) -> None:
    assignment = agent.claim()["assignment"]
    agent.record(assignment["assignment_id"], "no_answer").raise_for_status()
    again = agent.record(assignment["assignment_id"], "no_answer")
    again.raise_for_status()
    assert again.json()["call_state"]["attempts"] == 1
    response = agent.record(assignment["assignment_id"], "hung_up")
    assert _problem(response, 409) == "ASSIGNMENT_NOT_LIVE"


def test_unknown_assignment(agent: Desk) -> None:
    assert _problem(agent.record(str(uuid.uuid4()), "no_answer"), 404)


def test_callback_in_the_past(agent: Desk) -> None:
    assignment = agent.claim()["assignment"]
    response = agent.record(
        assignment["assignment_id"], "call_back", callback_at="2020-01-01T09:00:00Z"
    )
    assert _problem(response, 400)


def test_do_not_contact_needs_notes(agent: Desk) -> None:
    assignment = agent.claim()["assignment"]
    assert _problem(agent.record(assignment["assignment_id"], "do_not_contact"), 400)


def test_unknown_outcome_is_not_echoed(agent: Desk) -> None:
    assignment = agent.claim()["assignment"]
    response = agent.record(assignment["assignment_id"], "shouted-at-07700900123")
    assert _problem(response, 422)
    assert "07700900123" not in response.text


def test_write_without_idempotency_key(agent: Desk) -> None:
    assert _problem(agent.client.post("/v1/assignments", json={}), 400)
