"""The batch half over REST, on the whole suite."""

from __future__ import annotations

from typing import Any

import pytest

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.mysql_connection import connect
from devstack.stack import MAIN_APP, Stack, wait_until

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("kind", ["full", "changed", "warming", "housekeeping"])
def test_every_kind_runs_and_finds_nothing_wrong(supervisor: Desk, kind: str) -> None:
    run = _run(supervisor, kind)
    assert (run["state"], run["users_drifted"], run["users_failed"]) == ("succeeded", 0, 0)
    if kind in ("full", "changed"):
        assert run["rows_read"] > 0
        assert run["mysql_statements"] > 0
    if kind == "full":
        assert run["users_checked"] >= 400
    if kind == "warming":
        assert run["done"]["contexts_cached"] > 0


def test_a_change_without_a_notification_is_found(stack: Stack, supervisor: Desk) -> None:
    entry = supervisor.entries("unsigned_users")[-1]
    user_id = int(entry["user_id"])
    url = stack.mariadb.url(MAIN_APP, user="admin", driver="mysql+pymysql")
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute(
            "UPDATE users SET current_signature_file_id = UUID() WHERE id = %s", (user_id,)
        )
        connection.commit()
    run = _run(supervisor, "full")
    expected = {"user_id": str(user_id), "kind": "outdated", "table": "users"}
    drift = supervisor.get(f"/v1/reconciliations/{run['run_id']}/drift")
    assert drift["drift"] == [expected]
    context = supervisor.get(f"/v1/people/{user_id}/context")
    assert context["user"]["has_signature"]
    assert context["call_state"]["queue"] != "unsigned_users"


def test_while_ingest_is_paused_runs_stand_in(stack: Stack, supervisor: Desk) -> None:
    assert _freshness(supervisor)["mode"] == "change_capture"
    entry = supervisor.entries("unsigned_users")[-1]
    user_id = int(entry["user_id"])
    try:
        supervisor.post("/v1/pipeline/ingest/pause").raise_for_status()
        wait_until(lambda: _freshness(supervisor)["mode"] == "batch", 20, "batch freshness")
        assert _freshness(supervisor)["reason"] == "INGEST_PAUSED"
        with MainApp(stack.addresses.mysql_writer) as main_app:
            main_app.sign(user_id)
        _run(supervisor, "full")
        assert supervisor.get(f"/v1/people/{user_id}/context")["user"]["has_signature"]
    finally:
        supervisor.post("/v1/pipeline/ingest/resume").raise_for_status()
    back = lambda: _freshness(supervisor)["mode"] == "change_capture"  # noqa: E731
    wait_until(back, 30, "change capture again")


def _freshness(supervisor: Desk) -> dict[str, Any]:
    return dict(supervisor.get("/v1/pipeline")["freshness"])


def _run(supervisor: Desk, kind: str) -> dict[str, Any]:
    run = supervisor.post("/v1/reconciliations", {"kind": kind}).raise_for_status().json()
    path = f"/v1/reconciliations/{run['run_id']}"
    ended = lambda: supervisor.get(path)["state"] in ("succeeded", "failed")  # noqa: E731
    wait_until(ended, 60, f"the run {kind}")
    found = dict(supervisor.get(path))
    assert found["state"] == "succeeded", found["error"]
    return found
