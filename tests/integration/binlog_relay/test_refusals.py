"""What SQS refuses as a whole is sent in halves; only what it takes in no size is given up."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from servicekit.errors import Unavailable
from tests.integration.binlog_relay.bench import Received, RelayBench
from tests.integration.binlog_relay.test_following import asked_times, including

FIRST = "binlog_relay: first_start"
Order = Callable[..., None]


@pytest.fixture
def order(bench: RelayBench) -> Iterator[Order]:
    """Have the endpoint refuse requests, until the test ends."""

    def refuse(**faults: Any) -> None:
        wanted = {"action": "SendMessageBatch", **faults}
        httpx.post(f"{bench.queue.endpoint_url}/_faults", json=wanted).raise_for_status()

    yield refuse
    refuse()


async def test_an_endpoint_that_takes_less_than_the_settings_say_gets_it_in_halves(
    bench: RelayBench, order: Order
) -> None:
    order(max_bytes=20_000)
    async with bench.relay() as parts:
        await bench.add_users(range(1, 1_001), solicitor="x" * 100)
        received = await bench.receive(including(set(range(1, 1_001))))
        assert (await bench.position(parts)).gaps == 0
    assert max(len(body.encode()) for body in received.bodies) <= 20_000
    assert len(received.records) == 1_000
    assert bench.reconciler.reasons == [FIRST]


@pytest.mark.parametrize(
    "code", ["InvalidMessageContents", "InvalidParameterValue", "UnsupportedOperation"]
)
async def test_a_record_that_is_refused_is_given_up_alone(
    bench: RelayBench, order: Order, code: str
) -> None:
    order(refused_text="poison", refused_code=code)
    async with bench.relay() as parts:
        people = asyncio.create_task(bench.add_users(range(1, 301)))
        await bench.add_users([400], solicitor="poison")
        await bench.add_users([500])
        await people
        received = await bench.receive(including({*range(1, 301), 500}))
        await bench.until(lambda: asked_times(bench, 2))
        await bench.caught_up(parts)
        assert (await bench.position(parts)).gaps == 1
    assert 400 not in received.ids()
    assert bench.reconciler.reasons[1].startswith("binlog_relay: sqs_refused_")
    assert bench.reconciler.reasons[1].endswith(code)


async def test_a_refusal_that_is_no_records_fault_is_retried_until_it_ends(
    bench: RelayBench, order: Order
) -> None:
    async with bench.relay(sends_in_flight=1) as parts:
        order(refused_text="{", refused_code="OverLimit")
        await bench.add_users(range(1, 11))
        await bench.until(lambda: is_failing(parts))
        assert (await bench.position(parts)).records_published == 0
        order()
        received = await bench.receive(including(set(range(1, 11))))
        assert (await bench.position(parts)).gaps == 0
    assert len(received.records) == 10
    assert bench.reconciler.reasons == [FIRST]


async def test_an_unknown_refusal_of_everything_is_no_records_fault(
    bench: RelayBench, order: Order
) -> None:
    async with bench.relay() as parts:
        order(refused_text="{", refused_code="UnsupportedOperation")
        await bench.add_users(range(1, 11))
        await bench.until(lambda: is_failing(parts))
        order()
        received = await bench.receive(including(set(range(1, 11))))
        assert (await bench.position(parts)).gaps == 0
    assert sorted(received.ids()) == list(range(1, 11))


@pytest.mark.parametrize("code", ["UnsupportedOperation", "InvalidMessageContents"])
async def test_a_refused_record_on_a_quiet_line_is_given_up_and_heartbeats_go_on(
    bench: RelayBench, order: Order, code: str
) -> None:
    order(refused_text="poison", refused_code=code)
    async with bench.relay(capture_heartbeat_seconds=0.2, heartbeat_seconds=0.2) as parts:
        await bench.add_users([400], solicitor="poison")
        await bench.until(lambda: asked_times(bench, 2))
        await bench.caught_up(parts)
        await asyncio.to_thread(bench.receive_some, Received())
        await bench.receive(has_heartbeat)
        assert not await is_failing(parts)
        assert (await bench.position(parts)).gaps == 1
    (reason,) = bench.reconciler.reasons[1:]
    assert reason.startswith("binlog_relay: sqs_refused_")
    assert reason.endswith(code)


async def test_a_refused_record_lets_those_behind_it_pass(bench: RelayBench, order: Order) -> None:
    order(refused_text="poison", refused_code="UnsupportedOperation")
    async with bench.relay() as parts:
        row = "INSERT INTO users (id, email_address, solicitor) VALUES"
        await bench.transaction(
            f"{row} (1, 'a@example.test', 'poison')", f"{row} (2, 'b@example.test', 'x')"
        )
        await bench.receive(including({2}))
        await bench.until(lambda: asked_times(bench, 2))
        await bench.caught_up(parts)


async def test_a_queue_that_calls_everything_invalid_takes_the_health_and_loses_nothing(
    bench: RelayBench, order: Order
) -> None:
    async with bench.relay() as parts:
        order(refused_text="{", refused_code="InvalidParameterValue")
        await bench.add_users(range(1, 11))
        await bench.until(lambda: is_failing(parts))
        assert (await bench.position(parts)).gaps == 0
        order()
        received = await bench.receive(including(set(range(1, 11))))
        assert (await bench.position(parts)).gaps == 0
        assert not await is_failing(parts)
    assert sorted(received.ids()) == list(range(1, 11))
    assert bench.reconciler.reasons == [FIRST]


def has_heartbeat(received: Received) -> bool:
    return any(r["metadata"]["operation"] == "heartbeat" for r in received.records)


async def is_failing(parts: Any) -> bool:
    relay = next(part for part in parts._parts if hasattr(part, "check"))
    try:
        await relay.check()
    except Unavailable as error:
        return error.reason == "SQS_UNAVAILABLE"
    return False
