"""The events of the suite in one Redis stream, with positions a reader can resume from.

The stream is for speed, not for keeping: PostgreSQL's outbox is what does not lose an event. A
reader is told when it may have missed some, so that it can take a fresh snapshot.
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
from servicekit.spans import Kind

FIELD = b"event"
RETRY_AFTER_SECONDS = 1.0

_POSITION = re.compile(r"([0-9a-z]{1,64}):(\d{1,20})-(\d{1,20})")
_START = (0, 0)


@dataclass(frozen=True, slots=True, order=True)
class StreamPosition:
    """A place in the stream: after the entry `offset`, within one life (`epoch`) of the stream."""

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
    """Events after the position asked for may be lost; take a snapshot and go on from `now`."""


class EventStream:
    """Events in the order they were published; a repeated publication is a repeated event.

    Every method raises Unavailable (EVENT_STREAM_UNAVAILABLE) when Redis cannot answer. `redis`
    must return bytes, and its socket timeout must exceed the `block_seconds` of `read`.
    """

    def __init__(
        self, redis: Redis, key: str = "dialler:events", max_length: int = 100_000
    ) -> None:
        self._redis = redis
        # The tag puts both keys on one node of a cluster, as a transaction over them needs.
        self._key = f"{{{key}}}"
        self._epoch_key = f"{{{key}}}:epoch"
        self._max_length = max_length

    async def publish(self, events: Sequence[Event]) -> None:
        """Append the events in order, all or none, dropping the oldest above about `max_length`.

        An event of a sampled trace gets a span, from when it occurred, and its `traceparent`.
        """
        if not events:
            return
        with _redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(self._epoch_key, secrets.token_hex(8), nx=True)
                for event in events:
                    self._trace(event)
                    pipe.xadd(
                        self._key,
                        {FIELD: event.SerializeToString()},
                        maxlen=self._max_length,
                        approximate=True,
                    )
                await pipe.execute()

    def noted(self, event: Event, began_ns: int, receivers: int) -> None:
        """Add to the event's trace that a reader has passed it on to `receivers`."""
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

    def _trace(self, event: Event) -> None:
        if event.traceparent:
            sent = telemetry.note(
                f"send {self._key}",
                event.traceparent,
                kind=Kind.PRODUCER,
                start_ns=event.occurred_at.ToNanoseconds() or None,
                attributes=messaging.described("redis", "send", "send", self._key),
            )
            event.traceparent = sent or ""

    async def position(self) -> StreamPosition:
        """Return the end of the stream: reading on from there yields only what comes later."""
        with _redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(self._epoch_key, secrets.token_hex(8), nx=True)
                pipe.get(self._epoch_key)
                pipe.xinfo_stream(self._key)
                _, epoch, info = await pipe.execute(raise_on_error=False)
        life = _Life.of(epoch, info)
        return StreamPosition(life.epoch or "", _written(life.last))

    async def read(
        self, after: StreamPosition, *, block_seconds: float, count: int
    ) -> list[tuple[StreamPosition, Event]]:
        """Return up to `count` events after the position, waiting for the first if there is none.

        Returns an empty list after `block_seconds`; 0 does not wait. Raises StreamGap when the
        stream was emptied or replaced since, or events after the position have been dropped.
        """
        block = round(block_seconds * 1000) or None
        with _redis_errors():
            answer = await self._redis.xread({self._key: after.offset}, count=count, block=block)
            # Asked after reading: what holds now held when the entries were read.
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.get(self._epoch_key)
                pipe.xinfo_stream(self._key)
                epoch, info = await pipe.execute(raise_on_error=False)
        _Life.of(epoch, info).require(after)
        return [
            (StreamPosition(after.epoch, offset.decode()), Event.FromString(fields[FIELD]))
            for offset, fields in _entries(answer)
        ]


@dataclass(frozen=True, slots=True)
class _Life:
    """What Redis says of the stream at one moment."""

    epoch: str | None
    first: tuple[int, int] | None
    last: tuple[int, int]
    is_whole: bool

    @classmethod
    def of(cls, epoch: Any, info: Any) -> Self:
        for answer in (epoch, info):
            if isinstance(answer, Exception) and not _says_no_such_key(answer):
                raise _unavailable() from answer
        name = epoch.decode() if isinstance(epoch, bytes) else None
        if isinstance(info, Exception):
            return cls(name, None, _START, True)
        first = info["first-entry"]
        return cls(
            name,
            _parsed(first[0]) if first else None,
            _parsed(info["last-generated-id"]),
            # Redis before 7 does not count what was added: then any trimming is suspected.
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
        raise _unavailable() from error


def _unavailable() -> Unavailable:
    return Unavailable(
        "EVENT_STREAM_UNAVAILABLE",
        "the event stream cannot be reached",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def _says_no_such_key(error: Exception) -> bool:
    return isinstance(error, ResponseError) and "no such key" in str(error).lower()


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the entries of the one stream asked for, in RESP2's or RESP3's form of the answer."""
    if not answer:
        return []
    if isinstance(answer, dict):
        (batches,) = answer.values()
        return [entry for batch in batches for entry in _batch(batch)]
    ((_, entries),) = answer
    return list(entries)


def _batch(batch: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    return batch if isinstance(batch, list) else [batch]


def _parsed(offset: bytes | str) -> tuple[int, int]:
    text = offset.decode() if isinstance(offset, bytes) else offset
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)


def _written(offset: tuple[int, int]) -> str:
    return f"{offset[0]}-{offset[1]}"
