"""The ingest beside a bare receive-and-delete loop with the same SQS client.

What is compared is events for each second of CPU, which other processes on the machine disturb
little: that is the rate of one core.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.load import cpu_seconds
from bench.measurement import BenchResult, summarise
from devstack.processes import ChildProcess, free_port
from devstack.queues import REGION, SqsEndpoint, SqsQueue, running_sqs_endpoint
from devstack.stack import Stack, is_serving, wait_until

ROUNDS = 3
PEOPLE = 5_000
RECEIVERS = 2
SINGLE_MESSAGES = 10_000
PACKED_RECORDS = 100_000
RECORDS_IN_A_PACK = 200
STATUS = "ended"
AWS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


async def measure(stack: Stack) -> list[BenchResult]:
    """Events for each second of CPU, one record a message and packed."""
    return await asyncio.to_thread(_measure, stack.folder)


def _measure(folder: Path) -> list[BenchResult]:
    singles = [_body([_record(n % PEOPLE + 1)]) for n in range(SINGLE_MESSAGES)]
    packed = [
        _body([_record((start + n) % PEOPLE + 1) for n in range(RECORDS_IN_A_PACK)])
        for start in range(0, PACKED_RECORDS, RECORDS_IN_A_PACK)
    ]
    results = []
    with running_sqs_endpoint() as endpoint, _upstreams(folder) as targets:
        for name, bodies, records in (
            ("ingest_rate", singles, 1),
            ("ingest_rate_packed", packed, RECORDS_IN_A_PACK),
        ):
            ours, floor = [], []
            for _ in range(ROUNDS):
                floor.append(_floor(folder, endpoint, bodies) * records)
                ours.append(_ours(folder, endpoint, targets, bodies) * records)
            results.append(
                summarise(
                    name,
                    ours,
                    floor,
                    unit="events/s of CPU",
                    conditions=f"{records} records a message of {len(bodies[0]):,} bytes, "
                    f"{PEOPLE:,} people, services that answer at once",
                    floor_name="bare receive and delete of the same messages",
                )
            )
    return results


def _record(n: int) -> dict[str, Any]:
    row = {
        "id": n,
        "user_id": n,
        "type": "motor_finance",
        "lender": "Lloyds",
        "solicitor": None,
        "created_at": "2024-02-29T23:59:59Z",
        "updated_at": "2025-02-28T23:59:59Z",
    }
    return {
        "data": row | {"status": STATUS},
        "before-image": row | {"status": "open"},
        "metadata": {
            "timestamp": "2025-06-02T09:00:01.500000Z",
            "record-type": "data",
            "operation": "update",
            "partition-key-type": "schema-table",
            "schema-name": "mainapp",
            "table-name": "claims",
            "transaction-id": n,
            "commit-timestamp": "2025-06-02T09:00:01.000000Z",
            "stream-position": "binlog.000003:4711:0:4711:12:binlog.000003:4711",
            "source-server": "6a09e667f3bcc908",
        },
    }


def _body(records: list[dict[str, Any]]) -> str:
    return json.dumps(records if len(records) > 1 else records[0], separators=(",", ":"))


@contextlib.contextmanager
def _upstreams(folder: Path) -> Iterator[dict[str, str]]:
    log = folder / "logs" / "ingest_upstreams.log"
    log.unlink(missing_ok=True)
    process = ChildProcess(
        "upstreams", "bench.ingest_upstreams", log, arguments=(str(PEOPLE), STATUS)
    )
    process.start()
    try:
        process.wait_ready(lambda: log.exists() and b"}\n" in log.read_bytes())
        yield json.loads(log.read_text(encoding="utf-8").splitlines()[0])
    finally:
        process.kill()


@contextlib.contextmanager
def _filled(endpoint: SqsEndpoint, bodies: list[str]) -> Iterator[SqsQueue]:
    with contextlib.closing(endpoint.client()) as client:
        queue = SqsQueue.create(endpoint, client)
        size = max(1, min(10, 900_000 // len(bodies[0])))
        for start in range(0, len(bodies), size):
            client.send_message_batch(
                QueueUrl=queue.url,
                Entries=[
                    {"Id": str(i), "MessageBody": body}
                    for i, body in enumerate(bodies[start : start + size])
                ],
            )
        yield queue
        queue.delete()


def _floor(folder: Path, endpoint: SqsEndpoint, bodies: list[str]) -> float:
    """Messages for each second of CPU."""
    with _filled(endpoint, bodies) as queue:
        process = ChildProcess(
            "bare consumer",
            "bench.bare_consumer",
            folder / "logs" / "bare_consumer.log",
            arguments=(endpoint.url, REGION, queue.url, str(RECEIVERS)),
            environment=AWS,
        )
        process.start()
        return _emptied(process, queue, len(bodies))


def _ours(folder: Path, endpoint: SqsEndpoint, targets: dict[str, str], bodies: list[str]) -> float:
    """Messages for each second of CPU."""
    port = free_port()
    with _filled(endpoint, bodies) as queue:
        values = {
            "SQS_QUEUE_URL": queue.url,
            "SQS_DLQ_URL": queue.dlq_url,
            "SQS_ENDPOINT_URL": endpoint.url,
            "AWS_REGION": REGION,
            "USER_CONTEXT_TARGET": targets["user_context"],
            "QUEUE_TARGET": targets["queue"],
            "RECEIVERS": str(RECEIVERS),
            "RECEIVE_WAIT_SECONDS": "1",
            "GRPC_PORT": str(port),
        }
        process = ChildProcess(
            "ingest",
            "services.cdc_ingest",
            folder / "logs" / "ingest_rate.log",
            environment=AWS | {f"CDC_INGEST_{name}": value for name, value in values.items()},
        )
        process.start()
        process.wait_ready(lambda: is_serving(f"127.0.0.1:{port}"))
        return _emptied(process, queue, len(bodies))


def _emptied(process: ChildProcess, queue: SqsQueue, messages: int) -> float:
    """Let the queue be worked off and return messages for each second of CPU from a start on.

    The process has begun already, so what it has done until the first look does not count.
    """
    try:
        wait_until(lambda: _depth(queue) < messages, 60, "a start")
        left, before = _depth(queue), cpu_seconds(process.pid)
        wait_until(lambda: _depth(queue) == 0, 120, "an empty queue")
        return left / (cpu_seconds(process.pid) - before)
    finally:
        process.kill()


def _depth(queue: SqsQueue) -> int:
    found = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["All"])
    attributes = found["Attributes"]
    return int(attributes["ApproximateNumberOfMessages"]) + int(
        attributes["ApproximateNumberOfMessagesNotVisible"]
    )
