"""An ingest on a real SQS endpoint, with the services it calls as fakes behind real gRPC."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import grpc.aio
import pytest
from dialler.cdc_ingest.v1 import cdc_ingest_pb2, cdc_ingest_pb2_grpc

from devstack.queues import SqsEndpoint, SqsQueue
from servicekit.client import connect
from servicekit.lifecycle import Parts
from services.cdc_ingest.app import build
from services.cdc_ingest.settings import CdcIngestSettings
from tests.fakes.upstreams import IngestUpstreams, ingest_upstreams

PATIENCE_SECONDS = 20.0
VISIBILITY_SECONDS = 4


class Operator:
    """The RPCs that an operator calls."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub = cdc_ingest_pb2_grpc.CdcIngestServiceStub(channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)

    async def status(self) -> cdc_ingest_pb2.GetStatusResponse:
        return await self._stub.GetStatus(cdc_ingest_pb2.GetStatusRequest())

    async def pause(self) -> None:
        await self._stub.PauseIngest(cdc_ingest_pb2.PauseIngestRequest())

    async def resume(self) -> None:
        await self._stub.ResumeIngest(cdc_ingest_pb2.ResumeIngestRequest())

    async def dead_letters(self) -> cdc_ingest_pb2.ListDeadLettersResponse:
        return await self._stub.ListDeadLetters(cdc_ingest_pb2.ListDeadLettersRequest())

    async def redrive(self, **request: Any) -> cdc_ingest_pb2.RedriveDeadLettersResponse:
        return await self._stub.RedriveDeadLetters(
            cdc_ingest_pb2.RedriveDeadLettersRequest(**request)
        )

    async def discard(self, **request: Any) -> cdc_ingest_pb2.DiscardDeadLettersResponse:
        return await self._stub.DiscardDeadLetters(
            cdc_ingest_pb2.DiscardDeadLettersRequest(**request)
        )


@dataclass
class Bench:
    """A queue, the fakes, and as many ingests as the test starts."""

    queue: SqsQueue
    fakes: IngestUpstreams

    def settings(self, **overrides: Any) -> CdcIngestSettings:
        """Settings with short times, so that tests end soon."""
        chosen: dict[str, Any] = {
            "sqs_queue_url": self.queue.url,
            "sqs_dlq_url": self.queue.dlq_url,
            "sqs_endpoint_url": self.queue.endpoint_url,
            "user_context_target": self.fakes.user_context_target,
            "queue_target": self.fakes.queue_target,
            "reconciler_target": self.fakes.reconciler_target,
            "receive_wait_seconds": 1,
            "visibility_seconds": VISIBILITY_SECONDS,
            "retry_first_seconds": 0.1,
            "retry_longest_seconds": 1.0,
            "drain_seconds": 5.0,
            # The fakes' facts show nothing of what messages tell, unless a test sees to it.
            "stale_patience_seconds": 0.0,
            "settle_seconds": 0.0,
            "pause_poll_seconds": 0.1,
        }
        return CdcIngestSettings(**{**chosen, **overrides})

    @staticmethod
    def change(
        table: str, data: object, before: object = None, operation: str = "update"
    ) -> dict[str, Any]:
        """A DMS record."""
        made: dict[str, Any] = {
            "data": data,
            "metadata": {"record-type": "data", "operation": operation, "table-name": table},
        }
        if before is not None:
            made["before-image"] = before
        return made

    @staticmethod
    def operator(parts: Parts) -> "Operator":
        """An operator's connection to a running ingest; use as a context manager."""
        return Operator(connect(parts.address, name="cdc_ingest", default_timeout_seconds=5.0))

    @asynccontextmanager
    async def running(self, **overrides: Any) -> AsyncIterator[Parts]:
        """Run an ingest in this process."""
        parts = await build(self.settings(**overrides))
        await parts.start()
        try:
            yield parts
        finally:
            await parts.stop()

    async def send(self, body: object, *, group: str | None = None, **attributes: str) -> None:
        """Send one message; a value that is not text is sent as JSON. FIFO queues need `group`."""
        text = body if isinstance(body, str) else json.dumps(body)
        fifo: dict[str, Any] = {}
        if group is not None:
            fifo = {"MessageGroupId": group, "MessageDeduplicationId": uuid.uuid4().hex}
        await asyncio.to_thread(
            self.queue.client.send_message,
            QueueUrl=self.queue.url,
            MessageBody=text,
            **fifo,
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value}
                for name, value in attributes.items()
            },
        )

    async def depth(self, url: str | None = None) -> int:
        """How many messages the queue holds, visible or not."""
        answer = await asyncio.to_thread(
            self.queue.client.get_queue_attributes,
            QueueUrl=url or self.queue.url,
            AttributeNames=["All"],
        )
        found = answer["Attributes"]
        visible = int(found["ApproximateNumberOfMessages"])
        return visible + int(found["ApproximateNumberOfMessagesNotVisible"])

    async def emptied(self) -> None:
        """Wait until the queue holds nothing."""
        await self.until_async(self.depth, 0)

    async def dead_letters(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait for dead letters and return body and attributes of each."""
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found) < count:
                answer = await asyncio.to_thread(
                    self.queue.client.receive_message,
                    QueueUrl=self.queue.dlq_url,
                    WaitTimeSeconds=1,
                    MaxNumberOfMessages=10,
                    MessageAttributeNames=["All"],
                )
                for message in answer.get("Messages", []):
                    attributes = message.get("MessageAttributes", {})
                    found.append(
                        {"body": message["Body"]}
                        | {name: value["StringValue"] for name, value in attributes.items()}
                    )
        return found

    async def seen_by_others(self) -> None:
        """Wait until another consumer could receive a message; leaves it where it is."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                answer = await asyncio.to_thread(
                    self.queue.client.receive_message,
                    QueueUrl=self.queue.url,
                    WaitTimeSeconds=2,
                    VisibilityTimeout=0,
                )
                if answer.get("Messages"):
                    return

    async def order_faults(self, action: str, *, requests: int = 0, entries: int = 0) -> None:
        """Have SQS fail the next requests of an action, or entries of its batches."""
        body = {"action": action, "requests": requests, "entries": entries}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.queue.endpoint_url}/_faults", json=body) as answer,
        ):
            assert answer.status == 204

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Wait until it is true; fails after a while."""

        async def ask() -> bool:
            return is_true()

        await self.until_async(ask, True)

    async def until_async(self, ask: Callable[[], Any], wanted: object) -> None:
        """Wait until the answer is the one wanted; fails after a while."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                if await ask() == wanted:
                    return
                await asyncio.sleep(0.005)


@pytest.fixture
async def fifo_bench(
    sqs_endpoint: SqsEndpoint, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Bench]:
    """The same with FIFO queues."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client = sqs_endpoint.client()
    queue = SqsQueue.create(sqs_endpoint, client, is_fifo=True)
    async with ingest_upstreams() as fakes:
        yield Bench(queue, fakes)
    queue.delete()
    client.close()


@pytest.fixture
async def bench(sqs_queue: SqsQueue, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A fresh queue and fresh fakes."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    async with ingest_upstreams() as fakes:
        yield Bench(sqs_queue, fakes)
