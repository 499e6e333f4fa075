"""Whatever is killed or unreachable, nothing is lost and nothing goes wrong."""

from __future__ import annotations

import random
from typing import Any

import grpc
import pytest
from dialler.user_context.v1 import user_context_pb2 as pb
from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceStub

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.stack import Stack, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(180)]


def _signed(stack: Stack) -> set[int]:
    """Every user with a signature, as MySQL has it now."""
    database = stack.main_app
    query = "SELECT id FROM users WHERE current_signature_file_id IS NOT NULL"
    return {int(row[0]) for row in database.rows(query)}


def _await_no_signed_person_in_unsigned(stack: Stack, supervisor: Desk) -> None:
    def is_so() -> bool:
        entries = [
            *supervisor.all_entries("unsigned_users", "ready"),
            *supervisor.all_entries("unsigned_users", "waiting"),
        ]
        return not {int(each["user_id"]) for each in entries} & _signed(stack)

    wait_until(is_so, 60, "every signature to arrive")


@pytest.mark.parametrize("name", ["cdc_ingest", "user_context", "queue", "binlog_relay"])
def test_service_killed_while_changes_flow(stack: Stack, supervisor: Desk, name: str) -> None:
    people = [int(each["user_id"]) for each in supervisor.entries("unsigned_users")]
    chosen = random.Random(name).sample(people, 12)
    with MainApp(stack.addresses.mysql_writer) as main_app:
        for number, user_id in enumerate(chosen):
            main_app.sign(user_id)
            if number == len(chosen) // 2:
                stack.services[name].kill()
    stack.restart(name)
    _await_no_signed_person_in_unsigned(stack, supervisor)


def test_redis_emptied_and_restarted_in_mid_work(
    stack: Stack, agent: Desk, supervisor: Desk
) -> None:
    assignment = agent.claim()["assignment"]
    path = f"/v1/people/{assignment['user_id']}/context"
    before = _lasting(agent.get(path))
    stack.redis.ask("FLUSHALL")
    assert _lasting(agent.get(path)) == before
    stack.redis.kill()
    try:
        assert _lasting(agent.get(path)) == before
        recorded = agent.record(assignment["assignment_id"], "no_answer")
        assert recorded.status_code == 200, recorded.text
        assert agent.claim()["assignment"] is not None
    finally:
        stack.redis.start()
    wait_until(
        lambda: supervisor.get(path)["call_state"]["last_outcome"] == "no_answer", 20, "the outcome"
    )


def _lasting(context: dict[str, Any]) -> dict[str, Any]:
    """The context without its score, which rises with time."""
    call_state = {name: each for name, each in context["call_state"].items() if name != "score"}
    return context | {"call_state": call_state}


def _await_cached(desk: Desk, path: str) -> bytes:
    """The context once it is answered from the cache."""
    wait_until(
        lambda: desk.client.get(path).headers.get("dialler-cached") == "true", 20, "the cache"
    )
    return desk.client.get(path).content


def test_mysql_unreachable(stack: Stack, agent: Desk, supervisor: Desk) -> None:
    user_id = supervisor.entries("unsigned_users")[-1]["user_id"]
    path = f"/v1/people/{user_id}/context"
    cached = _await_cached(supervisor, path)
    stack.mariadb.stop()
    try:
        claim = agent.post("/v1/assignments")
        assert claim.status_code == 503
        assert claim.json()["reason"] == "MAIN_APP_UNAVAILABLE"
        assert int(claim.headers["retry-after"]) >= 1
        read = supervisor.client.get(path)
        assert (read.status_code, read.content) == (200, cached)
    finally:
        stack.mariadb.start()
    wait_until(lambda: agent.post("/v1/assignments").is_success, 30, "claims to work again")


def test_invalidated_context_is_marked_stale_while_mysql_is_unreachable(
    stack: Stack, supervisor: Desk
) -> None:
    user_id = int(supervisor.entries("unsigned_users")[-1]["user_id"])
    path = f"/v1/people/{user_id}/context"
    _await_cached(supervisor, path)
    stack.mariadb.stop()
    try:
        with grpc.insecure_channel(stack.addresses.grpc["user_context"]) as channel:
            stub = UserContextServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                stub.RefreshUsers(pb.RefreshUsersRequest(user_ids=[user_id]), timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        stale = supervisor.client.get(path)
        assert stale.status_code == 200
        assert stale.headers["dialler-stale"] == "true"
    finally:
        stack.mariadb.start()
    wait_until(
        lambda: supervisor.client.get(path).headers.get("dialler-stale") != "true", 30, "freshness"
    )


def test_outcome_survives_postgres_crash(stack: Stack, agent: Desk, supervisor: Desk) -> None:
    assignment = agent.claim()["assignment"]
    agent.record(assignment["assignment_id"], "bad_number").raise_for_status()
    stack.postgres.kill()
    stack.postgres.start()
    path = f"/v1/people/{assignment['user_id']}/context"

    def is_back() -> bool:
        response = supervisor.client.get(path)
        state = response.json().get("call_state") if response.is_success else None
        return bool(state and state["last_outcome"] == "bad_number")

    wait_until(is_back, 30, "the outcome after the crash")
    wait_until(lambda: agent.post("/v1/assignments").is_success, 30, "claims to work again")
