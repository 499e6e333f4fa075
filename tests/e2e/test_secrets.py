"""Invariant 6: what must never leave MySQL is in no message, cache, table, log or response."""

from __future__ import annotations

import contextlib

import grpc
import pytest
import redis
from dialler.cdc_ingest.v1 import cdc_ingest_pb2 as pb
from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceStub
from mypy_boto3_sqs.client import SQSClient

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.queues import SqsEndpoint
from devstack.stack import DIALLER, Stack, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(180)]

# devstack.seed puts it into every secret column.
CANARY = "CANARY-SECRET"


def test_the_canary_is_there_to_be_found(stack: Stack) -> None:
    query = "SELECT COUNT(*) FROM users WHERE password LIKE %s"
    assert stack.main_app.rows(query, (f"%{CANARY}%",))[0][0] > 0


def test_sqs_messages_hold_no_secret(stack: Stack, supervisor: Desk) -> None:
    user_id = int(list(supervisor.all_entries("unsigned_users"))[-1]["user_id"])
    with grpc.insecure_channel(stack.addresses.grpc["cdc_ingest"]) as channel:
        ingest = CdcIngestServiceStub(channel)
        ingest.PauseIngest(pb.PauseIngestRequest(), timeout=30)
        try:
            with MainApp(stack.addresses.mysql_writer) as main_app:
                main_app.sign(user_id)
            with contextlib.closing(SqsEndpoint(stack.addresses.sqs_endpoint).client()) as client:
                bodies = _peek(stack, client)
        finally:
            ingest.ResumeIngest(pb.ResumeIngestRequest(), timeout=5)
    assert any(str(user_id) in body for body in bodies)
    assert not any(CANARY in body for body in bodies)


def _peek(stack: Stack, client: SQSClient) -> list[str]:
    bodies: list[str] = []

    def received() -> bool:
        answer = client.receive_message(
            QueueUrl=stack.addresses.sqs_queue,
            MaxNumberOfMessages=10,
            VisibilityTimeout=0,
            WaitTimeSeconds=1,
            MessageAttributeNames=["All"],
        )
        bodies.extend(str(message) for message in answer.get("Messages", []))
        return bool(bodies)

    wait_until(received, 20, "a message")
    return bodies


def test_redis_holds_no_secret(stack: Stack, supervisor: Desk) -> None:
    for entry in supervisor.entries("unsigned_users"):
        supervisor.get(f"/v1/people/{entry['user_id']}/context")
    content = _redis_content(stack.addresses.redis)
    assert b"first_name" in content
    assert CANARY.encode() not in content


def _redis_content(url: str) -> bytes:
    parts: list[bytes] = []
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(count=1000):
            kind = client.type(key)
            if kind == b"hash":
                parts += client.hgetall(key).values()
            elif kind == b"stream":
                parts += [value for _, entry in client.xrange(key) for value in entry.values()]
            else:
                parts.append(client.dump(key) or b"")
    return b"\n".join(parts)


def test_postgres_holds_no_secret(stack: Stack) -> None:
    schemas = "('queue', 'user_context', 'reconciler', 'binlog_relay')"
    tables = stack.postgres.execute(
        "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables"
        f" WHERE table_schema IN {schemas} AND table_type = 'BASE TABLE'",
        database=DIALLER,
    ).splitlines()
    assert "queue.entries" in tables
    for table in tables:
        rows = stack.postgres.execute(f"SELECT t::text FROM {table} t", database=DIALLER)
        assert CANARY not in rows, table


def test_logs_hold_no_secret_and_no_personal_data(stack: Stack, agent: Desk) -> None:
    assignment = agent.claim()["assignment"]
    user = agent.get(f"/v1/people/{assignment['user_id']}/context")["user"]
    logs = "".join(path.read_text(errors="replace") for path in stack.logs.glob("*.log"))
    assert assignment["user_id"] in logs or "listening" in logs
    personal = [user["email_address"], user["phone_number"]]
    for text in filter(None, [CANARY, *personal]):
        assert text not in logs


def test_responses_hold_no_secret(stack: Stack, supervisor: Desk) -> None:
    for user_id in range(1, 60):
        response = supervisor.client.get(f"/v1/people/{user_id}/context")
        assert CANARY not in response.text
