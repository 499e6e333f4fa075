"""What all in-memory services have."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from servicekit import deadline, telemetry


@dataclass
class Call:
    """One call a fake has received."""

    method: str
    request: Any
    remaining_seconds: float | None
    trace_id: str | None


@dataclass
class Fake:
    """What all fakes have: the calls they got, and errors they are told to answer with."""

    calls: list[Call] = field(default_factory=list)
    failures: dict[str, Exception] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)

    async def received(self, method: str, request: Message) -> None:
        """Remember the call, wait for its gate if it has one, and raise its failure."""
        remaining = deadline.remaining_seconds()
        self.calls.append(Call(method, request, remaining, telemetry.trace_id()))
        if method in self.gates:
            await self.gates[method].wait()
        if method in self.failures:
            raise self.failures[method]

    def requests(self, method: str) -> list[Any]:
        """Return the requests of one method, oldest first."""
        return [call.request for call in self.calls if call.method == method]
