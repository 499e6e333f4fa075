"""The relay on a stretch of binlog, beside a bare read of the same by the same library."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import grpc
from dialler.binlog_relay.v1 import binlog_relay_pb2
from dialler.binlog_relay.v1.binlog_relay_pb2_grpc import BinlogRelayServiceStub

from bench.bare_binlog import read_rows
from bench.measurement import BenchResult, summarise
from devstack.postgres_database import PostgresDatabase
from devstack.processes import ChildProcess, free_port
from devstack.queues import SqsQueue, running_sqs_endpoint
from devstack.stack import Addresses, Stack, is_serving, service_environment, wait_until
from servicekit.migrations import upgrade

ROUNDS = 3
BULK_ROWS = 15_000
SINGLE_ROWS = 4_000


async def measure(stack: Stack) -> list[BenchResult]:
    """Rows a second of one transaction's many rows, and of many transactions of one row each.

    A relay of its own, into a queue of its own that no service reads; sending is included.
    """
    database = PostgresDatabase.create(stack.postgres)
    await upgrade(database.url, package="services.binlog_relay", schema="binlog_relay")
    return await asyncio.to_thread(_measure, stack, database.url)


def _measure(stack: Stack, postgres_url: str) -> list[BenchResult]:
    results = []
    with running_sqs_endpoint() as endpoint, contextlib.closing(endpoint.client()) as client:
        queue = SqsQueue.create(endpoint, client)
        values = vars(stack.addresses) | {
            "postgres": postgres_url,
            "sqs_endpoint": endpoint.url,
            "sqs_queue": queue.url,
            "grpc": stack.addresses.grpc | {"binlog_relay": f"127.0.0.1:{free_port()}"},
        }
        relay = _Relay(Addresses(**values), stack.logs)
        # Its first start begins at the end and wants a full run; what counts comes after.
        relay.run_until_saved()
        for name, write, rows, kind in (
            ("relay_rate", _write_bulk, BULK_ROWS, "one transaction"),
            ("relay_rate_singles", _write_singles, SINGLE_ROWS, "a transaction each"),
        ):
            ours, floor = [], []
            for _ in range(ROUNDS):
                position = _binlog_end(stack)
                written = write(stack, rows)
                seconds = read_rows(stack.addresses.mysql_relay, position, written)
                floor.append(written / seconds)
                ours.append(relay.rate(written))
                client.purge_queue(QueueUrl=queue.url)
            results.append(
                summarise(
                    name,
                    ours,
                    floor,
                    unit="rows/s",
                    conditions=f"{rows:,} updates of claims, {kind}, sent to SQS",
                    floor_name="pymysqlreplication reading the same rows, sending nothing",
                )
            )
    return results


class _Relay:
    """A relay that is started and stopped again and again."""

    def __init__(self, addresses: Addresses, logs: Path) -> None:
        self._address = addresses.grpc["binlog_relay"]
        environment = service_environment("binlog_relay", addresses)
        environment["BINLOG_RELAY_SOURCE_NAME"] = "bench"
        self._process = ChildProcess(
            "relay of relay_rate",
            "services.binlog_relay",
            logs / "relay_rate.log",
            environment=environment,
        )

    def run_until_saved(self) -> None:
        """Have it save the end of the binlog as its position."""
        self._start()
        wait_until(lambda: self._position().HasField("saved_at"), 30, "a position")
        self._process.stop()

    def rate(self, rows: int) -> float:
        """Rows a second over what has been written since it last ran, its start left out."""
        self._process.start()
        began, first = self._first_records()
        wait_until(lambda: self._records() >= rows, 120, "the last row")
        seconds = time.perf_counter() - began
        self._process.stop()
        return (rows - first) / seconds

    def _first_records(self) -> tuple[float, int]:
        wait_until(lambda: self._records() > 0, 30, "the first rows")
        return time.perf_counter(), self._records()

    def _start(self) -> None:
        self._process.start()
        self._process.wait_ready(lambda: is_serving(self._address))

    def _records(self) -> int:
        try:
            return self._position().records_published
        except grpc.RpcError:
            return 0

    def _position(self) -> binlog_relay_pb2.GetPositionResponse:
        with grpc.insecure_channel(self._address) as channel:
            stub = BinlogRelayServiceStub(channel)
            return stub.GetPosition(binlog_relay_pb2.GetPositionRequest(), timeout=5)


def _binlog_end(stack: Stack) -> tuple[str, int]:
    with stack.mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW MASTER STATUS")
        row = cursor.fetchone()
    assert row is not None
    return str(row[0]), int(row[1])


def _write_bulk(stack: Stack, rows: int) -> int:
    return stack.main_app.execute(
        "UPDATE claims SET status = %s ORDER BY id LIMIT %s", (f"bulk-{time.time_ns()}", rows)
    )


def _write_singles(stack: Stack, rows: int) -> int:
    with stack.main_app.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM claims ORDER BY id LIMIT %s", (rows,))
        ids = [row[0] for row in cursor.fetchall()]
        for claim_id in ids:
            status = f"single-{time.time_ns()}"
            cursor.execute("UPDATE claims SET status = %s WHERE id = %s", (status, claim_id))
    return len(ids)
