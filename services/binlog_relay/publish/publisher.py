"""Sends to SQS until every record is taken or finally refused."""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from servicekit import messaging, telemetry
from servicekit.backoff import Backoff
from servicekit.spans import Attribute, Kind
from services.binlog_relay import metrics
from services.binlog_relay.domain.packing import PackedMessage, RowChange
from services.binlog_relay.publish.dms import probe_record

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import (
        MessageAttributeValueTypeDef,
        SendMessageBatchRequestEntryTypeDef,
    )

_log = logging.getLogger(__name__)

# Of SendMessageBatch and of its entries; the older protocol puts a prefix before them.
_SIZE_CODES: Final = re.compile(r"(TooLong|TooManyEntriesInBatchRequest|RequestEntityTooLarge)$")
_QUEUE_CODES: Final = re.compile(
    r"Throttl|OverLimit|Kms|KMS|AccessDenied|Token|Signature|Expired|QueueDoesNotExist|NonExistent"
)


class _FailureCause(Enum):
    """What caused a failure; an uncertain one is the record's if SQS takes other records."""

    QUEUE = "queue"
    SIZE = "size"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class _OutgoingMessage:
    """A message with its SendMessageBatch entry, which carries the trace.

    `refused_after` is how many requests had been taken when it was first refused alone.
    """

    message: PackedMessage
    entry: "SendMessageBatchRequestEntryTypeDef"
    refused_after: int | None = None


@dataclass(frozen=True, slots=True)
class _Failed:
    outgoing: Sequence[_OutgoingMessage]
    code: str
    cause: _FailureCause


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
        self._backoff = Backoff(0.1, retry_longest_seconds)
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
        self._requests_taken = 0

    @property
    def is_failing(self) -> bool:
        """Whether the queue has failed since it last took something, or takes not even a probe."""
        return self._failures > 0

    async def publish(self, messages: Sequence[PackedMessage]) -> list[str]:
        """Return once SQS has taken or finally refused every record; return the refusals' codes.

        A refused request is sent again in halves, down to a single record, which goes behind the
        others. A record refused again after SQS took something else, be it a probe, is given up; a
        too long one at once. Every other failure is retried without end, with backoff.
        """
        waiting = deque([self._outgoing(messages)])
        refused: list[str] = []
        attempt = uncertain = 0
        while waiting:
            taken_before, is_to_pause = self._requests_taken, False
            for failed in await self._send(waiting.popleft()):
                outgoing = failed.outgoing
                if failed.cause is _FailureCause.QUEUE:
                    waiting.append(outgoing)
                    is_to_pause = True
                    continue
                middle = len(outgoing) // 2
                halves = [outgoing[:middle], outgoing[middle:]]
                if not middle:
                    halves = [self._outgoing([half]) for half in outgoing[0].message.halves()]
                if halves:
                    waiting.extendleft(reversed(halves))
                    continue
                [only] = outgoing
                after = only.refused_after
                may_pass = after is None or self._requests_taken <= after
                if failed.cause is _FailureCause.UNCERTAIN and may_pass:
                    if after is None:
                        only = replace(only, refused_after=self._requests_taken)
                    waiting.append([only])
                    uncertain += 1
                    continue
                extra = {"code": failed.code, "size_bytes": only.message.size_bytes}
                _log.error("record_given_up", extra=extra)
                refused.append(failed.code)
            if self._requests_taken > taken_before:
                uncertain = 0
            if uncertain and uncertain >= len(waiting):
                uncertain = 0
                is_to_pause = is_to_pause or not await self._is_probe_taken(waiting[0][0].message)
            if is_to_pause:
                attempt += 1
                await asyncio.sleep(self._backoff.delay_seconds(attempt))
        return refused

    async def close(self) -> None:
        """Wait for the threads and close the connections."""
        await asyncio.to_thread(self._threads.shutdown)
        self._client.close()

    def _outgoing(self, messages: Iterable[PackedMessage]) -> Sequence[_OutgoingMessage]:
        """Begin the trace of each message."""
        described: dict[str, Attribute] = messaging.described(
            "aws_sqs", "create", "create", self._destination
        )
        found = []
        for message in messages:
            # From the commit, where the server gives a fraction: MariaDB gives whole seconds.
            began_us = message.committed_at_us
            if began_us % 1_000_000 == 0:
                began_us = message.captured_at_us
            with telemetry.span(
                f"create {self._destination}",
                kind=Kind.PRODUCER,
                start_ns=began_us * 1000,
                attributes=described | {"dialler.records": message.rows},
                may_last=True,
            ) as created:
                traceparent = created.traceparent
            attributes: dict[str, MessageAttributeValueTypeDef] = {
                "captured_at_us": _attribute("Number", str(message.captured_at_us)),
                "committed_at_us": _attribute("Number", str(message.committed_at_us)),
                "source": _attribute("String", "binlog_relay"),
                "traceparent": _attribute("String", traceparent),
            }
            if message.unsent_since_us is not None:
                since = str(message.unsent_since_us)
                attributes["unsent_since_us"] = _attribute("Number", since)
            if message.is_bulk:
                attributes["bulk"] = _attribute("String", "true")
            entry: SendMessageBatchRequestEntryTypeDef = {
                "Id": "0",
                "MessageBody": message.body(),
                "MessageAttributes": attributes,
            }
            found.append(_OutgoingMessage(message, entry))
        return found

    async def _is_probe_taken(self, uncertain: PackedMessage) -> bool:
        """Return whether the queue takes a record without meaning, where it refuses another one.

        Without a probe a lone refused record would have to wait for others, which may wait for it,
        as heartbeats do.
        """
        body = probe_record(uncertain.captured_at_us)
        probe = PackedMessage(
            [RowChange(body, uncertain.captured_at_us, uncertain.committed_at_us)]
        )
        failed = await self._send(self._outgoing([probe]))
        if failed and failed[0].cause is not _FailureCause.QUEUE:
            self._note_failure(failed[0].code)
        return not failed

    async def _send(self, outgoing: Sequence[_OutgoingMessage]) -> list[_Failed]:
        """Send one request; return the messages that were not taken."""
        entries = [each.entry.copy() for each in outgoing]
        for number, entry in enumerate(entries):
            entry["Id"] = str(number)
        described = messaging.described("aws_sqs", "send", "send", self._destination, len(entries))
        traces = [entry["MessageAttributes"]["traceparent"].get("StringValue") for entry in entries]

        def request() -> Any:
            with telemetry.shared(
                f"send {self._destination}", traces, kind=Kind.CLIENT, attributes=described
            ):
                return self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)

        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, request)
        except (BotoCoreError, ClientError) as error:
            cause, code = _cause_of_error(error)
            metrics.SEND_FAILURES.labels(code).inc()
            if cause is _FailureCause.QUEUE:
                self._note_failure(code)
            return [_Failed(outgoing, code, cause)]
        if answer.get("Successful"):
            self._failures = 0
            self._requests_taken += 1
        elif not all(entry["SenderFault"] for entry in answer.get("Failed", [])):
            self._note_failure(answer["Failed"][0]["Code"])
        causes: dict[tuple[str, _FailureCause], list[_OutgoingMessage]] = {}
        for entry in answer.get("Failed", []):
            metrics.SEND_FAILURES.labels(entry["Code"]).inc()
            cause = _cause(entry["Code"], is_senders=entry["SenderFault"])
            causes.setdefault((entry["Code"], cause), []).append(outgoing[int(entry["Id"])])
        return [_Failed(each, code, cause) for (code, cause), each in causes.items()]

    def _note_failure(self, code: str) -> None:
        self._failures += 1
        if self._failures == 1:
            _log.error("send_failed", extra={"code": code})


def _attribute(kind: str, value: str) -> "MessageAttributeValueTypeDef":
    return {"DataType": kind, "StringValue": value}


def _cause_of_error(error: BotoCoreError | ClientError) -> tuple[_FailureCause, str]:
    """Return the cause of a failed request, and its code."""
    if not isinstance(error, ClientError):
        return _FailureCause.QUEUE, type(error).__name__
    code = str(error.response.get("Error", {}).get("Code", "ClientError"))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
    if status == 413:
        return _FailureCause.SIZE, code
    is_senders = status // 100 == 4 and status not in (408, 429)
    return _cause(code, is_senders=is_senders), code


def _cause(code: str, *, is_senders: bool) -> _FailureCause:
    if not is_senders or _QUEUE_CODES.search(code):
        return _FailureCause.QUEUE
    return _FailureCause.SIZE if _SIZE_CODES.search(code) else _FailureCause.UNCERTAIN
