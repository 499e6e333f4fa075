"""Heartbeats tell silence from a lack of changes, and never say too much."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from dialler.cdc_ingest.v1 import cdc_ingest_pb2, cdc_ingest_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from devstack.servers import MariaDB
from servicekit.client import connect
from services.cdc_ingest.app import build
from services.cdc_ingest.settings import CdcIngestSettings
from tests.fakes.upstreams import IngestUpstreams, ingest_upstreams
from tests.integration.binlog_relay.bench import Received, RelayBench

pytestmark = pytest.mark.integration

OFTEN: Final[dict[str, Any]] = {"capture_heartbeat_seconds": 0.05, "heartbeat_seconds": 0.05}


def _heartbeats(received: Received) -> list[dict[str, Any]]:
    return [r for r in received.records if r["metadata"]["operation"] == "heartbeat"]


async def test_an_idle_source_gets_heartbeats(bench: RelayBench) -> None:
    began_at = datetime.now(UTC)
    async with bench.relay(**OFTEN):
        received = await bench.receive(lambda so_far: len(_heartbeats(so_far)) >= 3)
    first, second, third = (each["metadata"] for each in _heartbeats(received)[:3])
    assert set(first) >= {"timestamp", "commit-timestamp", "record-type", "operation"}
    assert first["record-type"] == "control"
    times = [datetime.fromisoformat(each["timestamp"]) for each in (first, second, third)]
    assert began_at < times[0] < times[1] < times[2] < datetime.now(UTC)
    told = int(received.attributes[0]["captured_at_us"])
    assert datetime.fromtimestamp(told / 1e6, UTC).isoformat()[:26] == first["timestamp"][:26]


async def test_a_heartbeat_comes_after_all_that_was_read_before_it(bench: RelayBench) -> None:
    # Each message a change: many sends overlap, and end in any order.
    slowly: dict[str, Any] = {"max_records_per_message": 1, "sends_in_flight": 4}
    async with bench.relay(**OFTEN, **slowly):
        await bench.add_users(range(1, 401))
        received = await bench.receive(lambda so_far: len(set(so_far.ids())) == 400)
        await bench.receive(lambda so_far: bool(_heartbeats(so_far)), received)
    behind: float = float("inf")
    for record in reversed(received.records):
        captured = datetime.fromisoformat(record["metadata"]["timestamp"]).timestamp()
        if record["metadata"]["operation"] == "heartbeat":
            assert captured < behind, "what comes after a heartbeat was captured after it"
        else:
            behind = min(behind, captured)


async def test_a_source_that_is_gone_gets_no_heartbeats(
    bench_of_own_mariadb: RelayBench, own_mariadb: MariaDB
) -> None:
    bench = bench_of_own_mariadb
    async with bench.relay(**OFTEN):
        received = await bench.receive(lambda so_far: bool(_heartbeats(so_far)))
        await asyncio.to_thread(own_mariadb.stop)
        gone_at = datetime.now(UTC)
        # Each look waits a second for more to come.
        for _ in range(3):
            await asyncio.to_thread(bench.receive_some, received)
    told = [datetime.fromisoformat(r["metadata"]["timestamp"]) for r in _heartbeats(received)]
    assert max(told) < gone_at


async def test_none_are_sent_when_they_are_turned_off(bench: RelayBench) -> None:
    async with bench.relay(heartbeat_seconds=0.05, capture_heartbeat_seconds=0):
        received = Received()
        await asyncio.to_thread(bench.receive_some, received)
    assert received.records == []


async def test_an_ingest_tells_silence_from_being_behind(bench: RelayBench) -> None:
    async with ingest_upstreams() as fakes, _ingest(bench, fakes) as status, bench.relay(**OFTEN):
        await bench.until(lambda: _is_alive(status))
        idle = await status()
        assert (idle.records, idle.records_ignored, idle.messages_dead) == (0, 0, 0)
        fakes.queue.faults.gate.clear()
        # MariaDB tells commits by the second.
        before = datetime.now(UTC).replace(microsecond=0)
        await bench.add_users([1])
        await bench.until(lambda: _true(fakes.queue.faults.entered > 0))
        changed_at = datetime.now(UTC)
        await bench.until(lambda: _is_alive(status, since=changed_at))
        behind = await status()
        assert before <= _utc(behind.applied_through) <= changed_at, "one is not applied yet"
        fakes.queue.faults.gate.set()
        await bench.until(lambda: _is_through(status, changed_at))


Status = Callable[[], Awaitable[cdc_ingest_pb2.GetStatusResponse]]


@asynccontextmanager
async def _ingest(bench: RelayBench, fakes: IngestUpstreams) -> AsyncIterator[Status]:
    settings = CdcIngestSettings(
        sqs_queue_url=bench.queue.url,
        sqs_dlq_url=bench.queue.dlq_url,
        sqs_endpoint_url=bench.queue.endpoint_url,
        user_context_target=fakes.user_context_target,
        queue_target=fakes.queue_target,
        reconciler_target=fakes.reconciler_target,
        receive_wait_seconds=1,
        settle_seconds=0,
        stale_patience_seconds=0,
        drain_seconds=5,
    )
    parts = await build(settings)
    await parts.start()
    channel = connect(parts.address, name="cdc_ingest", default_timeout_seconds=5)
    stub = cdc_ingest_pb2_grpc.CdcIngestServiceStub(channel)

    async def status() -> cdc_ingest_pb2.GetStatusResponse:
        return await stub.GetStatus(cdc_ingest_pb2.GetStatusRequest())

    try:
        yield status
    finally:
        await channel.close(None)
        await parts.stop()


async def _is_alive(status: Status, since: datetime | None = None) -> bool:
    found = await status()
    is_told = found.HasField("capture_alive_at")
    return is_told and (since is None or _utc(found.capture_alive_at) > since)


async def _is_through(status: Status, moment: datetime) -> bool:
    return _utc((await status()).applied_through) > moment


async def _true(value: bool) -> bool:
    return value


def _utc(moment: Timestamp) -> datetime:
    return moment.ToDatetime(UTC)
