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
from redis.exceptions import RedisError

from servicekit import messaging, telemetry
from servicekit.errors import InvalidArgument, Unavailable
from servicekit.redis_client import RedisClient, failure_code
from servicekit.spans import Kind

FIELD = b"event"
RETRY_AFTER_SECONDS = 1.0

_POSITION = re.compile(r"([0-9a-z]{1,64}):(\d{1,20})-(\d{1,20})")
_PRIMARY = re.compile(rb"master_replid:(\w+)")
_START = (0, 0)

# Scripts, since they are transactions on one server and in a cluster alike.
# KEYS: stream, epoch. ARGV: a new epoch, the length, events.
_PUBLISH = f"""
redis.call('SET', KEYS[2], ARGV[1], 'NX')
for place = 3, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', '{FIELD.decode()}', ARGV[place])
end
"""
# KEYS: stream, epoch, a list that is not there. ARGV: a new epoch, if it is to begin.
_STATE = """
-- Changes nothing. A demoted server goes on answering reads on open connections, but refuses this
-- write; its stream gets no more entries.
redis.call('LPUSHX', KEYS[3], '')
if ARGV[1] then redis.call('SET', KEYS[2], ARGV[1], 'NX') end
local exists = redis.call('EXISTS', KEYS[1]) == 1
return {
  redis.call('GET', KEYS[2]),
  exists and redis.call('XINFO', 'STREAM', KEYS[1]),
  redis.call('INFO', 'replication'),
}
"""


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
        self, redis: RedisClient, key: str = "dialler:events", max_length: int = 100_000
    ) -> None:
        self._redis = redis
        # The tag puts the keys on one node of a cluster, as scripts need.
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
        written = (event.SerializeToString() for event in events)
        with _redis_errors():
            await self._redis.eval(
                _PUBLISH, 2, self._key, self._epoch_key, _new_epoch(), self._max_length, *written
            )

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
            state = await self._state(_new_epoch())
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
            state = await self._state()
        state.require(after)
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

    async def _state(self, *new_epoch: str) -> "_StreamState":
        keys = (self._key, self._epoch_key, self._check_key)
        return _StreamState.of(*await self._redis.eval(_STATE, len(keys), *keys, *new_epoch))


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
    def of(cls, epoch: bytes | None, stream: list[Any] | None, replication: bytes) -> Self:
        """Return the state that the script found."""
        primary = _PRIMARY.search(replication)
        name = (epoch + (primary[1] if primary else b"")).decode() if epoch else None
        if stream is None:
            return cls(name, None, _START, True)
        info = dict(zip(stream[::2], stream[1::2], strict=True))
        first = info[b"first-entry"]
        return cls(
            name,
            _parsed(first[0]) if first else None,
            _parsed(info[b"last-generated-id"]),
            # Redis before 7 does not count added entries: entries may then have been trimmed.
            info.get(b"entries-added", -1) == info[b"length"],
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
    code = failure_code(error)
    return Unavailable(
        "EVENT_STREAM_UNAVAILABLE",
        f"the event stream cannot be used: {code}",
        retry_after_seconds=RETRY_AFTER_SECONDS,
        redis=code,
    )


def _new_epoch() -> str:
    return secrets.token_hex(8)


def _parsed(offset: bytes | str) -> tuple[int, int]:
    text = offset.decode() if isinstance(offset, bytes) else offset
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)
