"""A double of binlog_relay: a fixed position."""

from dataclasses import dataclass
from typing import Any

from dialler.binlog_relay.v1 import binlog_relay_pb2, binlog_relay_pb2_grpc

from tests.fakes.recorded_calls import RecordingDouble


@dataclass
class FakeBinlogRelay(RecordingDouble, binlog_relay_pb2_grpc.BinlogRelayServiceServicer):
    """Replicas of a relay at a fixed position; the first `standbys` answers are a standby's."""

    standbys: int = 0

    async def GetPosition(self, request: Any, context: Any) -> Any:
        """Return the position."""
        await self.received("GetPosition", request)
        if self.standbys:
            self.standbys -= 1
            return binlog_relay_pb2.GetPositionResponse(file="binlog.000003", offset=4711)
        return binlog_relay_pb2.GetPositionResponse(active=True, file="binlog.000003", offset=4711)
