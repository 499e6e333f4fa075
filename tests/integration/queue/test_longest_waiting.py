"""With more newcomers than calls, the people who have waited longest are called, too."""

from datetime import timedelta
from pathlib import Path

import pytest
from dialler.model.v1.call_state_pb2 import Queue

from services.queue.rules import DEFAULT_PATH
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import running_queue
from tests.fakes.user_facts import outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration

OLD = (1, 2, 3)


async def _called(desk: Desk, clock: FakeClock, calls: int) -> list[int]:
    """Return whom agents are handed, with one newcomer before each claim."""
    called = []
    for number in range(calls):
        clock.advance(timedelta(seconds=1))
        await desk.fill(unsigned(100 + number))
        called.append((await desk.claim(f"agent-{number}")).assignment.user_id)
    return called


async def test_one_hand_out_in_ten_goes_to_the_longest_waiting(
    desk: Desk, clock: FakeClock
) -> None:
    for user_id in OLD:
        await desk.fill(unsigned(user_id))
        clock.advance(timedelta(seconds=1))
    explained = await desk.explain(2)
    assert (explained.people_ready_longer, explained.longest_waiting_one_in) == (1, 10)
    called = await _called(desk, clock, 20)
    assert [it for it in called if it in OLD] == [1, 2]
    assert (called.index(1), called.index(2)) == (9, 19)
    assert (await desk.explain(3)).people_ready_longer == 0


async def test_each_queue_has_its_own_share(desk: Desk, clock: FakeClock) -> None:
    await desk.fill(unsigned(1))
    clock.advance(timedelta(seconds=1))
    await desk.fill(*(outstanding(it) for it in range(11, 15)))
    await _called(desk, clock, 9)
    # Due is the share of the other queue alone.
    assert (await desk.claim("other", Queue.QUEUE_OUTSTANDING_REQUESTS)).assignment.user_id == 14
    assert (await desk.claim("ann")).assignment.user_id == 1


async def test_without_a_share_the_order_is_that_of_scores_alone(
    queue_url: str, redis_url: str, clock: FakeClock, tmp_path: Path
) -> None:
    path, text = tmp_path / "rules.yaml", DEFAULT_PATH.read_text()
    assert "longest_waiting_one_in: 10" in text
    path.write_text(text.replace("longest_waiting_one_in: 10", "longest_waiting_one_in: 0"))
    async with running_queue(queue_url, redis_url, clock=clock, rules_path=path) as running:
        desk = Desk(running)
        await desk.fill(*(unsigned(it) for it in OLD))
        assert await _called(desk, clock, 20) == list(range(100, 120))


async def test_the_longest_waiting_is_found_by_an_index(tables: Tables) -> None:
    plan = await tables.plan(
        "SELECT user_id FROM queue.entries WHERE state = 1 AND queue = 1"
        " ORDER BY ready_since, user_id LIMIT 1"
    )
    assert "entries_ready_since" in plan
    assert "Sort" not in plan
