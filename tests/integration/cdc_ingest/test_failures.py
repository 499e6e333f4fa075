"""Failures around the ingest lose no message."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from servicekit.errors import Unavailable

if TYPE_CHECKING:
    from tests.integration.cdc_ingest.conftest import Bench, Operator

pytestmark = [pytest.mark.integration, pytest.mark.fault]

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DOWN = Unavailable("DATABASE_UNAVAILABLE", "unavailable")


async def _received(operator: "Operator", count: int) -> bool:
    return (await operator.status()).messages_received >= count


@pytest.mark.parametrize("who", ["user_context", "queue"])
async def test_downstream_down_then_up(bench: "Bench", who: str) -> None:
    faults = bench.fakes.queue.faults if who == "queue" else bench.fakes.user_context.faults
    faults.failure = DOWN
    for user_id in range(1, 21):
        await bench.send(bench.change("users", {"id": user_id}))
    async with bench.running() as parts, bench.operator(parts) as operator:
        await bench.until(lambda: bench.fakes.user_context.probes >= 2)
        before = await operator.status()
        for user_id in range(21, 41):
            await bench.send(bench.change("users", {"id": user_id}))
        probes = bench.fakes.user_context.probes
        await bench.until(lambda: bench.fakes.user_context.probes > probes + 1)
        meanwhile = await operator.status()
        assert meanwhile.messages_received <= before.messages_received + 20, "no receives burnt"
        assert meanwhile.messages_done == 0
        faults.failure = None
        await bench.emptied()
        assert (await operator.status()).messages_dead == 0
    assert set(bench.fakes.queue.user_ids()) == set(range(1, 41))


async def test_a_process_killed_in_mid_batch(bench: "Bench", tmp_path: Path) -> None:
    faults = bench.fakes.queue.faults
    faults.gate.clear()
    for user_id in range(1, 21):
        await bench.send(bench.change("users", {"id": user_id}))
    process = await _start_process(bench, tmp_path / "ingest.log")
    await bench.until(lambda: faults.entered > 0)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    faults.gate.set()
    assert await bench.depth() == 20
    async with bench.running():
        await bench.emptied()
    assert set(bench.fakes.queue.user_ids()) == set(range(1, 21))


async def test_sigterm_finishes_what_is_under_way(bench: "Bench", tmp_path: Path) -> None:
    faults = bench.fakes.queue.faults
    faults.gate.clear()
    await bench.send(bench.change("users", {"id": 1}))
    process = await _start_process(bench, tmp_path / "ingest.log")
    await bench.until(lambda: faults.entered == 1)
    process.send_signal(signal.SIGTERM)
    faults.gate.set()
    assert await process.wait() == 0, (tmp_path / "ingest.log").read_text()
    assert await bench.depth() == 0
    assert bench.fakes.queue.user_ids() == [1]


async def _start_process(bench: "Bench", log: Path) -> asyncio.subprocess.Process:
    settings = bench.settings(batches_in_flight=1).model_dump()
    environment = {f"CDC_INGEST_{k.upper()}": str(v) for k, v in settings.items() if v is not None}
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.cdc_ingest",
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )


async def test_a_stop_gives_back_what_was_not_begun(bench: "Bench") -> None:
    faults = bench.fakes.queue.faults
    faults.gate.clear()
    await bench.send(bench.change("users", {"id": 1}))
    async with bench.running(batches_in_flight=1, visibility_seconds=600) as parts:
        await bench.until(lambda: faults.entered == 1)
        for user_id in range(2, 30):
            await bench.send(bench.change("users", {"id": user_id}))
        async with bench.operator(parts) as operator:
            await bench.until_async(lambda: _received(operator, 29), True)
        stopping = asyncio.create_task(parts.stop())
        await bench.seen_by_others()
        faults.gate.set()
        await stopping
        assert bench.fakes.queue.user_ids() == [1]
        assert await bench.depth() == 28
    async with bench.running():
        await bench.emptied()
    assert sorted(bench.fakes.queue.user_ids()) == list(range(1, 30))


async def test_a_stop_does_not_wait_for_ever(bench: "Bench") -> None:
    faults = bench.fakes.queue.faults
    faults.gate.clear()
    await bench.send(bench.change("users", {"id": 1}))
    async with bench.running(drain_seconds=1.0, visibility_seconds=600):
        await bench.until(lambda: faults.entered == 1)
    await bench.seen_by_others()
    faults.gate.set()


async def test_what_cannot_be_read_is_dead_lettered_alone_and_at_once(bench: "Bench") -> None:
    await bench.send("no json", traceparent=TRACEPARENT, source="elsewhere")
    for user_id in range(1, 10):
        await bench.send(bench.change("users", {"id": user_id}))
    async with bench.running():
        await bench.emptied()
        (dead,) = await bench.dead_letters()
    assert dead.pop("first_seen_at").endswith("+00:00")
    assert dead == {
        "body": "no json",
        "dead_reason": "BODY_NOT_JSON",
        "receive_count": "1",
        "traceparent": TRACEPARENT,
        "source": "elsewhere",
    }
    assert sorted(bench.fakes.queue.user_ids()) == list(range(1, 10))


async def test_the_good_records_of_a_bad_message_count(bench: "Bench") -> None:
    await bench.send([bench.change("users", {"id": 1}), 3, bench.change("users", {"id": 2})])
    async with bench.running():
        await bench.emptied()
        (dead,) = await bench.dead_letters()
    assert dead["dead_reason"] == "FORMAT_UNKNOWN"
    assert sorted(bench.fakes.queue.user_ids()) == [1, 2]


@pytest.mark.parametrize("who", ["user_context", "queue"])
async def test_a_poisonous_person_is_dead_lettered_alone(bench: "Bench", who: str) -> None:
    faults = bench.fakes.queue.faults if who == "queue" else bench.fakes.user_context.faults
    faults.poison.add(7)
    for user_id in range(1, 10):
        await bench.send(bench.change("users", {"id": user_id}))
    await bench.send([bench.change("users", {"id": n}) for n in (7, 30)])
    async with bench.running(receivers=1):
        await bench.emptied()
        dead = await bench.dead_letters(2)
    assert {each["dead_reason"] for each in dead} == {"USER_POISONOUS"}
    assert set(bench.fakes.queue.user_ids()) == {*range(1, 10), 30} - {7}


async def test_a_person_that_cannot_be_read_is_retried_then_dead_lettered(bench: "Bench") -> None:
    bench.fakes.user_context.faults.broken.add(7)
    for user_id in range(1, 10):
        await bench.send(bench.change("users", {"id": user_id}))
    async with bench.running(receivers=1, max_receives=2):
        await bench.emptied()
        (dead,) = await bench.dead_letters()
    assert (dead["dead_reason"], dead["receive_count"]) == ("USER_BROKEN", "2")
    assert set(bench.fakes.queue.user_ids()) == set(range(1, 10)) - {7}


async def test_no_dead_letter_no_deletion(bench: "Bench") -> None:
    await bench.send("no json")
    # Every attempt at the first delivery fails, its own retries included.
    await bench.order_faults("SendMessage", requests=9)
    async with bench.running() as parts, bench.operator(parts) as operator:
        (dead,) = await bench.dead_letters()
        await bench.emptied()
        status = await operator.status()
    assert dead["body"] == "no json"
    assert (status.messages_dead, status.messages_done) == (1, 0)
    assert status.messages_retried >= 1


async def test_deletions_that_fail_inside_a_good_answer(bench: "Bench") -> None:
    await bench.order_faults("DeleteMessageBatch", entries=5)
    for user_id in range(1, 10):
        await bench.send(bench.change("users", {"id": user_id}))
    async with bench.running(visibility_seconds=600):
        await bench.emptied()


async def test_a_refused_full_run_request_is_sent_again(bench: "Bench") -> None:
    bench.fakes.reconciler.faults.failure = DOWN
    await bench.send({"metadata": {"record-type": "control", "operation": "gap"}})
    await bench.send(bench.change("users", {"id": 1}))
    async with bench.running():
        await bench.until(lambda: bench.fakes.reconciler.faults.entered >= 2)
        await bench.until(lambda: bench.fakes.queue.user_ids() == [1])
        bench.fakes.reconciler.faults.failure = None
        await bench.emptied()
    assert bench.fakes.reconciler.reasons == ["cdc_ingest: gap"]


async def test_work_longer_than_the_visibility_is_not_done_twice(bench: "Bench") -> None:
    faults = bench.fakes.queue.faults
    faults.gate.clear()
    await bench.send(bench.change("users", {"id": 1}))
    async with bench.running(visibility_seconds=2):
        await bench.until(lambda: faults.entered == 1)
        answer = await asyncio.to_thread(
            bench.queue.client.receive_message, QueueUrl=bench.queue.url, WaitTimeSeconds=5
        )
        assert "Messages" not in answer
        faults.gate.set()
        await bench.emptied()
    assert bench.fakes.queue.applications == 1


async def test_sqs_away_for_a_while(bench: "Bench") -> None:
    await bench.order_faults("ReceiveMessage", requests=12)
    await bench.send(bench.change("users", {"id": 1}))
    async with bench.running():
        await bench.emptied()
    assert bench.fakes.queue.user_ids() == [1]


async def test_a_service_that_refuses_every_person_is_not_taken_for_unavailable(
    bench: "Bench",
) -> None:
    bench.fakes.queue.faults.poison.update(range(1, 9))
    for user_id in range(1, 10):
        await bench.send(bench.change("users", {"id": user_id}))
    async with bench.running():
        dead = await bench.dead_letters(8)
        await bench.emptied()
    assert {each["dead_reason"] for each in dead} == {"USER_POISONOUS"}
    assert bench.fakes.queue.user_ids() == [9]
