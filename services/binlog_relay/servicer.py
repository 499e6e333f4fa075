"""The relay's RPCs."""

from dialler.binlog_relay.v1 import binlog_relay_pb2, binlog_relay_pb2_grpc

from services.binlog_relay.worker import BinlogRelay


class BinlogRelayServicer(binlog_relay_pb2_grpc.BinlogRelayServiceServicer):
    """Answers with the state of the relay."""

    def __init__(self, relay: BinlogRelay) -> None:
        self._relay = relay

    async def GetPosition(
        self, request: binlog_relay_pb2.GetPositionRequest, context: object
    ) -> binlog_relay_pb2.GetPositionResponse:
        """Return the saved position and what has been published."""
        resources = self._relay.resources
        saved = await resources.store.read()
        answer = binlog_relay_pb2.GetPositionResponse(
            active=self._relay.is_active,
            records_published=resources.progress.records,
            messages_published=resources.progress.messages,
            gaps=resources.full_runs.gaps,
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
