"""Rebuilds that are cut off, doubled or told half: none of them harms the people who are there."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2
from dialler.user_context.v1 import user_context_pb2
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from servicekit.errors import (
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    ServiceError,
    Unavailable,
)
from services.queue.rules import DEFAULT_PATH
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_context import Context, FakeUserContext
from tests.fakes.user_facts import LONG_AGO, done, outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY
PHASE_DONE = queue_pb2.REBUILD_PHASE_DONE
UNSIGNED = call_state_pb2.QUEUE_UNSIGNED_USERS
OUTSTANDING = call_state_pb2.QUEUE_OUTSTANDING_REQUESTS

_ENTRIES = "SELECT user_id, eligible_reason, state_version FROM queue.entries ORDER BY user_id"
_GONE = "SELECT user_id FROM queue.entries WHERE eligible_reason = 'USER_NOT_FOUND' ORDER BY 1"
_KILL_GUARD = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE application_name LIKE 'queue-rebuild-lock@%' AND datname = current_database()"
)
_KILL_WRITER = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_locks"
    " WHERE locktype = 'advisory' AND objid = 4242 AND NOT granted"
)
_STAGED = (
    "SELECT (SELECT count(*) FROM queue.rebuilt_people)"
    " + (SELECT count(*) FROM queue.rebuilt_entries)"
)
_IN_ORDER = (
    "SELECT user_id FROM queue.entries WHERE queue = :queue AND state = 1"
    " ORDER BY rank_key, user_id DESC"
)
# By then each queue has four people, of two batches.
_IS_BEGUN = "(SELECT count(*) FROM queue.entries) >= 8"
# As `_PLACES` of the other tests of rebuilds, without what claims change.
_PLACES = (
    "SELECT user_id, phone_e164, eligible_queue, eligible_reason, open_case_queue, case_number,"
    " queue, state, reason, rank_key, due_at, phone_block FROM queue.entries ORDER BY user_id"
)


@pytest.fixture
async def queue(queue_url: str, redis_url: str, clock: FakeClock) -> AsyncIterator[RunningQueue]:
    """A queue that writes two people in a transaction of a rebuild."""
    async with running_queue(queue_url, redis_url, clock=clock, rebuild_batch=2) as running:
        yield running


async def _rebuild(queue: RunningQueue, *, allow_gone: bool = False) -> queue_pb2.RebuildResponse:
    """Rebuild and return the last that was told."""
    request = queue_pb2.RebuildRequest(actor_id="boss", allow_gone=allow_gone)
    told = [it async for it in queue.stub.Rebuild(request)]
    return told[-1]


async def _purge_expired(queue: RunningQueue) -> int:
    done = (await queue.stub.PurgeExpired(queue_pb2.PurgeExpiredRequest())).done
    return done["rebuild_leftovers_deleted"]


async def _gone(tables: Tables) -> list[int]:
    return [row[0] for row in await tables.rows(_GONE)]


@asynccontextmanager
async def _closed_gate(
    queue_url: str, tables: Tables, event: str, condition: str
) -> AsyncIterator[None]:
    """Keep every INSERT or UPDATE of an entry of which `condition` is true waiting in the block.

    The block begins at once: `_waiting` returns when the first has come.
    """
    await tables.rows(
        f"""CREATE FUNCTION queue.gate() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF {condition} THEN PERFORM pg_advisory_xact_lock_shared(4242); END IF;
            RETURN NEW;
        END $$"""
    )
    await tables.rows(
        f"CREATE TRIGGER gate BEFORE {event} ON queue.entries"
        " FOR EACH ROW EXECUTE FUNCTION queue.gate()"
    )
    engine = create_async_engine(queue_url, poolclass=NullPool)
    try:
        async with engine.connect() as keeper:
            await keeper.execute(text("SELECT pg_advisory_xact_lock(4242)"))
            yield
    finally:
        await engine.dispose()


async def _staged(tables: Tables, people: int) -> None:
    """Return once so many people are staged."""
    await until(lambda: tables.value(_STAGED), lambda found: found == people)


async def _waiting(tables: Tables) -> None:
    """Return once the rebuild has come to the gate."""
    sql = "SELECT count(*) FROM pg_locks WHERE objid = 4242 AND NOT granted"
    await until(lambda: tables.value(sql), lambda found: found > 0)


@pytest.mark.parametrize("is_housekeeping", [False, True])
async def test_a_guard_lost_while_reading_ends_the_run_and_changes_nothing(
    desk: Desk, queue: RunningQueue, tables: Tables, is_housekeeping: bool
) -> None:
    """Housekeeping may then empty what was staged: no person is taken for gone for want of it."""
    await desk.fill(*(unsigned(it) for it in range(1, 9)))
    queue.main_app.put(done(3), unsigned(9))
    before = await tables.rows(_ENTRIES)
    forgotten = []

    async def lose(read: Any) -> None:
        if 4 in read:
            await _staged(tables, 4)
            assert await tables.value(_KILL_GUARD) == 1
            if is_housekeeping:
                forgotten.append(await _purge_expired(queue))

    queue.main_app.after_block = lose
    with pytest.raises(Conflict) as raised:
        await _rebuild(queue)
    assert raised.value.reason == "REBUILD_GUARD_LOST"
    assert forgotten == ([4] if is_housekeeping else [])
    assert await tables.rows(_ENTRIES) == before
    queue.main_app.after_block = None
    last = await _rebuild(queue)
    assert (last.phase, last.people_new, last.people_different) == (PHASE_DONE, 1, 1)


async def test_the_first_of_two_rebuilds_ends_when_the_second_has_its_place(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 9)))
    queue.main_app.put(done(3), unsigned(9))
    may_end = asyncio.Event()

    async def wait(read: Any) -> None:
        if 9 in read:
            await may_end.wait()

    queue.main_app.after_block = wait
    first = asyncio.create_task(_rebuild(queue))
    await _staged(tables, 9)
    queue.main_app.after_block = None
    assert await tables.value(_KILL_GUARD) == 1
    second = await _rebuild(queue)
    may_end.set()
    with pytest.raises(Conflict) as raised:
        await first
    assert raised.value.reason == "REBUILD_GUARD_LOST"
    assert (second.phase, second.people_written) == (PHASE_DONE, 2)
    assert await _gone(tables) == []
    assert await tables.value(_STAGED) == 0


async def test_a_guard_lost_while_writing_ends_the_run_before_people_are_gone(
    desk: Desk, queue: RunningQueue, tables: Tables, queue_url: str
) -> None:
    """The batch in hand is finished, and housekeeping waits for it."""
    await desk.fill(*(unsigned(it) for it in range(1, 13)))
    queue.main_app.put(*(outstanding(it) for it in range(1, 9)))
    del queue.main_app.people[12]
    async with _closed_gate(queue_url, tables, "UPDATE", "NEW.user_id = 4"):
        rebuild = asyncio.create_task(_rebuild(queue))
        await _waiting(tables)
        assert await tables.value(_KILL_GUARD) == 1
        housekeeping = asyncio.create_task(_purge_expired(queue))
        locked = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
        await until(lambda: tables.value(locked), lambda found: found > 0)
        assert await tables.value(_STAGED) == 11
    with pytest.raises(Conflict) as raised:
        await rebuild
    assert raised.value.reason == "REBUILD_GUARD_LOST"
    assert await housekeeping == 11
    queues = [(await desk.state(it)).queue for it in (4, 5)]
    assert queues == [OUTSTANDING, UNSIGNED]
    assert await _gone(tables) == []
    last = await _rebuild(queue)
    assert (last.people_different, await _gone(tables)) == (5, [12])


async def test_no_session_of_a_rebuild_idles_in_a_transaction(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    """Such a session is ended after half a minute."""
    queue.main_app.put(unsigned(1), unsigned(2))
    idle = []

    async def look(_: Any) -> None:
        sql = (
            "SELECT count(*) FILTER (WHERE state LIKE 'idle in transaction%'),"
            " count(*) FILTER (WHERE application_name LIKE 'queue-rebuild-lock@%')"
            " FROM pg_stat_activity WHERE datname = current_database()"
        )
        idle.append(tuple((await until(lambda: tables.rows(sql), lambda it: it[0][0] == 0))[0]))

    queue.main_app.after_block = look
    await _rebuild(queue)
    assert idle == [(0, 1)]
    await until(lambda: tables.value(_KILL_GUARD), lambda found: found == 0)


class _CutShort(FakeUserContext):
    """Its stream ends after three blocks, as if all had been read."""

    async def StreamUserFacts(
        self, request: user_context_pb2.StreamUserFactsRequest, context: Context
    ) -> AsyncIterator[user_context_pb2.StreamUserFactsResponse]:
        """Tell of six people."""
        told = 0
        async for block in super().StreamUserFacts(request, context):
            yield block
            told += 1
            if told == 3:
                return


async def test_a_stream_without_its_end_is_no_whole(
    queue_url: str, redis_url: str, clock: FakeClock, tables: Tables
) -> None:
    fake = _CutShort()  # type: ignore[abstract]
    async with running_queue(queue_url, redis_url, clock=clock, main_app=fake) as queue:
        await Desk(queue).fill(*(unsigned(it) for it in range(1, 10)))
        with pytest.raises(Unavailable) as raised:
            await _rebuild(queue)
        assert raised.value.reason == "FACTS_STREAM_INCOMPLETE"
        assert await _gone(tables) == []


class _Slow(FakeUserContext):
    """Holds no snapshot for longer than two blocks take."""

    async def StreamUserFacts(
        self, request: user_context_pb2.StreamUserFactsRequest, context: Context
    ) -> AsyncIterator[user_context_pb2.StreamUserFactsResponse]:
        """Tell of four people at most."""
        told = 0
        async for block in super().StreamUserFacts(request, context):
            if told == 2:
                raise DeadlineExceeded("STREAM_TOO_SLOW", "not read in time")
            yield block
            told += 1


async def test_people_who_take_longer_than_one_stream_may_are_read_in_several(
    queue_url: str, redis_url: str, clock: FakeClock, tables: Tables
) -> None:
    fake = _Slow()  # type: ignore[abstract]
    async with running_queue(queue_url, redis_url, clock=clock, main_app=fake) as queue:
        await Desk(queue).fill(*(unsigned(it) for it in range(1, 8)))
        del fake.people[4]
        fake.put(outstanding(7), *(unsigned(it) for it in range(8, 12)))
        last = await _rebuild(queue)
        assert (last.people_read, last.people_new, last.people_different) == (10, 4, 2)
        assert await _gone(tables) == [4]
        assert (await Desk(queue).state(7)).queue == OUTSTANDING


async def test_people_who_are_read_but_not_staged_are_not_gone(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 7)))

    async def unstage(read: Any) -> None:
        if 6 in read:
            await _staged(tables, 6)
            await tables.rows("DELETE FROM queue.rebuilt_people WHERE user_id = 3")

    queue.main_app.after_block = unstage
    with pytest.raises(Conflict) as raised:
        await _rebuild(queue)
    assert raised.value.reason == "REBUILD_STAGING_INCOMPLETE"
    assert await _gone(tables) == []


async def test_a_person_who_registers_behind_the_reading_is_not_gone(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(*(unsigned(it) for it in (1, 2, 5, 6)))

    async def register(read: Any) -> None:
        if 6 in read:
            await _staged(tables, 4)
            await desk.fill(unsigned(4))

    queue.main_app.after_block = register
    assert (await _rebuild(queue)).people_different == 0
    assert (await desk.state(4)).state == READY


async def test_a_main_app_that_shows_no_person_is_not_believed(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 5)))
    queue.main_app.people.clear()
    with pytest.raises(FailedPrecondition) as raised:
        await _rebuild(queue)
    assert raised.value.reason == "REBUILD_TOO_MANY_GONE"
    assert raised.value.metadata == {"people_gone": "4", "people_known": "4"}
    assert await _gone(tables) == []
    assert (await _rebuild(queue, allow_gone=True)).people_different == 4
    assert await _gone(tables) == [1, 2, 3, 4]


@pytest.mark.parametrize(("vanished", "is_believed"), [(100, True), (101, False)])
async def test_a_share_of_people_that_is_not_plausible_is_not_gone(
    queue_url: str,
    redis_url: str,
    clock: FakeClock,
    tables: Tables,
    vanished: int,
    is_believed: bool,
) -> None:
    """The rest is written."""
    async with running_queue(queue_url, redis_url, clock=clock) as queue:
        desk = Desk(queue)
        await desk.fill(*(unsigned(it) for it in range(1, 301)))
        for user_id in range(150, 150 + vanished):
            del queue.main_app.people[user_id]
        queue.main_app.put(outstanding(1), unsigned(301))
        if is_believed:
            await _rebuild(queue)
        else:
            with pytest.raises(FailedPrecondition) as raised:
                await _rebuild(queue)
            assert raised.value.metadata == {"people_gone": "101", "people_known": "301"}
            assert "allow_gone" in raised.value.message
        assert len(await _gone(tables)) == (100 if is_believed else 0)
        assert (await desk.state(1)).queue == OUTSTANDING
        assert (await desk.state(301)).state == READY
        assert (await _rebuild(queue, allow_gone=True)).people_new == 0
        assert len(await _gone(tables)) == vanished


def _various(user_id: int) -> Any:
    """A person whose place in the queue has nothing to do with the id."""
    since = LONG_AGO + timedelta(days=user_id * 7 % 31)
    kind = unsigned if user_id % 3 else outstanding
    return done(user_id) if user_id % 10 == 0 else kind(user_id, created_at=since)


async def test_agents_get_the_right_head_while_people_are_first_added(
    desk: Desk, queue: RunningQueue, tables: Tables, queue_url: str
) -> None:
    queue.main_app.put(*map(_various, range(1, 31)))
    async with _closed_gate(queue_url, tables, "INSERT", _IS_BEGUN):
        rebuild = asyncio.create_task(_rebuild(queue))
        await _waiting(tables)
        present = {it: await tables.rows(_IN_ORDER, queue=it) for it in (UNSIGNED, OUTSTANDING)}
        got = [(await desk.claim(f"agent-{it}", UNSIGNED)).assignment.user_id for it in range(2)]
    assert (await rebuild).people_written == 30
    assert got == [row[0] for row in present[UNSIGNED][:2]]
    for user_id in got:
        await tables.rows("UPDATE queue.entries SET state = 1 WHERE user_id = :id", id=user_id)
    for name, head in present.items():
        assert len(head) == 4
        assert head == (await tables.rows(_IN_ORDER, queue=name))[:4]


async def test_a_rebuild_killed_between_batches_goes_on_where_it_was(
    desk: Desk, queue: RunningQueue, tables: Tables, queue_url: str
) -> None:
    """The next rebuild adds only people who are missing."""
    await desk.import_phones(b"07700900003\n07700900016\n")
    queue.main_app.put(*map(_various, range(1, 31)))
    async with _closed_gate(queue_url, tables, "INSERT", _IS_BEGUN):
        rebuild = asyncio.create_task(_rebuild(queue))
        await _waiting(tables)
        assert await tables.value(_KILL_WRITER) == 1
        with pytest.raises(ServiceError):
            await rebuild
        written = await tables.rows(_ENTRIES)
    assert len(written) == 8
    last = await _rebuild(queue)
    assert (last.people_new, last.people_different) == (22, 0)
    assert {tuple(row) for row in written} <= {tuple(row) for row in await tables.rows(_ENTRIES)}
    places = await tables.rows(_PLACES)
    await tables.rows("TRUNCATE queue.entries, queue.applied_facts")
    await _rebuild(queue)
    assert await tables.rows(_PLACES) == places


async def test_a_rebuild_that_its_caller_leaves_makes_room_for_the_next(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    queue.main_app.put(*(unsigned(it) for it in range(1, 9)))
    entered = asyncio.Event()

    async def wait(_: Any) -> None:
        entered.set()
        await asyncio.Event().wait()

    queue.main_app.after_block = wait
    call = queue.stub.Rebuild(queue_pb2.RebuildRequest(actor_id="boss"))
    assert (await anext(aiter(call))).people_read == 2
    await entered.wait()
    call.cancel()
    queue.main_app.after_block = None

    async def again() -> queue_pb2.RebuildResponse | None:
        try:
            return await _rebuild(queue)
        except Conflict:
            return None

    last = await until(again, lambda it: it is not None)
    assert last is not None
    assert (last.phase, last.people_new) == (PHASE_DONE, 8)


async def test_a_backup_that_reads_what_is_staged_stops_no_rebuild(
    desk: Desk, queue: RunningQueue, tables: Tables, queue_url: str
) -> None:
    queue.main_app.put(*(unsigned(it) for it in range(1, 5)))
    engine = create_async_engine(queue_url, poolclass=NullPool)
    async with engine.begin() as backup:
        await backup.execute(text("SELECT count(*) FROM queue.rebuilt_entries"))
        assert (await _rebuild(queue)).people_new == 4
        queue.main_app.put(unsigned(5))
        assert (await _rebuild(queue)).people_new == 1
        assert await tables.value(_STAGED) == 9
    await engine.dispose()
    assert await _purge_expired(queue) == 9


@pytest.fixture
def rules_path(tmp_path: Path) -> Path:
    """The rules in force, in a file of our own."""
    path = tmp_path / "rules.yaml"
    path.write_text(DEFAULT_PATH.read_text(encoding="utf-8"), encoding="utf-8")
    return path


def _change(path: Path) -> None:
    before = path.read_text(encoding="utf-8")
    after = before.replace("lenders: {}", "lenders: {Blue Motor Finance: -5}")
    assert after != before
    path.write_text(after, encoding="utf-8")


_UNAPPLIED = "SELECT count(*) FROM queue.rule_editions WHERE applied_at IS NULL"
_EDITIONS = "SELECT count(*) FROM queue.rule_editions WHERE applied_at IS NOT NULL"


class _Counted(FakeUserContext):
    """Counts its streams."""

    streams = 0

    async def StreamUserFacts(
        self, request: user_context_pb2.StreamUserFactsRequest, context: Context
    ) -> AsyncIterator[user_context_pb2.StreamUserFactsResponse]:
        """Tell of every person."""
        self.streams += 1
        async for block in super().StreamUserFacts(request, context):
            yield block


def _quiet_runs() -> float:
    labels = {"loop": "rules-rebuild", "outcome": "ok"}
    return REGISTRY.get_sample_value("dialler_loop_run_seconds_count", labels) or 0.0


async def test_of_two_copies_one_rebuilds_by_new_rules_and_the_other_says_nothing(
    queue_url: str,
    redis_url: str,
    clock: FakeClock,
    tables: Tables,
    rules_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = _Counted()  # type: ignore[abstract]
    common: dict[str, Any] = {
        "clock": clock,
        "main_app": fake,
        "rules_path": rules_path,
        "rules_interval_seconds": 0.02,
    }
    async with (
        running_queue(queue_url, redis_url, **common) as one,
        running_queue(queue_url, redis_url, **common),
    ):
        await Desk(one).fill(unsigned(1), unsigned(2))
        entered, may_end = asyncio.Event(), asyncio.Event()

        async def wait(_: Any) -> None:
            entered.set()
            await may_end.wait()

        fake.after_block = wait
        _change(rules_path)
        await entered.wait()

        async def runs() -> float:
            return _quiet_runs()

        # The other copy looks again and again meanwhile.
        seen = await runs()
        await until(runs, lambda it: it >= seen + 3)
        may_end.set()
        await until(lambda: tables.value(_EDITIONS), lambda found: found == 2)
        seen = await runs()
        await until(runs, lambda it: it >= seen + 4)
    assert fake.streams == 1
    assert not [it for it in caplog.records if it.levelno >= logging.ERROR]


async def test_new_rules_reach_every_person_though_too_many_would_be_gone(
    queue_url: str, redis_url: str, clock: FakeClock, tables: Tables, rules_path: Path
) -> None:
    """Else the whole rebuild would be repeated for as long as the main app looks empty."""
    fake = _Counted()  # type: ignore[abstract]
    async with running_queue(
        queue_url,
        redis_url,
        clock=clock,
        main_app=fake,
        rules_path=rules_path,
        rules_interval_seconds=0.02,
    ) as queue:
        await Desk(queue).fill(unsigned(1), unsigned(2))
        fake.people.clear()
        _change(rules_path)
        await until(lambda: tables.value(_EDITIONS), lambda found: found == 2)
        assert await tables.value(_UNAPPLIED) == 0
        before = _quiet_runs()

        async def runs() -> float:
            return _quiet_runs()

        await until(runs, lambda it: it >= before + 2)
        assert await _gone(tables) == []
    assert fake.streams == 1


async def test_a_rebuild_behind_pgbouncer_has_its_guard(
    queue_url: str, redis_url: str, clock: FakeClock, tables: Tables
) -> None:
    """There the guard is held by a transaction, since sessions are shared."""
    async with running_queue(queue_url, redis_url, clock=clock, is_behind_pgbouncer=True) as queue:
        desk = Desk(queue)
        await desk.fill(unsigned(1), unsigned(2))
        queue.main_app.put(done(1), unsigned(3))
        refused = []
        states = (
            "SELECT state FROM pg_stat_activity WHERE application_name LIKE 'queue-rebuild-lock@%'"
        )

        async def again(_: Any) -> None:
            assert await tables.value(states) == "idle in transaction"
            try:
                await _rebuild(queue)
            except Conflict as error:
                refused.append(error.reason)

        queue.main_app.after_block = again
        last = await _rebuild(queue)
        assert (last.phase, last.people_written) == (PHASE_DONE, 2)
        assert set(refused) == {"REBUILD_UNDER_WAY"}
