"""A change in the main app's MySQL moves a person and reaches an agent."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from datetime import datetime

import pytest

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.stack import Stack, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

STAGES = ("captured_at", "received_at", "refreshed_at", "applied_at")


@pytest.fixture
def main_app(stack: Stack) -> Iterator[MainApp]:
    with MainApp(stack.addresses.mysql_writer) as app:
        yield app


def _last_unsigned(supervisor: Desk) -> int:
    """A person at the end of the queue, whom no other test's agent is about to get."""
    return int(list(supervisor.all_entries("unsigned_users"))[-1]["user_id"])


def test_signature_moves_the_person_and_reaches_the_stream(
    supervisor: Desk, main_app: MainApp
) -> None:
    user_id = _last_unsigned(supervisor)
    with supervisor.events() as events:
        main_app.sign(user_id)
        moved = events.wait_for_user(user_id, "entry_moved")
    assert moved.event["queue_before"] == "unsigned_users"
    assert moved.event["queue_after"] != "unsigned_users"
    times = [datetime.fromisoformat(moved.event["timeline"][stage]) for stage in STAGES]
    assert all(earlier <= later for earlier, later in itertools.pairwise([*times, moved.at]))
    context = supervisor.get(f"/v1/people/{user_id}/context")
    assert context["user"]["has_signature"] is True
    # The copy of the call state is told after the commit, as the stream is (docs/decisions/0003).
    _await_queue(supervisor, user_id, moved.event["queue_after"])


def test_conversion_is_recorded_once(supervisor: Desk, main_app: MainApp) -> None:
    user_id = _last_unsigned(supervisor)
    before = supervisor.get("/v1/queues")["conversions_today"]
    with supervisor.events() as events:
        main_app.sign(user_id)
        events.wait_for_user(user_id, "conversion_recorded")
        main_app.log_in(user_id)
        events.wait_for_user(user_id, "context_changed")
    assert supervisor.get("/v1/queues")["conversions_today"] == before + 1


def test_person_who_registers_reaches_the_queue(supervisor: Desk, main_app: MainApp) -> None:
    with supervisor.events() as events:
        user_id = main_app.add_person()
        events.wait_for(
            lambda event: (
                event.get("user_id") == str(user_id)
                and event.get("queue_after") == "unsigned_users"
            )
        )
    state = supervisor.get(f"/v1/people/{user_id}/context")["call_state"]
    assert (state["queue"], state["state"]) == ("unsigned_users", "waiting")
    assert state["next_call_at"] is not None


def test_raw_update_that_leaves_updated_at_alone_is_followed(
    stack: Stack, supervisor: Desk, main_app: MainApp
) -> None:
    user_id = main_app.add_person()
    _await_queue(supervisor, user_id, "unsigned_users")
    main_app.set_claim_status_quietly(_only_claim(stack, user_id), "cancelled")
    _await_queue(supervisor, user_id, None)


def test_moved_claim_changes_both_people(stack: Stack, supervisor: Desk, main_app: MainApp) -> None:
    giver, taker = main_app.add_person(), main_app.add_person()
    _await_queue(supervisor, giver, "unsigned_users")
    main_app.end_claim(_only_claim(stack, taker))
    _await_queue(supervisor, taker, None)
    main_app.move_claim(_only_claim(stack, giver), taker)
    _await_queue(supervisor, taker, "unsigned_users")
    _await_queue(supervisor, giver, None)


def test_deleted_claim_takes_its_requirements_along(
    stack: Stack, supervisor: Desk, main_app: MainApp
) -> None:
    user_id = main_app.add_person()
    claim_id = _only_claim(stack, user_id)
    main_app.add_requirement(claim_id, "proof_of_address")
    main_app.sign(user_id)
    _await_queue(supervisor, user_id, "outstanding_requests")
    main_app.delete_claim(claim_id)
    _await_queue(supervisor, user_id, None)
    assert supervisor.get(f"/v1/people/{user_id}/context")["claims"] == []


def _only_claim(stack: Stack, user_id: int) -> int:
    ((claim_id,),) = stack.main_app.rows("SELECT id FROM claims WHERE user_id = %s", (user_id,))
    return int(claim_id)


def _await_queue(supervisor: Desk, user_id: int, queue: str | None) -> None:
    def is_there() -> bool:
        response = supervisor.client.get(f"/v1/people/{user_id}/context")
        if response.is_error:
            return False
        state = response.json()["call_state"]
        return bool(state and state["state"] and state["queue"] == queue)

    wait_until(is_there, 20, f"person {user_id} in {queue}")


def test_agent_claims_sees_the_context_and_records_an_outcome(agent: Desk) -> None:
    assignment = agent.claim()["assignment"]
    context = agent.get(f"/v1/people/{assignment['user_id']}/context")
    assert context["user"]["user_id"] == assignment["user_id"]
    recorded = agent.record(assignment["assignment_id"], "no_answer", notes="rang out")
    assert recorded.status_code == 200
    state = recorded.json()["call_state"]
    assert (state["attempts"], state["last_outcome"], state["state"]) == (1, "no_answer", "waiting")
    assert agent.client.get("/v1/assignments/current").status_code == 404


def test_context_shows_the_outcome_soon_after(agent: Desk, supervisor: Desk) -> None:
    assignment = agent.claim()["assignment"]
    path = f"/v1/people/{assignment['user_id']}/context"
    agent.get(path)
    agent.record(assignment["assignment_id"], "hung_up").raise_for_status()
    # The person is the agent's to see no more.
    assert agent.client.get(path).status_code == 403
    wait_until(
        lambda: supervisor.get(path)["call_state"]["last_outcome"] == "hung_up", 10, "the outcome"
    )


def test_agent_on_a_call_sees_the_signature_arrive(agent: Desk, main_app: MainApp) -> None:
    assignment = agent.claim()["assignment"]
    user_id = int(assignment["user_id"])
    with agent.events() as events:
        main_app.log_in(user_id)
        events.wait_for_user(user_id, "context_changed")


def test_double_click_records_one_outcome(agent: Desk, supervisor: Desk) -> None:
    assignment = agent.claim()["assignment"]
    path = f"/v1/assignments/{assignment['assignment_id']}/outcome"
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first = agent.client.post(path, json={"outcome": "no_answer"}, headers=headers)
    second = agent.client.post(path, json={"outcome": "no_answer"}, headers=headers)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    context = supervisor.get(f"/v1/people/{assignment['user_id']}/context")
    assert context["call_state"]["attempts"] == first.json()["call_state"]["attempts"]
