"""What was applied is told as it was; damage done by hand is seen, and nobody is accused."""

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from services.queue.testing import RunningQueue, done, outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration


async def _applied(queue: RunningQueue, block_size: int = 0) -> list[queue_pb2.AppliedFacts]:
    request = queue_pb2.StreamAppliedFactsRequest(block_size=block_size)
    return [it.applied async for it in queue.stub.StreamAppliedFacts(request)]


async def _altered(queue: RunningQueue) -> list[int]:
    return [user_id for it in await _applied(queue) for user_id in it.altered_user_ids]


async def test_what_was_applied_comes_back_in_blocks(queue: RunningQueue, desk: Desk) -> None:
    people = [unsigned(1), outstanding(2), done(3)]
    for facts in people:
        facts.fingerprint = 2**64 - facts.user_id
        facts.row_fingerprints = bytes([facts.user_id]) * 16 * facts.user_id
    await desk.fill(*people)
    await desk.apply(4)
    blocks = await _applied(queue, block_size=3)
    assert [list(it.user_ids) for it in blocks] == [[1, 2, 3], [4]]
    assert list(blocks[0].row_fingerprint_bytes) == [16, 32, 48]
    assert blocks[0].row_fingerprints == b"".join(it.row_fingerprints for it in people)
    assert list(blocks[1].absent_user_ids) == [4]
    assert [list(it.altered_user_ids) for it in blocks] == [[], []]
    read = await queue.stub.ReadAppliedFacts(
        queue_pb2.ReadAppliedFactsRequest(user_ids=[3, 9, 3, 1])
    )
    assert list(read.applied.user_ids) == [1, 3]


_DAMAGES = (
    "queue = 2",
    "state = 2",
    "state = 3, queue = NULL",
    "state = 5",
    "eligible_queue = 2",
    "phone_e164 = '+447700900999'",
    "owes = NULL",
    "claimed_at = now()",
    "state = 4",
)


@pytest.mark.parametrize("damage", _DAMAGES)
async def test_damage_is_listed_and_applying_again_repairs_it(
    queue: RunningQueue, desk: Desk, tables: Tables, damage: str
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    columns = "queue, state, eligible_queue, phone_e164, owes, claimed_at, rank_key, agent_id"
    sound = await tables.rows(f"SELECT {columns} FROM queue.entries ORDER BY user_id")
    await tables.rows(f"UPDATE queue.entries SET {damage} WHERE user_id = 1")
    found = await tables.rows(f"SELECT {columns} FROM queue.entries ORDER BY user_id")
    if found == sound:
        pytest.skip("the damage is none")
    assert await _altered(queue) == [1]
    await desk.apply(1, 2)
    assert await _altered(queue) == []
    if "owes" not in damage:
        assert await tables.rows(f"SELECT {columns} FROM queue.entries ORDER BY user_id") == sound


async def test_nobody_is_accused_while_calls_are_made(queue: RunningQueue, desk: Desk) -> None:
    await desk.fill(*(unsigned(n) for n in range(1, 12)), outstanding(20), done(30))
    outcomes = [it for it in call_state_pb2.Outcome.values() if it]
    for outcome in outcomes:
        claimed = (await desk.claim("anna")).assignment
        assert await _altered(queue) == []
        notes = "said so" if outcome == call_state_pb2.OUTCOME_DO_NOT_CONTACT else ""
        await desk.record(claimed, outcome, notes=notes)
        assert await _altered(queue) == []
    checked = await queue.stub.CheckEntries(queue_pb2.CheckEntriesRequest())
    assert (checked.checked, list(checked.corrected_user_ids)) == (13, [])
    queue.main_app.people.clear()
    await desk.apply(1, 2, 20)
    assert await _altered(queue) == []


async def test_a_wrong_place_is_corrected(queue: RunningQueue, desk: Desk, tables: Tables) -> None:
    await desk.fill(unsigned(1), unsigned(2), unsigned(3))
    await tables.rows("UPDATE queue.entries SET rank_key = rank_key + 5 WHERE user_id = 1")
    await tables.rows("UPDATE queue.entries SET callback_at = now() WHERE user_id = 2")
    await tables.rows("UPDATE queue.entries SET phone_e164 = '+447700900999' WHERE user_id = 3")
    checked = await queue.stub.CheckEntries(queue_pb2.CheckEntriesRequest())
    assert list(checked.corrected_user_ids) == [1, 2]
    assert checked.through_user_id == 3
    again = await queue.stub.CheckEntries(queue_pb2.CheckEntriesRequest(after_user_id=0))
    assert list(again.corrected_user_ids) == []
