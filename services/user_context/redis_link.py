"""What the cache needs of a connection to Redis."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

Command = tuple[str | bytes | int, ...]
Reply = Any


# Keys that a server is asked to go through at once: a fraction of a millisecond.
KEYS_PER_SCAN = 1_000


class RedisAway(Exception):
    """Redis did not answer; what was asked may or may not have been done."""


class ReplyError(Exception):
    """Redis refused a command; the text is its own and begins with a code such as NOSCRIPT."""


class RedisLink(Protocol):
    """A way to one Redis, standalone or cluster."""

    @property
    def run(self) -> bytes:
        """Which run of the server answers, in 8 bytes: another after a restart or a failover.

        Never newer than the server that answers a command sent after looking.
        """
        ...

    async def execute(self, commands: Sequence[Command]) -> list[Reply]:
        """Send the commands together and return their replies, in order.

        Each command's first key decides where it runs. A refused command's reply is a ReplyError.
        Raises RedisAway.
        """
        ...

    def keys(self, pattern: str) -> AsyncIterator[Sequence[bytes]]:
        """Yield the keys that match, some perhaps twice; one that comes or goes may be missed.

        Raises RedisAway.
        """
        ...

    async def start(self) -> None:
        """Connect if that can be done; else the first command will."""
        ...

    async def stop(self) -> None:
        """Close; a later command raises RedisAway."""
        ...
