"""The interface of a connection to Redis, as the cache needs it."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

Command = tuple[str | bytes | int, ...]
Reply = Any

# Keys that one SCAN reads, which takes a fraction of a millisecond.
KEYS_PER_SCAN = 1_000

UNREACHABLE = "UNREACHABLE"


class RedisUnavailable(Exception):
    """Redis did not answer, or refuses all commands; the command may have been executed.

    `code` is one word: the server's, such as READONLY, or UNREACHABLE.
    """

    def __init__(self, message: str, code: str = UNREACHABLE) -> None:
        super().__init__(message)
        self.code = code


def refused(code: str) -> RedisUnavailable:
    """Return the error for a server that answers and refuses."""
    return RedisUnavailable(f"the server refuses: {code}", code)


class ReplyError(Exception):
    """Redis refused a command; the text is the server's and begins with a code such as NOSCRIPT."""


class RedisLink(Protocol):
    """A way to one Redis, standalone or cluster."""

    @property
    def run(self) -> bytes:
        """The run of the server that answers, in 8 bytes: another after a restart or a failover.

        Never newer than the server that answers a command sent after reading it.
        """
        ...

    @property
    def reconnects(self) -> int:
        """How often a connection has been made anew; what happened in between is not known."""
        ...

    async def confirm(self) -> None:
        """Return when the server is still of that run and takes writes. Raises RedisUnavailable."""
        ...

    async def execute(self, commands: Sequence[Command]) -> list[Reply]:
        """Send the commands together and return their replies, in order.

        Each command's first key decides where it runs. A refused command's reply is a ReplyError.
        Raises RedisUnavailable, also where only a write would be refused: a demoted server's copies
        may be out of date.
        """
        ...

    def keys(self, pattern: str) -> AsyncIterator[Sequence[bytes]]:
        """Yield the keys that match, some perhaps twice; a key added or removed may be missed.

        Raises RedisUnavailable.
        """
        ...

    async def start(self) -> None:
        """Connect if Redis answers; otherwise the first command connects."""
        ...

    async def stop(self) -> None:
        """Close; a later command raises RedisUnavailable."""
        ...
