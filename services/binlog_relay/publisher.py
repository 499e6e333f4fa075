"""Sending to SQS until every entry has been taken."""

import asyncio
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from servicekit import messaging, telemetry
from servicekit.spans import Attribute, Kind
from services.binlog_relay import metrics
from services.binlog_relay.domain.packing import Message

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import (
        MessageAttributeValueTypeDef,
        SendMessageBatchRequestEntryTypeDef,
    )

_log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.05


class Publisher:
    """Sends messages by SendMessageBatch from a few threads of its own."""

    def __init__(
        self,
        queue_url: str,
        *,
        endpoint_url: str | None,
        region: str,
        sends_in_flight: int,
        retry_longest_seconds: float,
    ) -> None:
        self._queue_url = queue_url
        self._destination = messaging.destination(queue_url)
        self._longest_pause_seconds = retry_longest_seconds
        self._threads = ThreadPoolExecutor(sends_in_flight, "send")
        self._client: SQSClient = boto3.client(
            "sqs",
            endpoint_url=endpoint_url,
            region_name=region,
            config=Config(
                # Retries are ours: after half a batch has been taken only the rest is sent again.
                retries={"max_attempts": 0},
                connect_timeout=3,
                read_timeout=10,
                tcp_keepalive=True,
                max_pool_connections=sends_in_flight,
            ),
        )
        self._failures = 0

    @property
    def is_failing(self) -> bool:
        """Whether the last request was not answered, or not well."""
        return self._failures > 0

    async def publish(self, messages: Sequence[Message]) -> list[str]:
        """Return once SQS has every message; entries it can never take give their codes back.

        Retries without end and with growing pauses; cancel it to give up.
        """
        waiting = [
            _entry(number, message, self._destination) for number, message in enumerate(messages)
        ]
        refused: list[str] = []
        attempt = 0
        while waiting:
            waiting, codes = await self._send(waiting)
            refused.extend(codes)
            if waiting:
                attempt += 1
                await asyncio.sleep(self._pause_seconds(attempt))
        return refused

    async def close(self) -> None:
        """Wait for the threads and close the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        self._client.close()

    async def _send(
        self, entries: "Sequence[SendMessageBatchRequestEntryTypeDef]"
    ) -> "tuple[list[SendMessageBatchRequestEntryTypeDef], list[str]]":
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(self._threads, self._request, entries)
        except (BotoCoreError, ClientError) as error:
            self._failed(_code(error))
            return list(entries), []
        self._failures = 0
        failed = {entry["Id"]: entry for entry in answer.get("Failed", [])}
        taken = {entry["Id"] for entry in answer.get("Successful", [])}
        refused = [entry["Code"] for entry in failed.values() if entry["SenderFault"]]
        for entry in failed.values():
            metrics.SEND_FAILURES.labels(entry["Code"]).inc()
        final = taken | {key for key, entry in failed.items() if entry["SenderFault"]}
        return [entry for entry in entries if entry["Id"] not in final], refused

    def _request(self, entries: "Sequence[SendMessageBatchRequestEntryTypeDef]") -> Any:
        described = messaging.described("aws_sqs", "send", "send", self._destination, len(entries))
        traces = [_traceparent(entry) for entry in entries]
        with telemetry.shared(
            f"send {self._destination}", traces, kind=Kind.CLIENT, attributes=described
        ):
            return self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)

    def _failed(self, code: str) -> None:
        metrics.SEND_FAILURES.labels(code).inc()
        self._failures += 1
        if self._failures == 1:
            _log.error("send_failed", extra={"code": code})

    def _pause_seconds(self, attempt: int) -> float:
        longest = min(self._longest_pause_seconds, _FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 16))
        # Spreading retries needs no secrecy.
        return longest * random.uniform(0.5, 1.0)  # noqa: S311


def _entry(
    number: int, message: Message, destination: str
) -> "SendMessageBatchRequestEntryTypeDef":
    described: dict[str, Attribute] = messaging.described(
        "aws_sqs", "create", "create", destination
    )
    described["dialler.records"] = len(message.changes)
    # From the commit, where the server tells it finely: MariaDB does so to the second.
    began_us = message.committed_at_us
    if began_us % 1_000_000 == 0:
        began_us = message.captured_at_us
    with telemetry.span(
        f"create {destination}",
        kind=Kind.PRODUCER,
        start_ns=began_us * 1000,
        attributes=described,
        may_last=True,
    ) as created:
        traceparent = created.traceparent
    attributes: dict[str, MessageAttributeValueTypeDef] = {
        "captured_at_us": {"DataType": "Number", "StringValue": str(message.captured_at_us)},
        "committed_at_us": {"DataType": "Number", "StringValue": str(message.committed_at_us)},
        "source": {"DataType": "String", "StringValue": "binlog_relay"},
    }
    attributes["traceparent"] = {"DataType": "String", "StringValue": traceparent}
    return {"Id": str(number), "MessageBody": message.body(), "MessageAttributes": attributes}


def _traceparent(entry: "SendMessageBatchRequestEntryTypeDef") -> str | None:
    attribute = entry.get("MessageAttributes", {}).get("traceparent")
    return None if attribute is None else attribute.get("StringValue")


def _code(error: BotoCoreError | ClientError) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "ClientError"))
    return type(error).__name__
