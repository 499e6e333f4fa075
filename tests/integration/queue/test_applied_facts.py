"""What was applied is read as it was; damage by hand is found, sound entries are not reported."""

import asyncio
import contextlib

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.database import postgres_engine
from servicekit.errors import Unavailable
from services.queue.maintenance.applied_facts import AppliedFacts
from services.queue.store.database import Database
from services.queue.types import UserId
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import done, outstanding, unsigned
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


@pytest.mark.fault
@pytest.mark.parametrize("seconds", [0.0, 0.5], ids=["before_the_news", "after_the_news"])
async def test_a_session_that_postgresql_ends_fails_one_reading_at_most(
    queue_url: str, tables: Tables, seconds: float
) -> None:
    engine = postgres_engine(
        queue_url, pool_size=1, application_name="dialler-queue", statement_timeout_seconds=5.0
    )
    applied = AppliedFacts(Database(engine))
    try:
        await applied.of([UserId(1)])
        await tables.rows(_END_SESSIONS)
        await asyncio.sleep(seconds)
        with contextlib.suppress(Unavailable):
            await applied.of([UserId(1)])
        assert not (await applied.of([UserId(1)])).user_ids
    finally:
        await engine.dispose()


_END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'dialler-queue' AND datname = current_database()
"""

_DAMAGES = (
    "queue = 2",
    "state = 3, queue = NULL",
    "state = 3",
    "state = 4",
    "state = 5",
    "state = 2, due_at = NULL",
    "eligible_queue = 2",
    "phones = '{+447700900999}'",
    "open_case_queue = NULL",
    "open_case_queue = 2",
    "open_case_queue = NULL, case_number = 7",
    "case_number = 9",
    "claimed_at = now()",
    "fingerprint = fingerprint + 1",
)
_COLUMNS = (
    "user_id, queue, state, reason, due_at, eligible_queue, phones, open_case_queue,"
    " case_number, claimed_at, rank_key, outcome_points, entered_at, agent_id, fingerprint"
)
_ENTRIES = f"SELECT {_COLUMNS} FROM queue.entries ORDER BY user_id"


async def test_damage_is_listed_and_applying_again_repairs_it(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    sound = await tables.rows(_ENTRIES)
    for damage in _DAMAGES:
        await tables.rows(f"UPDATE queue.entries SET {damage} WHERE user_id = 1")
        assert await tables.rows(_ENTRIES) != sound, damage
        assert await _altered(queue) == [1], damage
        await desk.apply(1, 2)
        assert await tables.rows(_ENTRIES) == sound, damage
        assert await _altered(queue) == [], damage


async def test_a_matter_changed_by_hand_records_nothing_and_is_logged_once(
    queue: RunningQueue, desk: Desk, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.fill(unsigned(1), outstanding(2), done(3), unsigned(4))
    await tables.rows(
        "UPDATE queue.entries SET open_case_queue = 2, eligible_queue = 2 WHERE user_id = 1"
    )
    await tables.rows(
        "UPDATE queue.entries SET open_case_queue = 1, eligible_queue = 1 WHERE user_id = 2"
    )
    await tables.rows("UPDATE queue.entries SET open_case_queue = 2 WHERE user_id = 3")
    # What an earlier release noted does not say what was owed.
    await tables.rows("UPDATE queue.entries SET open_case_queue = 2 WHERE user_id = 4")
    await tables.rows(
        "UPDATE queue.applied_facts SET open_case_queue = NULL, case_number = NULL"
        " WHERE user_id = 4"
    )
    for _ in range(2):
        assert (await desk.apply(1, 2, 3, 4)).conversions == 0
    assert await tables.value("SELECT count(*) FROM queue.conversions") == 0
    found = await tables.rows(
        "SELECT open_case_queue, case_number FROM queue.entries ORDER BY user_id"
    )
    assert [tuple(it) for it in found] == [(1, 1), (2, 1), (None, 0), (1, 1)]
    warned = [it for it in caplog.records if it.message == "entry_altered"]
    assert [getattr(it, "user_id", None) for it in warned] == [1, 2, 3, 4]
    # A matter that has really ended is recorded, damaged or not.
    await tables.rows("UPDATE queue.entries SET open_case_queue = NULL WHERE user_id = 2")
    queue.main_app.put(done(2))
    assert (await desk.apply(2)).conversions == 1


async def test_records_deleted_invented_and_swapped_are_seen(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    people = [unsigned(n) for n in (1, 2, 3, 4)]
    for facts in people:
        facts.row_fingerprints = bytes([facts.user_id]) * 16
    await desk.fill(*people)
    await tables.rows(
        "UPDATE queue.applied_facts AS mine SET row_fingerprints = other.row_fingerprints"
        " FROM queue.applied_facts AS other"
        " WHERE mine.user_id + other.user_id = 3"
    )
    assert await _altered(queue) == [1, 2]
    # A swap of the whole record is one as well, since the id is under the digest.
    await tables.rows(
        "UPDATE queue.applied_facts AS mine SET row_fingerprints = other.row_fingerprints,"
        " digest = other.digest FROM queue.applied_facts AS other"
        " WHERE mine.user_id + other.user_id = 7"
    )
    assert await _altered(queue) == [1, 2, 3, 4]
    await desk.apply(1, 2, 3, 4)
    assert await _altered(queue) == []
    # Gone and invented: comparing with the main app finds them by what is listed.
    await tables.rows("DELETE FROM queue.entries WHERE user_id = 1")
    columns = await tables.value(
        "SELECT string_agg(column_name, ', ') FROM information_schema.columns"
        " WHERE table_schema = 'queue' AND table_name = 'entries' AND column_name <> 'user_id'"
    )
    await tables.rows(
        f"INSERT INTO queue.entries (user_id, {columns})"
        f" SELECT 77, {columns} FROM queue.entries WHERE user_id = 2"
    )
    (block,) = await _applied(queue)
    assert list(block.user_ids) == [2, 3, 4, 77]
    assert list(block.row_fingerprint_bytes) == [16, 16, 16, 0]
    await desk.apply(1, 77)
    assert list((await _applied(queue))[0].absent_user_ids) == [77]
    assert await _altered(queue) == []


async def test_unknown_fingerprints_are_right_as_well(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    """A reading that has not seen every row keeps them if it says nothing new, else drops them."""
    facts = unsigned(1)
    facts.row_fingerprints = b"r" * 16
    await desk.fill(facts, unsigned(2))
    await desk.rebuild()
    (block,) = await _applied(queue)
    assert (list(block.row_fingerprint_bytes), list(block.altered_user_ids)) == ([16, 0], [])
    queue.main_app.put(outstanding(1), unsigned(3))
    await desk.rebuild()
    (block,) = await _applied(queue)
    assert (list(block.row_fingerprint_bytes), list(block.altered_user_ids)) == ([0, 0, 0], [])
    for table in ("rebuilt_people", "rebuilt_entries"):
        assert await tables.value(f"SELECT count(*) FROM queue.{table}") == 0


async def test_what_was_never_noted_is_unknown_and_not_altered(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    facts = unsigned(1)
    facts.row_fingerprints = b"r" * 16
    await desk.fill(facts)
    await tables.rows("TRUNCATE queue.applied_facts")
    (block,) = await _applied(queue)
    assert (list(block.row_fingerprint_bytes), list(block.altered_user_ids)) == ([0], [])
    await desk.apply(1)
    assert list((await _applied(queue))[0].row_fingerprint_bytes) == [16]


async def test_sound_entries_are_not_reported_while_calls_are_made(
    queue: RunningQueue, desk: Desk
) -> None:
    outcomes = [it for it in call_state_pb2.Outcome.values() if it]
    people = [unsigned(n) for n in range(1, len(outcomes) + 1)]
    await desk.fill(*people, outstanding(20), done(30))
    for outcome in outcomes:
        claimed = (await desk.claim("anna")).assignment
        assert await _altered(queue) == []
        await desk.record(claimed, outcome, notes="said so")
        assert await _altered(queue) == []
    checked = await queue.stub.CheckEntries(queue_pb2.CheckEntriesRequest())
    assert (checked.checked, list(checked.corrected_user_ids)) == (len(people) + 2, [])
    queue.main_app.people.clear()
    await desk.apply(1, 2, 20)
    assert await _altered(queue) == []


async def test_wrong_places_are_corrected_page_by_page(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    await desk.fill(*(unsigned(n) for n in range(1, 8)))
    await desk.suppress(6)
    sound = await tables.rows(_ENTRIES)
    for user_id, damage in enumerate(
        (
            "rank_key = rank_key + 5",
            "callback_at = now()",
            "due_at = now() + interval '1 day', state = 2, hold = 2",
            "state = 3, agent_id = 'ghost'",
            "phones = '{+447700900999}'",
            "block = NULL, state = 1, queue = 1",
            "phone_block = 1",
        ),
        start=1,
    ):
        await tables.rows(f"UPDATE queue.entries SET {damage} WHERE user_id = {user_id}")
    corrected: list[int] = []
    pages, after = 0, 0
    while True:
        request = queue_pb2.CheckEntriesRequest(after_user_id=after, page_size=3)
        checked = await queue.stub.CheckEntries(request)
        if not checked.checked:
            break
        corrected += checked.corrected_user_ids
        pages, after = pages + 1, checked.through_user_id
    # People whose facts are in doubt are left to reconciliation.
    assert (pages, corrected) == (3, [1, 2, 3, 4, 6, 7])
    assert await _altered(queue) == [5]
    await desk.apply(5)
    assert await tables.rows(_ENTRIES) == sound
    again = await queue.stub.CheckEntries(queue_pb2.CheckEntriesRequest())
    assert list(again.corrected_user_ids) == []
