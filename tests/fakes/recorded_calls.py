"""The base of the doubles: recorded calls, and failures that a test has set."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from servicekit import deadline, telemetry
from servicekit.errors import Internal, InvalidArgument, ServiceError

# A moment in summer: 2025-06-02T09:00:00Z.
MOMENT_SECONDS = 1_748_854_800


@dataclass
class RecordedCall:
    """One call that a double has received."""

    method: str
    request: Any
    remaining_seconds: float | None
    trace_id: str | None


@dataclass
class RecordingDouble:
    """Records the calls it receives, and raises the failures that a test has set."""

    calls: list[RecordedCall] = field(default_factory=list)
    failures: dict[str, Exception] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)

    async def received(self, method: str, request: Message) -> None:
        """Record the call, wait for its gate if it has one, and raise its failure."""
        remaining = deadline.remaining_seconds()
        self.calls.append(RecordedCall(method, request, remaining, telemetry.trace_id()))
        if method in self.gates:
            await self.gates[method].wait()
        if method in self.failures:
            raise self.failures[method]

    def requests(self, method: str) -> list[Any]:
        """Return the requests of one method, oldest first."""
        return [call.request for call in self.calls if call.method == method]


@dataclass
class DoubleFaults:
    """How a double fails; `gate` holds every call until it is set again."""

    failure: ServiceError | None = None
    poison: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    entered: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def strike(self, user_ids: Iterable[int]) -> None:
        """Wait for the gate, then raise the failure, if there is one."""
        self.entered += 1
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        asked = set(user_ids)
        if asked & self.poison:
            raise InvalidArgument("USER_POISONOUS", "the user cannot be read")
        if asked & self.broken:
            raise Internal("USER_BROKEN", "the user cannot be read")
