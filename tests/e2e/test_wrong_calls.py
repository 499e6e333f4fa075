"""Invariants 1 and 2 with everything real: no user is phoned wrongly or twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.stack import Stack, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(180)]

AGENTS = 50
CHANGED = 12


def _claim_all(stack: Stack, count: int) -> tuple[list[Desk], list[dict[str, Any]]]:
    desks = [Desk(stack.addresses, "agent") for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return desks, list(pool.map(Desk.claim, desks))


def _release(desks: list[Desk]) -> None:
    for desk in desks:
        desk.release()
        desk.client.close()


def test_change_capture_stopped_and_mysql_changed_under_it(stack: Stack, supervisor: Desk) -> None:
    before = supervisor.get("/v1/queues")
    # The tests before this one have left few or many.
    head = [int(each["user_id"]) for each in supervisor.entries("unsigned_users")[:CHANGED]]
    assert head
    stack.services["binlog_relay"].kill()
    try:
        with MainApp(stack.addresses.mysql_writer) as main_app:
            for user_id in head:
                main_app.sign(user_id)
        desks, answers = _claim_all(stack, 5)
        _release(desks)
    finally:
        stack.restart("binlog_relay")
    handed_out = [answer["assignment"] for answer in answers]
    assert all(handed_out)
    unsigned = {int(each["user_id"]) for each in handed_out if each["queue"] == "unsigned_users"}
    assert not unsigned & set(head)
    # An answer counts those an agent would have got; of people reserved beyond that, only the
    # day's figure tells.
    assert 0 < sum(answer["rejected_by_live_check"] for answer in answers) <= len(head)
    after = supervisor.get("/v1/queues")
    # On a busy machine a claim may run out of time and leave people of the head to the relay.
    prevented = after["wrong_calls_prevented_today"] - before["wrong_calls_prevented_today"]
    assert 0 < prevented <= len(head)
    wait_until(
        lambda: (
            supervisor.get("/v1/queues")["conversions_today"]
            == before["conversions_today"] + len(head)
        ),
        60,
        "every signature to be recorded",
    )


def test_fifty_agents_at_once_get_fifty_people(stack: Stack) -> None:
    desks, answers = _claim_all(stack, AGENTS)
    people = [answer["assignment"]["user_id"] for answer in answers if answer["assignment"]]
    _release(desks)
    assert len(people) == AGENTS
    assert len(set(people)) == AGENTS


def test_one_agent_clicking_many_times_holds_one_person(stack: Stack, agent: Desk) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: agent.claim(), range(16)))
    assert len({answer["assignment"]["assignment_id"] for answer in answers}) == 1
