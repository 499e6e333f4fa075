"""A desk's morning on the whole suite: search, callbacks, suppression, agents, audit."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.stack import Stack, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PHONE = "07700 900456"


@pytest.fixture
def main_app(stack: Stack) -> Iterator[MainApp]:
    with MainApp(stack.addresses.mysql_writer) as app:
        yield app


def search(desk: Desk, **by: object) -> list[dict[str, Any]]:
    response = desk.post("/v1/people/search", by).raise_for_status()
    return list(response.json()["people"])


def test_search_explain_callback_suppress_and_audit(
    stack: Stack, agent: Desk, supervisor: Desk, main_app: MainApp
) -> None:
    user_id = str(main_app.add_person(phone_number=PHONE))
    person = f"/v1/people/{user_id}"
    wait_until(
        lambda: (
            bool(supervisor.client.get(f"{person}/context").is_success)
            and any(it["user_id"] == user_id for it in search(supervisor, phone="+44 7700 900-456"))
        ),
        30,
        "the person to be found by number",
    )
    assert agent.client.get(f"{person}/context").status_code == 403
    wait_until(
        lambda: any(it["user_id"] == user_id for it in search(agent, name="OCONN sian")),
        30,
        "the person to be found by name",
    )
    address = agent.get(f"{person}/context")["user"]["email_address"]
    (found,) = search(agent, email_address=address.upper())
    assert (found["user_id"], found["phone_number"]) == (user_id, "+447700900456")

    explained = agent.get(f"{person}/explanation")
    assert (explained["queue"], explained["is_live"]) == ("unsigned_users", True)
    assert agent.get(f"{person}/calls")["calls"] == []

    agreed = _callback(agent, user_id)
    (listed,) = supervisor.get("/v1/callbacks", user_id=user_id)["callbacks"]
    assert listed.pop("person")["phone_number"] == "+447700900456"
    assert listed == agreed
    one = f"/v1/callbacks/{agreed['callback_id']}"
    moved = agent.post(f"{one}/reschedule", {"scheduled_for": _far_ahead(1)})
    assert moved.raise_for_status().json()["scheduled_for"] != agreed["scheduled_for"]
    assert agent.post(f"{one}/cancel").raise_for_status().json()["state"] == "cancelled"

    body = {"user_id": user_id, "notes": "asked by letter"}
    recorded = agent.post("/v1/suppressions", body).raise_for_status().json()
    assert recorded["call_state"]["state"] == "suppressed"
    again = supervisor.post("/v1/suppressions", body).raise_for_status().json()
    assert again["suppression_id"] == recorded["suppression_id"]
    assert not supervisor.get(f"{person}/explanation")["is_callable_now"]
    assert supervisor.get("/v1/suppressions", user_id=user_id)["suppressions"][0]["notes"]
    supervisor.post("/v1/suppressions/lift", body).raise_for_status()

    expected = {
        (agent.subject, "FOUND_BY_SEARCH"),
        (agent.subject, "VIEWED_CONTEXT"),
        (agent.subject, "VIEWED_EXPLANATION"),
        (agent.subject, "VIEWED_CALLS"),
        (agent.subject, "CALLBACK_SCHEDULED"),
        (agent.subject, "CALLBACK_CANCELLED"),
        (supervisor.subject, "VIEWED_CALLBACK"),
        (agent.subject, "SUPPRESSED"),
        (supervisor.subject, "SUPPRESSION_LIFTED"),
    }
    wait_until(lambda: expected <= _audit(supervisor, user_id), 10, "the audit trail")


def test_lists_of_numbers_stop_calls(stack: Stack, supervisor: Desk, main_app: MainApp) -> None:
    user_id = main_app.add_person(phone_number="07700 900789")
    wait_until(lambda: bool(search(supervisor, phone="07700900789")), 30, "the person")
    headers = {"Content-Type": "text/csv"}
    path = f"/v1/phone-lists/{uuid.uuid4().hex[:8]}"
    taken = supervisor.client.put(path, content=b"phone\n+44 7700 900789\nnone\n", headers=headers)
    told = taken.raise_for_status().json()
    assert (told["added"], told["invalid"], told["people_suppressed"]) == (1, 1, 1)
    assert not supervisor.get(f"/v1/people/{user_id}/explanation")["is_callable_now"]


def test_agents_at_work_and_one_taken_away(agent: Desk, supervisor: Desk) -> None:
    available = agent.put("/v1/agents/me/presence", {"presence": "available"})
    assert available.raise_for_status().json()["agent_id"] == agent.subject
    held = agent.claim()["assignment"]
    known = {it["agent_id"]: it for it in supervisor.get("/v1/agents")["agents"]}
    assert known[agent.subject]["assignment"]["user_id"] == held["user_id"]
    listed = supervisor.get("/v1/assignments")["assignments"]
    assert held["assignment_id"] in {it["assignment_id"] for it in listed}
    path = f"/v1/assignments/{held['assignment_id']}/force-release"
    supervisor.post(path, {"notes": "went home"}).raise_for_status()
    assert agent.client.get("/v1/assignments/current").status_code == 404


def test_a_rebuild_is_followed_to_its_end(supervisor: Desk) -> None:
    begun = supervisor.post("/v1/rebuilds").raise_for_status().json()
    path = f"/v1/rebuilds/{begun['rebuild_id']}"
    wait_until(lambda: supervisor.get(path)["state"] != "running", 60, "the rebuild")
    ended = supervisor.get(path)
    assert (ended["state"], ended["phase"]) == ("succeeded", "done")
    assert ended["people_read"] > 0


def test_reference_data(agent: Desk) -> None:
    reference = agent.get("/v1/reference")
    assert len(reference["outcomes"]) == 16
    assert "VIEWED_CONTEXT" in reference["audit_actions"]


def _callback(agent: Desk, user_id: str) -> dict[str, Any]:
    body = {
        "user_id": user_id,
        "scheduled_for": _far_ahead(),
        "preferred_agent_id": agent.subject,
        "notes": "after work",
    }
    agreed = agent.post("/v1/callbacks", body)
    assert agreed.status_code == 201, agreed.text
    return dict(agreed.json())


def _far_ahead(days_later: int = 0) -> str:
    """A time in the future, as long as callbacks may lie that far ahead."""
    when = datetime.now(UTC) + timedelta(days=300 + days_later)
    return when.isoformat(timespec="seconds")


def _audit(supervisor: Desk, user_id: str) -> set[tuple[str, str]]:
    entries = supervisor.get("/v1/audit-entries", user_id=user_id, page_size=200)["entries"]
    return {(it["actor_id"], it["action"]) for it in entries}
