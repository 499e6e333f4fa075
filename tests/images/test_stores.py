"""The stores of the overlay `local` come up in one container, as restricted as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pymysql
import pytest
import yaml
from botocore.exceptions import BotoCoreError, ClientError

from devstack.accounts import PASSWORDS
from devstack.images import Engine, default_engine
from devstack.manifests import of_kind, rendered
from devstack.processes import HOST, wait_until
from devstack.queues import SqsEndpoint
from devstack.stores import DIALLER, MAIN_APP, PORTS, QUEUE

pytestmark = [pytest.mark.images, pytest.mark.timeout(300)]
START_SECONDS = 240.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = default_engine()
    engine.prepare()
    template = of_kind(rendered("local", "foundation"), "StatefulSet")["stores"]["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **json.loads(json.dumps(template))}
    pod["metadata"]["name"] = "stores"
    # The network is the host's, where nothing need be published.
    del pod["spec"]["containers"][0]["ports"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        del pod["spec"]["containers"][0][probe]
    path: Path = tmp_path_factory.mktemp("stores") / "pod.yaml"
    path.write_text(yaml.safe_dump(pod), encoding="utf-8")
    # Of a run that was killed.
    engine.podman("pod", "rm", "--force", "--ignore", "stores")
    engine.podman("play", "kube", "--network=host", str(path))
    endpoint = f"http://{HOST}:{PORTS['sqs']}/"
    try:
        wait_until(lambda: _answers(endpoint), seconds=START_SECONDS, what="the stores")
        yield engine
    finally:
        log = engine.podman("logs", "--tail=30", "stores-service")
        # On a busy machine databases take longer than podman's ten seconds to stop.
        engine.podman("pod", "rm", "--force", "--time=60", "stores")
        print(log)  # noqa: T201 - what pytest shows of a failure


def _answers(url: str) -> bool:
    """Whether there are the queues, which are made a moment after the endpoint answers."""
    with closing(SqsEndpoint(url).client()) as client:
        try:
            for name in (QUEUE, f"{QUEUE}-dlq"):
                client.get_queue_url(QueueName=name)
        except (BotoCoreError, ClientError):
            return False
    return True


async def test_every_store_answers_to_the_accounts_of_the_overlay(running: Engine) -> None:
    with (
        closing(
            pymysql.connect(
                host=HOST,
                port=PORTS["mariadb"],
                user="dialler",
                password=PASSWORDS["dialler"],
                database=MAIN_APP,
            )
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT COUNT(id) FROM users")
        assert cursor.fetchone() == (2000,)
    postgres = await asyncpg.connect(
        host=HOST,
        port=PORTS["postgres"],
        user="dialler",
        password=PASSWORDS["dialler"],
        database=DIALLER,
    )
    assert await postgres.fetchval("SELECT has_database_privilege(current_database(), 'CREATE')")
    await postgres.close()
    with closing(SqsEndpoint(f"http://{HOST}:{PORTS['sqs']}").client()) as client:
        assert client.get_queue_url(QueueName=QUEUE)["QueueUrl"].endswith(f"/{QUEUE}")
        assert client.get_queue_url(QueueName=f"{QUEUE}-dlq")["QueueUrl"]


def test_it_may_write_its_data_and_nothing_else(running: Engine) -> None:
    [state] = json.loads(running.podman("inspect", "stores-service"))
    status = Path(f"/proc/{state['State']['Pid']}/status").read_text(encoding="utf-8")
    assert "Uid:\t10001\t10001" in status
    assert "NoNewPrivs:\t1" in status
