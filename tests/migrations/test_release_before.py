"""The code of the release before runs on the schema of this code: the order of a roll-out.

The latest release is the newest tag `v*` below HEAD; `DIALLER_TEST_RELEASE` names another commit.
Where there is none, as in a checkout without history, there is nothing to compare and the test is
left out.
"""

import asyncio
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2, queue_pb2_grpc
from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc
from pydantic import SecretStr

from devstack.postgres_database import PostgresDatabase
from devstack.processes import free_port
from devstack.stack import is_serving
from servicekit.client import connect
from servicekit.migrations import upgrade
from services.queue.settings import QueueSettings
from tests.fakes import waiting
from tests.fakes.running_queue import RunningQueue
from tests.fakes.upstreams import serving_doubles
from tests.fakes.user_context import FakeUserContext
from tests.fakes.user_facts import unsigned
from tests.integration.queue.bench import Desk

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

ROOT = Path(__file__).parents[2]
OWNERS = ("binlog_relay", "queue", "reconciler", "user_context")


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the release before, in a folder of its own."""
    named = os.environ.get("DIALLER_TEST_RELEASE")
    # Not a tag of HEAD itself: that release is this code.
    found = _git("describe", "--tags", "--abbrev=0", "--match=v[0-9]*", "HEAD^")
    commit = named or found.stdout.decode().strip()
    if not commit:
        pytest.skip("no release to compare with: no tag v* below HEAD in this checkout")
    folder = tmp_path_factory.mktemp("release")
    archive = folder / "code.tar"
    made = _git("archive", f"--output={archive}", commit)
    assert made.returncode == 0, made.stderr.decode()
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "code", filter="data")
    return folder / "code"


@pytest.fixture
async def newest_schema(postgres_database: PostgresDatabase) -> str:
    """A database with every service's schema as this code has it."""
    for service in OWNERS:
        await upgrade(postgres_database.url, package=f"services.{service}", schema=service)
    return postgres_database.url


@asynccontextmanager
async def _running(code: Path, service: str, **environment: str) -> AsyncIterator[str]:
    """Run a service of the release, and yield its address once it is ready."""
    port = free_port()
    log = code.parent / f"{service}.log"
    prefix = service.upper()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"services.{service}"),
            cwd=code,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{code}{os.pathsep}{code / 'gen'}",
                f"{prefix}_GRPC_PORT": str(port),
                **{f"{prefix}_{name}": value for name, value in environment.items()},
            },
            stdout=output,
            stderr=output,
        )
    target = f"127.0.0.1:{port}"
    try:
        try:
            async with waiting.limit(20):
                while not await asyncio.to_thread(is_serving, target):
                    assert process.returncode is None
                    await asyncio.sleep(0.1)
        except (TimeoutError, AssertionError):
            pytest.fail(f"not ready on the new schema: {log.read_text()[-2000:]}")
        yield target
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_the_queue_of_the_release_before_serves_on_the_new_schema(
    release: Path, newest_schema: str, redis_url: str, tmp_path: Path
) -> None:
    """It places people, hands one out, takes the outcome, keeps an objection and its audit."""
    rules = tmp_path / "rules.yaml"
    # By the release's own code: these are the rules that it knows.
    write = "import sys; from pathlib import Path; from devstack.rules import write_rules; "
    await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", write + f"write_rules(Path({str(rules)!r}))"],
        cwd=release,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{release}{os.pathsep}{release / 'gen'}"},
        check=True,
    )
    main_app = FakeUserContext()  # type: ignore[abstract]
    async with (
        serving_doubles(user_context=main_app) as (target,),
        _running(
            release,
            "queue",
            POSTGRES_URL=newest_schema,
            REDIS_URL=redis_url,
            RULES_PATH=str(rules),
            USER_CONTEXT_TARGET=target,
        ) as address,
    ):
        settings = QueueSettings(
            postgres_url=SecretStr(newest_schema),
            redis_url=SecretStr(redis_url),
            user_context_target=target,
        )
        channel = connect(address, name="queue", default_timeout_seconds=10.0, retry_codes=())
        stub = queue_pb2_grpc.QueueServiceStub(channel)
        desk = Desk(RunningQueue(stub, main_app, settings))
        await desk.fill(unsigned(1), unsigned(2))
        held = (await desk.claim("ann")).assignment
        assert held.user_id in (1, 2)
        await desk.record(held, call_state_pb2.OUTCOME_CALL_BACK)
        assert len(await desk.callbacks()) == 1
        other = 3 - held.user_id
        await desk.suppress(other)
        assert (await desk.state(other)).state == call_state_pb2.ENTRY_STATE_SUPPRESSED
        actions = {entry.action for entry in await desk.audit()}
        assert {"HANDED_OUT", "OUTCOME_RECORDED", "SUPPRESSED"} <= actions
        await stub.PurgeExpired(queue_pb2.PurgeExpiredRequest())
        await channel.close(None)


async def test_the_reconciler_of_the_release_before_is_ready_on_the_new_schema(
    release: Path, newest_schema: str
) -> None:
    nowhere = "127.0.0.1:1"
    async with _running(
        release,
        "reconciler",
        POSTGRES_URL=newest_schema,
        USER_CONTEXT_TARGET=nowhere,
        QUEUE_TARGET=nowhere,
    ) as address:
        channel = connect(address, name="reconciler", default_timeout_seconds=10.0)
        stub = reconciler_pb2_grpc.ReconcilerServiceStub(channel)
        await stub.ListRuns(reconciler_pb2.ListRunsRequest())
        await channel.close(None)
