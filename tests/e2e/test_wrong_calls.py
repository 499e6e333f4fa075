"""Invariants 1 and 2 with everything real: nobody is phoned wrongly or twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(180)]

AGENTS = 50
CHANGED = 12


def _claim_all(stack: Stack, count: int) -> tuple[list[Desk], list[dict[str, Any]]]:
    desks = [Desk(stack.addresses, "agent") for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return desks, list(pool.map(Desk.claim, desks))


def _give_back(desks: list[Desk]) -> None:
    for desk in desks:
        desk.give_back()
        desk.client.close()


def test_change_capture_stopped_and_mysql_changed_under_it(stack: Stack, supervisor: Desk) -> None:
    before = supervisor.get("/v1/queues")
    head = [int(each["user_id"]) for each in supervisor.entries("unsigned_users")[:CHANGED]]
    stack.services["binlog_relay"].kill()
    try:
        with MainApp(stack.addresses.mysql_writer) as main_app:
            for user_id in head:
                main_app.sign(user_id)
        desks, answers = _claim_all(stack, 5)
        _give_back(desks)
    finally:
        stack.restart("binlog_relay")
    handed_out = [answer["assignment"] for answer in answers]
    assert all(handed_out)
    unsigned = {int(each["user_id"]) for each in handed_out if each["queue"] == "unsigned_users"}
    assert not unsigned & set(head)
    assert sum(answer["rejected_by_live_check"] for answer in answers) == CHANGED
    after = supervisor.get("/v1/queues")
    for figure in ("wrong_calls_prevented_today", "conversions_today"):
        assert after[figure] == before[figure] + CHANGED


def test_fifty_agents_at_once_get_fifty_people(stack: Stack) -> None:
    desks, answers = _claim_all(stack, AGENTS)
    people = [answer["assignment"]["user_id"] for answer in answers if answer["assignment"]]
    _give_back(desks)
    assert len(people) == AGENTS
    assert len(set(people)) == AGENTS


def test_one_agent_clicking_many_times_holds_one_person(stack: Stack, agent: Desk) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: agent.claim(), range(16)))
    assert len({answer["assignment"]["assignment_id"] for answer in answers}) == 1
