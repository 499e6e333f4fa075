"""The relay's RPCs."""

from datetime import datetime
from typing import Protocol

from dialler.binlog_relay.v1 import binlog_relay_pb2, binlog_relay_pb2_grpc

from services.binlog_relay.store import Saved


class RelayState(Protocol):
    """What a relay can say about itself."""

    @property
    def is_active(self) -> bool:
        """Whether this copy holds the lock."""
        ...

    @property
    def records_published(self) -> int:
        """Records published since the process started."""
        ...

    @property
    def messages_published(self) -> int:
        """Messages published since the process started."""
        ...

    @property
    def gaps(self) -> int:
        """Times changes could not be followed row by row, since the process started."""
        ...

    @property
    def last_event_at(self) -> datetime | None:
        """When the newest event was read, heartbeats included."""
        ...

    async def saved(self) -> Saved:
        """Return the position as it is stored."""
        ...


class BinlogRelayServicer(binlog_relay_pb2_grpc.BinlogRelayServiceServicer):
    """Tells where the relay stands."""

    def __init__(self, relay: RelayState) -> None:
        self._relay = relay

    async def GetPosition(
        self, request: binlog_relay_pb2.GetPositionRequest, context: object
    ) -> binlog_relay_pb2.GetPositionResponse:
        """Return the saved position and what has been published."""
        saved = await self._relay.saved()
        answer = binlog_relay_pb2.GetPositionResponse(
            active=self._relay.is_active,
            records_published=self._relay.records_published,
            messages_published=self._relay.messages_published,
            gaps=self._relay.gaps,
        )
        if saved.position is not None:
            answer.file = saved.position.file
            answer.offset = saved.position.offset
            answer.gtid = saved.position.gtid
        if saved.saved_at is not None:
            answer.saved_at.FromDatetime(saved.saved_at)
        last_event_at = self._relay.last_event_at
        if last_event_at is not None:
            answer.last_event_at.FromDatetime(last_event_at)
        return answer
