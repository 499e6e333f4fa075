"""Stores that are demoted while their sessions stay open: nothing is lost, blamed or stuck."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from devstack.desk import Desk
from devstack.stack import DIALLER, Stack, is_serving, wait_until
from tests.fault.pipeline.comparison import await_agreement
from tests.fault.pipeline.storm import Ingest, Storm, status

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]


@contextmanager
def _demoted(stack: Stack, *, serves_new_sessions: bool) -> Iterator[None]:
    """Make all open sessions read-only without ending any."""
    stack.postgres.demote(serves_new_sessions=serves_new_sessions)
    try:
        yield
    finally:
        stack.postgres.reinstate()


def _check_refused(answer: httpx.Response) -> None:
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["reason"].endswith(("_READ_ONLY", "_UNAVAILABLE"))


def _call(desk: Desk) -> list[httpx.Response]:
    """Call one person; returns the errors before it succeeded."""
    refused = []
    held = desk.post("/v1/assignments")
    while not held.is_success:
        refused.append(held)
        held = desk.post("/v1/assignments")
    path = f"/v1/assignments/{held.json()['assignment']['assignment_id']}/outcome"
    done = desk.post(path, {"outcome": "no_answer"})
    while not done.is_success:
        refused.append(done)
        done = desk.post(path, {"outcome": "no_answer"})
    return refused


def _calls_in_postgres(stack: Stack, agent_id: str) -> int:
    counted = f"SELECT count(*) FROM queue.attempts WHERE agent_id = '{agent_id}'"
    return int(stack.postgres.execute(counted, database=DIALLER))


def test_postgres_is_demoted_and_its_sessions_stay_open(stack: Stack, ingest: Ingest) -> None:
    """Like a DNS name that leads new sessions to the new primary."""
    dead = status(ingest).messages_dead
    with Storm(stack, "postgres demoted") as storm, Desk(stack.addresses, "agent") as desk:
        assert _call(desk) == []
        with _demoted(stack, serves_new_sessions=True):
            refused = _call(desk)
            assert len(refused) <= 2, [it.text for it in refused]
            for answer in refused:
                _check_refused(answer)
            storm.rages()
            for _ in range(5):
                assert _call(desk) == []
            # The new primary by itself, so to speak: before the old one's sessions can write again.
            with storm.calm():
                await_agreement(stack)
        assert _calls_in_postgres(stack, desk.subject) == 7
    await_agreement(stack)
    assert status(ingest).messages_dead == dead


def test_no_postgres_takes_writes_for_a_while(stack: Stack, ingest: Ingest) -> None:
    dead = status(ingest).messages_dead
    queues = stack.addresses.copies_of("queue")
    with Storm(stack, "no primary") as storm, Desk(stack.addresses, "agent") as desk:
        with _demoted(stack, serves_new_sessions=False):
            storm.rages()
            _check_refused(desk.post("/v1/assignments"))
            wait_until(lambda: not any(map(is_serving, queues)), 20, "the queue to show it")
            ready = httpx.get(f"{stack.addresses.gateway}/readyz", timeout=5).json()
            assert ready["dependencies"]["queue"]["state"] == "not_serving"
            wait_until(lambda: status(ingest).downstream_unavailable, 20, "the ingest to notice")
            with Desk(stack.addresses, "supervisor") as supervisor:
                health = supervisor.get("/v1/pipeline")["health"]
            assert health["fresh"] is False
        wait_until(lambda: stack.is_ready("queue"), 20, "the queue to be back")
        wait_until(lambda: desk.post("/v1/assignments").is_success, 20, "claims to work again")
        storm.rages()
    await_agreement(stack)
    assert status(ingest).messages_dead == dead
