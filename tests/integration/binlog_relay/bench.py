"""What the relay's tests share: starting relays and collecting what they send."""

import asyncio
import json
import os
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dialler.binlog_relay.v1 import binlog_relay_pb2, binlog_relay_pb2_grpc

from devstack.mainapp_database import MainAppDatabase
from devstack.mysql_server import MySQL
from devstack.postgres_database import PostgresDatabase
from devstack.processes import OwnedProcess
from devstack.queues import SqsQueue
from servicekit.client import connect
from servicekit.lifecycle import Parts
from services.binlog_relay.app import build
from services.binlog_relay.settings import BinlogRelaySettings
from tests.fakes.reconciler import FakeReconciler

PATIENCE_SECONDS = 30.0
_ROOT = Path(__file__).parents[3]


@dataclass(slots=True)
class Received:
    """What came through the queue, in the order received."""

    bodies: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    attributes: list[dict[str, str]] = field(default_factory=list)

    def ids(self, table: str = "users", operation: str | None = None) -> list[int]:
        """Primary keys of the records of a table."""
        return [
            record["data"]["id"]
            for record in self.records
            if "data" in record
            and record["metadata"].get("table-name") == table
            and operation in (None, record["metadata"]["operation"])
        ]


@dataclass(frozen=True)
class RelayBench:
    """A main app, a PostgreSQL database, a queue and a reconciler that takes notes."""

    main_app: MainAppDatabase
    postgres: PostgresDatabase
    queue: SqsQueue
    reconciler: FakeReconciler
    reconciler_target: str

    def settings(self, **overrides: Any) -> BinlogRelaySettings:
        """Settings for a relay here; the source is this main app's."""
        chosen: dict[str, Any] = {
            "mysql_url": self.main_app.relay_url,
            "postgres_url": self.postgres.url,
            "sqs_queue_url": self.queue.url,
            "sqs_endpoint_url": self.queue.endpoint_url,
            "reconciler_target": self.reconciler_target,
            "source_name": self.main_app.name,
            "heartbeat_seconds": 0.5,
            # Tests count what they receive.
            "capture_heartbeat_seconds": 0.0,
            "retry_longest_seconds": 0.5,
            "drain_seconds": 3.0,
        }
        return BinlogRelaySettings(**{**chosen, **overrides})

    @asynccontextmanager
    async def relay(self, **overrides: Any) -> AsyncIterator[Parts]:
        """A relay in this process that has begun to read."""
        parts = build(self.settings(**overrides))
        await parts.start()
        try:
            await self.until(lambda: self.is_following(parts))
            yield parts
        finally:
            await parts.stop()

    @asynccontextmanager
    async def relay_process(self, **overrides: Any) -> AsyncIterator[OwnedProcess]:
        """A relay in a process of its own, which the test may kill."""
        settings = self.settings(**overrides)
        values = settings.model_dump(exclude_none=True)
        values |= {name: getattr(settings, name).get_secret_value() for name in _SECRETS}
        environment = {f"BINLOG_RELAY_{name.upper()}": str(v) for name, v in values.items()}
        with tempfile.TemporaryDirectory(prefix="dialler-") as folder:
            process = OwnedProcess(
                [sys.executable, "-m", "services.binlog_relay"],
                log=Path(folder) / "relay.log",
                environment={**os.environ, **environment},
                folder=_ROOT,
            )
            try:
                yield process
            finally:
                process.stop(seconds=10)

    async def position(self, parts: Parts) -> binlog_relay_pb2.GetPositionResponse:
        """What the relay answers to GetPosition."""
        async with connect(parts.address, name="relay", default_timeout_seconds=5) as channel:
            stub = binlog_relay_pb2_grpc.BinlogRelayServiceStub(channel)
            return await stub.GetPosition(binlog_relay_pb2.GetPositionRequest())

    async def is_following(self, parts: Parts) -> bool:
        """Whether the relay has begun to hear the binlog and has saved where."""
        answer = await self.position(parts)
        return answer.active and answer.HasField("last_event_at") and answer.HasField("saved_at")

    async def caught_up(self, parts: Parts) -> None:
        """Wait until the saved position is the end of the server's binlog."""

        async def is_there() -> bool:
            end = await asyncio.to_thread(self.binlog_end)
            answer = await self.position(parts)
            return (answer.file, answer.offset) == end

        await self.until(is_there)

    def binlog_end(self) -> tuple[str, int]:
        """File and offset of the end of the server's binlog."""
        with self.main_app.server.connect() as connection, connection.cursor() as cursor:
            name = "BINARY LOG" if isinstance(self.main_app.server, MySQL) else "MASTER"
            cursor.execute(f"SHOW {name} STATUS")
            row = cursor.fetchone()
        assert row is not None
        return str(row[0]), int(row[1])

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await holds():  # noqa: ASYNC110 - what is asked is another process
                await asyncio.sleep(0.02)

    async def receive(
        self, enough: Callable[[Received], bool], into: Received | None = None
    ) -> Received:
        """Receive and delete until it is enough."""
        received = into or Received()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not enough(received):
                await asyncio.to_thread(self.receive_some, received)
        return received

    async def receive_records(self, count: int) -> Received:
        """Receive until that many records have come."""
        return await self.receive(lambda received: len(received.records) >= count)

    async def execute(self, *statements: str) -> None:
        """Run statements of the main app, each a transaction."""
        await asyncio.to_thread(self._execute, statements, False)

    async def transaction(self, *statements: str) -> None:
        """Run statements of the main app in one transaction."""
        await asyncio.to_thread(self._execute, statements, True)

    async def add_users(self, ids: Iterable[int], **columns: object) -> None:
        """Insert people in one statement."""
        names = ["id", "email_address", *columns]
        rows = [(number, f"{uuid.uuid4().hex}@example.test", *columns.values()) for number in ids]

        def insert() -> None:
            with self.main_app.connect() as connection, connection.cursor() as cursor:
                marks = ", ".join(["%s"] * len(names))
                cursor.executemany(f"INSERT INTO users ({', '.join(names)}) VALUES ({marks})", rows)

        await asyncio.to_thread(insert)

    def _execute(self, statements: Iterable[str], is_one_transaction: bool) -> None:
        with self.main_app.connect() as connection, connection.cursor() as cursor:
            if is_one_transaction:
                connection.begin()
            for statement in statements:
                cursor.execute(statement)
            connection.commit()

    def receive_some(self, received: Received) -> None:
        """Receive and delete up to ten messages, waiting a second for the first."""
        answer = self.queue.client.receive_message(
            QueueUrl=self.queue.url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=1,
            MessageAttributeNames=["All"],
        )
        for message in answer.get("Messages", []):
            body = json.loads(message["Body"])
            received.bodies.append(message["Body"])
            for record in body if isinstance(body, list) else [body]:
                received.records.extend(single_records(record))
            given = message.get("MessageAttributes", {})
            received.attributes.append({n: v["StringValue"] for n, v in given.items()})
            self.queue.client.delete_message(
                QueueUrl=self.queue.url, ReceiptHandle=message["ReceiptHandle"]
            )


def single_records(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a record of many rows as one for each, and any other as it is."""
    if "rows" not in record:
        yield record
        return
    befores = record.get("before-rows") or [None] * len(record["rows"])
    for row, before in zip(record["rows"], befores, strict=True):
        single = {"data": dict(zip(record["columns"], row, strict=True))}
        if before is not None:
            single["before-image"] = dict(zip(record["columns"], before, strict=True))
        yield single | {"metadata": record["metadata"]}


_SECRETS = ("mysql_url", "postgres_url")
