"""The gRPC channels to the services."""

from typing import TypeVar

import grpc.aio

from gateway.settings import GatewaySettings
from servicekit.client import connect
from servicekit.errors import Unavailable

T = TypeVar("T")

# The services retry among themselves; more attempts here would multiply theirs.
ATTEMPTS = 2


class Channels:
    """One channel for each service; None for a service whose address is not set.

    Every call may be repeated: reads change nothing, and writes carry a request id or are
    idempotent.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._seconds = settings.request_deadline_seconds
        self.user_context = self._to("user_context", settings.user_context_target)
        self.queue = self._to("queue", settings.queue_target)
        self.cdc_ingest = self._if_set("cdc_ingest", settings.cdc_ingest_target)
        self.reconciler = self._if_set("reconciler", settings.reconciler_target)
        self.binlog_relay = self._if_set("binlog_relay", settings.binlog_relay_target)

    async def close(self) -> None:
        """Close all."""
        for each in (
            self.user_context,
            self.queue,
            self.cdc_ingest,
            self.reconciler,
            self.binlog_relay,
        ):
            if each is not None:
                await each.close(None)

    def _if_set(self, name: str, target: str | None) -> grpc.aio.Channel | None:
        return None if target is None else self._to(name, target)

    def _to(self, name: str, target: str) -> grpc.aio.Channel:
        return connect(target, name=name, default_timeout_seconds=self._seconds, attempts=ATTEMPTS)


def configured(stub: T | None) -> T:
    """Return the stub; raises Unavailable (NOT_CONFIGURED) for a service without an address."""
    if stub is None:
        raise Unavailable("NOT_CONFIGURED", "the gateway has no address for this service")
    return stub
