"""Every kind of silent damage among 50,000 users, during 100 changes a second."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import grpc
import pytest
from dialler.reconciler.v1 import reconciler_pb2
from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceStub

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.stack import DIALLER, Stack
from tests.drift.damage import EACH, Damage
from tests.fault.pipeline.comparison import await_agreement

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

USERS = int(os.environ.get("DIALLER_DRIFT_USERS", "50000"))
SEED = int(os.environ.get("DIALLER_DRIFT_SEED", "1"))
CHANGES_PER_SECOND = 100
# Only what the test asks for may repair anything.
ENVIRONMENT = {
    "RECONCILER_FULL_EVERY_SECONDS": "0",
    "RECONCILER_CHANGED_EVERY_SECONDS": "0",
    "RECONCILER_WARMING_EVERY_SECONDS": "0",
    "RECONCILER_HOUSEKEEPING_EVERY_SECONDS": "0",
    "RECONCILER_SILENCE_SECONDS": "3600",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="dialler-drift-"))
    folder.chmod(0o711)
    with Stack(
        folder, users=USERS, durable=False, extra_environment=ENVIRONMENT, report=lambda _: None
    ) as running:
        with Desk(running.addresses, "supervisor", "supervisor-setup") as desk:
            desk.await_reconciled()
        yield running
    shutil.rmtree(folder, ignore_errors=True)


def test_all_of_it_is_found_and_repaired_and_no_other_drift_reported(stack: Stack) -> None:
    assert _drifted(stack, _full_run(stack)) == set(), "all is well at first"
    damage = Damage(stack, SEED)
    damaged = damage.do_all()
    damage.close()
    with _changes(stack, damage.people[:5_000]) as made:
        run = _full_run(stack)
    expected = set().union(*damaged.values())
    found = _drifted(stack, run)
    missed = {name: len(people - found) for name, people in damaged.items() if people - found}
    assert not missed, f"not found: {missed}"
    assert found == expected, f"falsely accused: {sorted(found - expected)[:10]}"
    assert run.users_drifted == len(expected) >= 19 * EACH
    assert len(made) > CHANGES_PER_SECOND, "changes went on meanwhile"
    await_agreement(stack, seconds=120)
    again = _full_run(stack)
    assert _drifted(stack, again) == set()
    assert again.users_refreshed == 0


def test_an_emptied_users_table_costs_no_user_a_place(stack: Stack) -> None:
    before = _places(stack)
    damage = Damage(stack, SEED)
    try:
        with _emptied_users(damage):
            blind = _ended_full_run(stack)
        assert _places(stack) == before
        again = _full_run(stack)
    finally:
        damage.close()
    assert blind.state == reconciler_pb2.RUN_STATE_FAILED
    assert blind.users_withheld > USERS // 2
    assert "TOO_MANY_GONE" in blind.error
    assert again.users_refreshed == 0
    assert _places(stack) == before


@contextmanager
def _emptied_users(damage: Damage) -> Iterator[None]:
    """Have MySQL show an empty table of people while the block runs; no binlog tells of it."""
    with damage.unlogged() as cursor:
        cursor.execute("SET foreign_key_checks = 0")
        cursor.execute("CREATE TABLE users_empty LIKE users")
        cursor.execute("RENAME TABLE users TO users_whole, users_empty TO users")
        try:
            yield
        finally:
            cursor.execute("RENAME TABLE users TO users_empty, users_whole TO users")
            cursor.execute("DROP TABLE users_empty")


def _places(stack: Stack) -> str:
    """Return a digest of the people's places: a fresh start, or being gone, changes it."""
    return stack.postgres.execute(
        "SELECT md5(string_agg(concat_ws(' ', user_id, facts_version, eligible_queue,"
        " eligible_reason, case_number, entered_at, aged_from, outcome_points), ','"
        " ORDER BY user_id))"
        " FROM queue.entries",
        database=DIALLER,
    ).strip()


def _full_run(stack: Stack) -> reconciler_pb2.Run:
    run = _ended_full_run(stack)
    assert run.state == reconciler_pb2.RUN_STATE_SUCCEEDED, run.error
    return run


def _ended_full_run(stack: Stack) -> reconciler_pb2.Run:
    with grpc.insecure_channel(stack.addresses.grpc["reconciler"]) as channel:
        stub = ReconcilerServiceStub(channel)
        started = stub.StartRun(
            reconciler_pb2.StartRunRequest(kind=reconciler_pb2.RUN_KIND_FULL, reason="test"),
            timeout=10,
        )
        watched = reconciler_pb2.WatchRunRequest(run_id=started.run.run_id)
        run = started.run
        for answer in stub.WatchRun(watched, timeout=300):
            run = answer.run
    return run


def _drifted(stack: Stack, run: reconciler_pb2.Run) -> set[int]:
    found: set[int] = set()
    token = ""
    with grpc.insecure_channel(stack.addresses.grpc["reconciler"]) as channel:
        stub = ReconcilerServiceStub(channel)
        while True:
            page = stub.ListDrift(
                reconciler_pb2.ListDriftRequest(
                    run_id=run.run_id, page_size=1_000, page_token=token
                ),
                timeout=10,
            )
            found |= {it.user_id for it in page.drift}
            token = page.next_page_token
            if not token:
                return found


@contextmanager
def _changes(stack: Stack, people: list[int]) -> Iterator[list[int]]:
    """Change other people while the block runs; yields whom, as it goes."""
    made: list[int] = []
    stop = threading.Event()

    def change() -> None:
        rng = Random(SEED)
        due = time.monotonic()
        with MainApp(stack.addresses.mysql_writer) as main_app:
            actions = (
                main_app.sign,
                main_app.unsign,
                main_app.log_in,
                lambda user_id: main_app.set_status(user_id, f"status-{rng.random()}"),
                main_app.add_claim,
            )
            while not stop.wait(max(0.0, due - time.monotonic())):
                due += 1 / CHANGES_PER_SECOND
                user_id = rng.choice(people)
                rng.choice(actions)(user_id)
                made.append(user_id)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join()
