"""The images, started from the rendered manifests, do the suite's work as restricted as they are.

`make images-test` builds them before and runs this in a network namespace of its own.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.images import IMAGES, ImageError
from devstack.pods import PodStack
from devstack.stack import wait_until

pytestmark = [pytest.mark.images, pytest.mark.timeout(300)]

DEPLOYMENTS = tuple(name.replace("_", "-") for name in IMAGES)
USERS = 400


@pytest.fixture(scope="module")
def stack() -> Iterator[PodStack]:
    folder = Path(tempfile.mkdtemp(prefix="dialler-images-"))
    folder.chmod(0o711)
    with PodStack(folder, users=USERS, durable=False, report=lambda _: None) as running:
        with Desk(running.addresses, "supervisor", "supervisor-setup") as desk:
            desk.await_reconciled()
        yield running
    shutil.rmtree(folder, ignore_errors=True)


def _in(stack: PodStack, name: str, code: str) -> str:
    return stack.engine.podman("exec", stack.container(name), "python", "-c", code)


def test_a_change_in_mysql_arrives_at_the_gateway(stack: PodStack) -> None:
    with (
        Desk(stack.addresses, "supervisor", "supervisor-1") as supervisor,
        MainApp(stack.addresses.mysql_writer) as main_app,
        supervisor.events() as events,
    ):
        user_id = int(list(supervisor.all_entries("unsigned_users"))[-1]["user_id"])
        main_app.sign(user_id)
        moved = events.wait_for_user(user_id, "entry_moved")
        assert moved.event["queue_before"] == "unsigned_users"
        assert supervisor.get(f"/v1/people/{user_id}/context")["user"]["has_signature"] is True


def test_an_agent_claims_the_next_person_and_records_an_outcome(stack: PodStack) -> None:
    with Desk(stack.addresses, "agent") as agent:
        assignment = agent.claim()["assignment"]
        assert agent.get(f"/v1/people/{assignment['user_id']}/context")["user"]
        recorded = agent.record(assignment["assignment_id"], "no_answer").raise_for_status().json()
    assert recorded["call_state"]["attempts"] == 1


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_it_may_do_nothing_but_its_work(stack: PodStack, name: str) -> None:
    pid = stack.state(name)["State"]["Pid"]
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    assert status["Uid"].split() == ["10001"] * 4
    assert status["Gid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"  # a filter
    with pytest.raises(ImageError, match="Read-only file system"):
        _in(stack, name, "open('/app/more.py', 'w')")
    _in(stack, name, "open('/tmp/some', 'w').write('it may write here')")


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_it_holds_its_own_service_alone(stack: PodStack, name: str) -> None:
    listed = _in(
        stack,
        name,
        "import glob; print(*sorted(glob.glob('services/*/', root_dir='/app')"
        " + glob.glob('*/', root_dir='/app')))",
    )
    own = {"gateway/"} if name == "gateway" else {f"services/{name.replace('-', '_')}/"}
    everybodys = {"servicekit/", "dialler/", "services/", "mainapp/", "services/__pycache__/"}
    assert set(listed.split()) - everybodys == own
    assert ("mainapp/" in listed.split()) == (
        name in {"user-context", "cdc-ingest", "binlog-relay"}
    )


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_memory_stays_far_below_its_limit(stack: PodStack, name: str) -> None:
    state = stack.state(name)
    limit = int(state["HostConfig"]["Memory"])
    assert limit > 0, "podman did not set the limit of the manifest"
    pid = state["State"]["Pid"]
    peak = next(
        int(line.split()[1]) * 1024
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    sys.stdout.write(f"{name}: at most {peak >> 20} MiB of {limit >> 20} MiB\n")
    assert peak < 0.75 * limit


def test_without_its_store_it_is_unready_and_lives(stack: PodStack) -> None:
    stack.postgres.kill()
    try:
        wait_until(lambda: not stack.answers_probe("queue", "readinessProbe"), 15, "unreadiness")
        for name in DEPLOYMENTS:
            assert stack.answers_probe(name, "livenessProbe"), name
    finally:
        stack.postgres.start()
    for name in DEPLOYMENTS:
        stack.wait_ready(name)


def test_migrating_beside_the_running_services_changes_nothing(stack: PodStack) -> None:
    stack.migrate()


# The last, since it leaves nothing running.
def test_told_to_stop_each_drains_within_its_grace(stack: PodStack) -> None:
    for name in reversed(DEPLOYMENTS):
        spec = stack.deployments[name]["spec"]["template"]["spec"]
        grace = spec["terminationGracePeriodSeconds"]
        stack.engine.podman("stop", f"--time={grace}", stack.container(name))
        assert stack.state(name)["State"]["ExitCode"] == 0, stack.log(name)
