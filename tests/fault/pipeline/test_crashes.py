"""No change is lost when any process is killed or unavailable while changes flow."""

from __future__ import annotations

import httpx
import pytest

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.stack import Stack, wait_until
from tests.fakes import waiting
from tests.fault.pipeline.comparison import await_agreement
from tests.fault.pipeline.storm import Ingest, Storm, fail_requests, halted, status

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]


# The service to suspend, so that the process to be killed is certainly in the middle of its work.
@pytest.mark.parametrize(
    ("name", "waits_for"),
    [("cdc_ingest", "queue"), ("user_context", "user_context"), ("queue", "queue")],
)
@pytest.mark.parametrize("killed", ["one copy", "every copy"])
def test_killed_in_the_middle_of_a_batch(
    stack: Stack, ingest: Ingest, name: str, waits_for: str, killed: str
) -> None:
    processes = stack.copies_of(name)[: 1 if killed == "one copy" else None]
    with Storm(stack, f"{name}, {killed}") as storm:
        with halted(stack.copies_of(waits_for)):
            _change_every_claim(stack, f"{name}, {killed}")
            wait_until(
                lambda: status(ingest).messages_held >= 10, 20 * waiting.SCALE, "messages under way"
            )
            for process in processes:
                process.kill()
        storm.rages()
        stack.restart(name)
    await_agreement(stack)


def test_relay_killed_while_it_sends(stack: Stack) -> None:
    people = [int(row[0]) for row in stack.main_app.rows("SELECT id FROM users LIMIT 40")]
    fail_requests(stack, "SendMessageBatch", 100_000)
    # Each once: nothing that comes later may make good what was lost.
    with MainApp(stack.addresses.mysql_writer) as main_app:
        for user_id in people:
            main_app.set_status(user_id, "sent only once")
    # By then a position would have been saved, had there been one to save.
    wait_until(lambda: not stack.is_ready("binlog_relay"), 20, "it to show")
    stack.kill("binlog_relay")
    fail_requests(stack, "SendMessageBatch", 0)
    stack.restart("binlog_relay")
    await_agreement(stack)


def test_reconciler_killed_in_the_middle_of_a_run(running_stack: Stack) -> None:
    stack = running_stack
    with Desk(stack.addresses, "supervisor") as desk:
        with halted(stack.copies_of("user_context")):
            run = desk.post("/v1/reconciliations").raise_for_status().json()["run_id"]
            wait_until(lambda: desk.reconciliations()[0]["state"] == "running", 20, "the run")
            stack.kill("reconciler")
        stack.restart("reconciler")
        wait_until(lambda: _latest_run(desk) == (run, "succeeded"), 40, "the run to end well")
    await_agreement(stack)


def _latest_run(desk: Desk) -> tuple[str, str] | None:
    """The latest run; None while the gateway has not found the reconciler again."""
    try:
        latest = desk.reconciliations()[0]
    except httpx.HTTPStatusError:
        return None
    return latest["run_id"], latest["state"]


def _change_every_claim(stack: Stack, status: str) -> None:
    claims = [int(row[0]) for row in stack.main_app.rows("SELECT id FROM claims")]
    with MainApp(stack.addresses.mysql_writer) as main_app:
        main_app.update_claims(claims, f"as {status} has it")


def test_redis_is_restarted_empty(stack: Stack) -> None:
    with Storm(stack, "redis") as storm:
        stack.redis.kill()
        storm.rages()
        stack.redis.start()
        storm.rages()
    await_agreement(stack)


def test_postgresql_is_restarted(stack: Stack) -> None:
    with Storm(stack, "postgres") as storm:
        stack.postgres.kill()
        storm.rages()
        stack.postgres.start()
        storm.rages()
    await_agreement(stack)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_mysql_is_restarted(stack: Stack, how: str) -> None:
    with Storm(stack, f"mysql {how}") as storm:
        getattr(stack.mariadb, how)()
        stack.mariadb.start()
        storm.rages()
    await_agreement(stack)


def test_sqs_is_unavailable(stack: Stack) -> None:
    with Storm(stack, "sqs") as storm:
        for action in ("ReceiveMessage", "DeleteMessageBatch", "SendMessageBatch"):
            fail_requests(stack, action, 14 * stack.copies)
        wait_until(lambda: not stack.is_ready("cdc_ingest"), 20, "it to show")
        storm.rages()
        wait_until(lambda: stack.is_ready("cdc_ingest"), 40, "it to be back")
    await_agreement(stack)
