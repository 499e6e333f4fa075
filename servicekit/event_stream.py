"""The events of the suite in one Redis stream, with positions from which a reader can resume.

The stream is fast and may lose events; PostgreSQL's outbox does not. A reader that may have missed
events gets StreamGap, so that it can take a fresh snapshot.

It is part of servicekit because the queue publishes and the gateway reads, and neither may import
the other: both need one form of the entries and positions. The contract itself is
`dialler.model.v1.Event`.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from dialler.model.v1.event_pb2 import Event, EventType
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from servicekit import messaging, telemetry
from servicekit.errors import InvalidArgument, Unavailable
from servicekit.redis_client import RedisRefuses
from servicekit.spans import Kind

FIELD = b"event"
RETRY_AFTER_SECONDS = 1.0

_POSITION = re.compile(r"([0-9a-z]{1,64}):(\d{1,20})-(\d{1,20})")
_START = (0, 0)


@dataclass(frozen=True, slots=True, order=True)
class StreamPosition:
    """A place in the stream: after the entry `offset`, within one `epoch` of the stream."""

    epoch: str
    offset: str

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position that `str` gave; raises InvalidArgument for any other text."""
        match = _POSITION.fullmatch(text)
        if match is None:
            raise InvalidArgument("STREAM_POSITION_MALFORMED", "not a position of the stream")
        return cls(match[1], f"{match[2]}-{match[3]}")


class StreamGap(Exception):
    """Events after the given position may be lost; take a snapshot and resume from `position()`."""


class EventStream:
    """Events in the order they were published; an event that is published twice is in it twice.

    Every method raises Unavailable (EVENT_STREAM_UNAVAILABLE) when Redis cannot answer or refuses
    writes; the metadata has the code under `redis`, such as READONLY or UNREACHABLE. `redis` is
    made by `redis_client` and returns bytes; its socket timeout exceeds the `block_seconds` of
    `read`.
    """

    def __init__(
        self, redis: Redis, key: str = "dialler:events", max_length: int = 100_000
    ) -> None:
        self._redis = redis
        # The tag puts both keys on one node of a cluster, as a transaction over them needs.
        self._key = f"{{{key}}}"
        self._epoch_key = f"{{{key}}}:epoch"
        self._check_key = f"{{{key}}}:takes-writes"
        self._max_length = max_length

    async def publish(self, events: Sequence[Event]) -> None:
        """Append the events in order, all or none, and drop the oldest above about `max_length`.

        An event of a sampled trace gets a span, from when it occurred, and the `traceparent` of it.
        """
        if not events:
            return
        with _redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(self._epoch_key, secrets.token_hex(8), nx=True)
                for event in events:
                    if event.traceparent:
                        sent = telemetry.note(
                            f"send {self._key}",
                            event.traceparent,
                            kind=Kind.PRODUCER,
                            start_ns=event.occurred_at.ToNanoseconds() or None,
                            attributes=messaging.described("redis", "send", "send", self._key),
                        )
                        event.traceparent = sent or ""
                    pipe.xadd(
                        self._key,
                        {FIELD: event.SerializeToString()},
                        maxlen=self._max_length,
                        approximate=True,
                    )
                await pipe.execute()

    def trace_delivery(self, event: Event, began_ns: int, receivers: int) -> None:
        """Add a span to the event's trace for its delivery to `receivers`, begun at `began_ns`."""
        if event.traceparent:
            attributes = messaging.described("redis", "process", "process", self._key)
            attributes["dialler.receivers"] = receivers
            attributes["dialler.event.type"] = EventType.Name(event.type)
            telemetry.note(
                f"process {self._key}",
                event.traceparent,
                kind=Kind.CONSUMER,
                start_ns=began_ns,
                attributes=attributes,
            )

    async def position(self) -> StreamPosition:
        """Return the end of the stream: a read from there yields only later events."""
        with _redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(self._epoch_key, secrets.token_hex(8), nx=True)
                pipe.get(self._epoch_key)
                pipe.xinfo_stream(self._key)
                pipe.info("replication")
                _, *replies = await pipe.execute(raise_on_error=False)
        state = _StreamState.of(*replies)
        return StreamPosition(state.epoch or "", f"{state.last[0]}-{state.last[1]}")

    async def read(
        self, after: StreamPosition, *, block_seconds: float, count: int
    ) -> list[tuple[StreamPosition, Event]]:
        """Return up to `count` events after the position; waits up to `block_seconds` for one.

        Returns an empty list when no event comes; 0 does not wait. Raises StreamGap when the stream
        was emptied or replaced since, or events after the position have been dropped.
        """
        block = round(block_seconds * 1000) or None
        with _redis_errors():
            answer: Any = await self._redis.xread(
                {self._key: after.offset}, count=count, block=block
            )
            # Checked after reading: what holds now held when the entries were read.
            async with self._redis.pipeline(transaction=True) as pipe:
                # Changes nothing. A demoted server goes on answering reads on open connections,
                # but refuses this write; its stream gets no more entries.
                pipe.lpushx(self._check_key, b"")
                pipe.get(self._epoch_key)
                pipe.xinfo_stream(self._key)
                pipe.info("replication")
                _, *replies = await pipe.execute(raise_on_error=False)
        _StreamState.of(*replies).require(after)
        entries: list[tuple[bytes, dict[bytes, bytes]]] = []
        if isinstance(answer, dict):
            # RESP3: the stream is mapped to lists of entries, or to entries.
            for batches in answer.values():
                for batch in batches:
                    entries += batch if isinstance(batch, list) else [batch]
        elif answer:
            ((_, entries),) = answer
        return [
            (StreamPosition(after.epoch, offset.decode()), Event.FromString(fields[FIELD]))
            for offset, fields in entries
        ]


@dataclass(frozen=True, slots=True)
class _StreamState:
    """The state of the stream in Redis at one moment.

    The epoch names the stream and the server's time as primary: a server that has taken over may
    lack the last entries of its predecessor, which only the epoch shows once there are newer ones.
    """

    epoch: str | None
    first: tuple[int, int] | None
    last: tuple[int, int]
    is_whole: bool

    @classmethod
    def of(cls, epoch: Any, info: Any, replication: Any) -> Self:
        for answer in (epoch, info, replication):
            if isinstance(answer, Exception):
                is_absent = (
                    isinstance(answer, ResponseError) and "no such key" in str(answer).lower()
                )
                if not is_absent:
                    raise _unavailable(answer) from answer
        primary = str(replication.get("master_replid", ""))
        name = epoch.decode() + primary if isinstance(epoch, bytes) else None
        if isinstance(info, Exception):
            return cls(name, None, _START, True)
        first = info["first-entry"]
        return cls(
            name,
            _parsed(first[0]) if first else None,
            _parsed(info["last-generated-id"]),
            # Redis before 7 does not count added entries: entries may then have been trimmed.
            info.get("entries-added", -1) == info["length"],
        )

    def require(self, after: StreamPosition) -> None:
        """Raise StreamGap unless nothing after `after` has been lost."""
        offset = _parsed(after.offset)
        if self.epoch != after.epoch or offset > self.last:
            raise StreamGap(f"the stream is not the one of {after.epoch}")
        reached = self.first is not None and self.first <= offset
        if not (reached or self.is_whole or offset == self.last):
            raise StreamGap(f"events after {after.offset} have been dropped")


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> Unavailable:
    refused = error.code if isinstance(error, RedisRefuses) else None
    code = refused or getattr(error, "status_code", None) or "UNREACHABLE"
    return Unavailable(
        "EVENT_STREAM_UNAVAILABLE",
        f"the event stream cannot be used: {code}",
        retry_after_seconds=RETRY_AFTER_SECONDS,
        redis=code,
    )


def _parsed(offset: bytes | str) -> tuple[int, int]:
    text = offset.decode() if isinstance(offset, bytes) else offset
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)
