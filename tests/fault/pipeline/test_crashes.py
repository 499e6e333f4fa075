"""Whatever is killed or goes away while changes flow, nothing is lost and all ends well."""

from __future__ import annotations

import httpx
import pytest
from dialler.cdc_ingest.v1 import cdc_ingest_pb2 as pb
from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceStub

from devstack.changes import MainApp
from devstack.stack import Stack, is_serving, wait_until
from tests.fault.pipeline.comparison import await_agreement
from tests.fault.pipeline.storm import Storm

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]


@pytest.mark.parametrize(
    "name", ["binlog_relay", "cdc_ingest", "user_context", "queue", "reconciler"]
)
def test_killed_in_the_middle_of_a_batch(
    stack: Stack, ingest: CdcIngestServiceStub, name: str
) -> None:
    claims = [int(row[0]) for row in stack.main_app.rows("SELECT id FROM claims")]
    with Storm(stack, name) as storm, MainApp(stack.addresses.mysql_writer) as main_app:
        received = _status(ingest).messages_received
        main_app.update_claims(claims, "in_progress")
        wait_until(lambda: _status(ingest).messages_received > received + 5, 20, "the batch")
        stack.services[name].kill()
        storm.rages()
        stack.restart(name)
    await_agreement(stack)


def _status(ingest: CdcIngestServiceStub) -> pb.GetStatusResponse:
    return ingest.GetStatus(pb.GetStatusRequest(), timeout=5)


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
            order = {"action": action, "requests": 14}
            httpx.post(f"{stack.addresses.sqs_endpoint}/_faults", json=order).raise_for_status()
        wait_until(lambda: not is_serving(stack.addresses.grpc["cdc_ingest"]), 20, "it to show")
        storm.rages()
        wait_until(lambda: is_serving(stack.addresses.grpc["cdc_ingest"]), 40, "it to be back")
    await_agreement(stack)
