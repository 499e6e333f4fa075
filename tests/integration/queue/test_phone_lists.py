"""Lists of numbers: whole editions, in force at once, whatever ends an import."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from servicekit.errors import Conflict, FailedPrecondition, InvalidArgument
from services.queue.store.database import PHONES_GUARD, Database
from services.queue.store.phone_lists import begin, is_listed, load
from services.queue.types import EditionState
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY
SUPPRESSED = call_state_pb2.ENTRY_STATE_SUPPRESSED

IDLE_SECONDS = 120.0
# So small that a few numbers are several batches, and the first of them come in before the last.
SETTINGS: dict[str, Any] = {
    "phone_list_batch": 3,
    "phone_list_idle_seconds": IDLE_SECONDS,
    "phone_list_interval_seconds": 0.02,
    "promotion_interval_seconds": 0.02,
    "dispatch_interval_seconds": 0.05,
}


@pytest.fixture
async def queue(queue_url: str, redis_url: str, clock: FakeClock) -> AsyncIterator[RunningQueue]:
    """A queue that takes numbers in by threes."""
    async with running_queue(queue_url, redis_url, clock=clock, **SETTINGS) as running:
        yield running


def _csv(*user_ids: int) -> bytes:
    """Return a list of the numbers of these people."""
    return "".join(f"07700900{it:03d}\n" for it in user_ids).encode()


class Upload:
    """An import whose parts are sent one by one, as the test says."""

    def __init__(self, queue: RunningQueue, list_name: str = "tps") -> None:
        self._parts: asyncio.Queue[queue_pb2.ImportSuppressedPhonesRequest | None] = asyncio.Queue()
        head = queue_pb2.ImportSuppressedPhonesRequest(
            list_name=list_name, actor_id="boss", is_complete=True
        )
        self._parts.put_nowait(head)
        self.call = asyncio.ensure_future(
            queue.stub.ImportSuppressedPhones(self._sent(), timeout=30)
        )

    def send(self, *user_ids: int) -> None:
        """Send the numbers of these people; an empty line for none."""
        csv = _csv(*user_ids) or b"\n"
        self._parts.put_nowait(queue_pb2.ImportSuppressedPhonesRequest(csv=csv))

    async def finish(self) -> queue_pb2.ImportSuppressedPhonesResponse:
        """Say that nothing follows; returns the answer."""
        self._parts.put_nowait(queue_pb2.ImportSuppressedPhonesRequest(is_last=True))
        self._parts.put_nowait(None)
        return await self.call

    async def cut_off(self) -> None:
        """Go away without a word."""
        self.call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.call

    async def _sent(self) -> AsyncIterator[queue_pb2.ImportSuppressedPhonesRequest]:
        while (part := await self._parts.get()) is not None:
            yield part


async def _states(desk: Desk, *user_ids: int) -> list[call_state_pb2.EntryState.ValueType]:
    return [(await desk.state(it)).state for it in user_ids]


async def _editions(tables: Tables, state: EditionState) -> int:
    sql = "SELECT count(*) FROM queue.phone_list_editions WHERE state = :state"
    return int(await tables.value(sql, state=int(state)))


async def _numbers_loading(tables: Tables) -> int:
    sql = "SELECT coalesce(sum(numbers), 0) FROM queue.phone_list_editions WHERE state = 1"
    return int(await tables.value(sql))


async def _loaded(tables: Tables, numbers: int) -> None:
    """Wait until so many numbers have come into the edition that is loading."""
    await until(lambda: _numbers_loading(tables), lambda it: it == numbers)


@asynccontextmanager
async def _no_person_placed(queue_url: str) -> AsyncIterator[None]:
    """Hold what placing waits for, as facts that are being applied do."""
    engine = create_async_engine(queue_url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            lock = text("SELECT pg_advisory_xact_lock_shared(:guard)")
            await connection.execute(lock, {"guard": PHONES_GUARD})
            yield
    finally:
        await engine.dispose()


async def _is_in_force(tables: Tables) -> None:
    """Wait until a list is in force."""
    await until(lambda: _editions(tables, EditionState.CURRENT), lambda it: it == 1)


async def test_a_later_edition_replaces_the_one_before_at_once_and_never_half(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 9)))
    await desk.import_phones(_csv(1, 2, 3, 4), is_complete=True)
    upload = Upload(queue)
    upload.send(3, 4, 5, 6, 7, 8)
    await _loaded(tables, 6)
    # All of it has come in, and nothing of it counts yet.
    assert await _states(desk, *range(1, 9)) == [SUPPRESSED] * 4 + [READY] * 4
    held = (await desk.claim("agent")).assignment
    assert held.user_id == 8
    await desk.release(held)
    answer = await upload.finish()
    assert (answer.added, answer.removed) == (4, 2)
    assert (answer.people_suppressed, answer.people_released) == (4, 2)
    assert await _states(desk, *range(1, 9)) == [READY] * 2 + [SUPPRESSED] * 6
    assert (await desk.claim("agent")).assignment.user_id == 2


async def test_no_listed_person_is_handed_out_before_all_are_placed_and_claims_go_on(
    desk: Desk, queue_url: str, tables: Tables
) -> None:
    """More of them are at the head than a claim may turn down."""
    listed, free = range(10, 160), (1, 2, 3)
    await desk.fill(*(unsigned(it) for it in (*free, *listed)))
    async with _no_person_placed(queue_url):
        importing = asyncio.ensure_future(desk.import_phones(_csv(*listed), cut=500))
        await _is_in_force(tables)
        claimed = [await desk.claim(f"agent-{it}") for it in range(4)]
        assert await _states(desk, 10, 159) == [READY, READY]
    assert [it.assignment.user_id for it in claimed[:3]] == [3, 2, 1]
    assert claimed[3].HasField("empty")
    assert (await importing).people_suppressed == len(listed)
    assert set(await _states(desk, *listed)) == {SUPPRESSED}


async def test_a_person_listed_while_a_claim_checks_them_is_not_handed_out(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    """The importer dies as soon as its list is in force: the hand-out itself looks, and places."""
    await desk.fill(unsigned(1), unsigned(2))

    async def meanwhile(user_ids: object) -> None:
        queue.main_app.after_read = None
        await tables.rows(
            "WITH edition AS (INSERT INTO queue.phone_list_editions (list_name, state, actor_id,"
            " began_at, loaded_through_at, became_current_at, numbers, is_complete, is_placed)"
            " VALUES ('tps', 2, 'boss', '2100-01-01', '2100-01-01', '2100-01-01', 1, true, false)"
            " RETURNING edition_id)"
            " INSERT INTO queue.list_numbers SELECT '+447700900002', edition_id FROM edition"
        )

    queue.main_app.after_read = meanwhile
    assert (await desk.claim("agent")).assignment.user_id == 1
    assert (await desk.state(2)).reason == "PHONE_LISTED"


async def test_an_import_that_is_cut_off_has_no_effect_and_leaves_nothing(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 9)))
    await desk.import_phones(_csv(1, 2), is_complete=True)
    upload = Upload(queue)
    upload.send(2, 3, 4, 5, 6, 7)
    await _loaded(tables, 6)
    await upload.cut_off()
    await until(lambda: tables.value("SELECT count(*) FROM queue.list_numbers"), lambda it: it == 2)
    assert await _editions(tables, EditionState.LOADING) == 0
    assert await _states(desk, 1, 2, 3, 7) == [SUPPRESSED, SUPPRESSED, READY, READY]
    again = await desk.import_phones(_csv(2, 3, 4, 5, 6, 7), is_complete=True)
    assert (again.added, again.removed, again.people_suppressed) == (5, 1, 5)


async def test_what_a_killed_importer_leaves_blocks_its_list_for_two_minutes_at_most(
    desk: Desk, queue_url: str, tables: Tables, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    engine = create_async_engine(queue_url, poolclass=NullPool)
    async with Database(engine).transaction() as tx:
        now = clock.now()
        dead = await begin(
            tx, "tps", "boss", is_complete=True, dated_on=None, source="", now=now, idle_since=now
        )
        assert dead is not None
        await load(tx, dead, "tps", ["+447700900001"], now)
    clock.advance(IDLE_SECONDS - 1)
    with pytest.raises(Conflict) as raised:
        await desk.import_phones(_csv(2))
    assert raised.value.reason == "LIST_IMPORT_UNDER_WAY"
    clock.advance(2)
    assert (await desk.import_phones(_csv(2))).added == 1
    async with Database(engine).transaction() as tx:
        assert await load(tx, dead, "tps", ["+447700900001"], clock.now()) is None
    await engine.dispose()
    assert await _states(desk, 1, 2) == [READY, SUPPRESSED]
    await until(lambda: tables.value("SELECT count(*) FROM queue.list_numbers"), lambda it: it == 1)
    await until(lambda: _editions(tables, EditionState.RETIRED), lambda it: it == 0)


async def test_of_two_imports_of_one_list_the_second_is_refused_and_another_list_is_not(
    desk: Desk, queue: RunningQueue, tables: Tables
) -> None:
    await desk.fill(unsigned(1), unsigned(2), unsigned(3))
    upload = Upload(queue)
    upload.send(1, 1, 1)
    await _loaded(tables, 1)
    for is_complete in (True, False):
        with pytest.raises(Conflict) as raised:
            await desk.import_phones(_csv(2), is_complete=is_complete)
        assert raised.value.reason == "LIST_IMPORT_UNDER_WAY"
    await desk.import_phones(_csv(3), list_name="own", is_complete=True)
    assert (await upload.finish()).added == 1
    assert await _states(desk, 1, 2, 3) == [SUPPRESSED, READY, SUPPRESSED]


async def test_a_slow_import_is_not_taken_for_one_that_is_cut_off(
    queue: RunningQueue, tables: Tables, clock: FakeClock
) -> None:
    upload = Upload(queue)
    began_at = clock.now()
    for number in range(1, 6):
        upload.send(number)
        while await _numbers_loading(tables) < number:
            clock.advance(1)
            upload.send()
    assert clock.now() - began_at > timedelta(seconds=IDLE_SECONDS)
    assert (await upload.finish()).added == 5


async def test_an_import_that_stands_still_is_overtaken_and_says_so(
    desk: Desk, queue: RunningQueue, tables: Tables, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    upload = Upload(queue)
    upload.send(1, 1, 1)
    await _loaded(tables, 1)
    clock.advance(IDLE_SECONDS + 1)
    assert (await desk.import_phones(_csv(2), is_complete=True)).added == 1
    with pytest.raises(Conflict) as raised:
        await upload.finish()
    assert raised.value.reason == "LIST_IMPORT_OVERTAKEN"
    assert await _states(desk, 1, 2) == [READY, SUPPRESSED]


async def test_another_copy_places_the_people_of_an_importer_that_has_died(
    queue_url: str, redis_url: str, tables: Tables, clock: FakeClock
) -> None:
    """With the list in force, and one person placed by the importer or none."""
    async with running_queue(queue_url, redis_url, clock=clock, **SETTINGS) as first:
        await Desk(first).fill(unsigned(1), unsigned(2), unsigned(3))
        await Desk(first).import_phones(_csv(1), is_complete=True)
        await until(lambda: _editions(tables, EditionState.CURRENT), lambda it: it == 1)
        async with _no_person_placed(queue_url):
            upload = Upload(first)
            upload.send(2, 3)
            finishing = asyncio.ensure_future(upload.finish())
            # The edition before is retired, and may be deleted at once.
            in_force = "SELECT max(numbers) FROM queue.phone_list_editions WHERE state = 2"
            await until(lambda: tables.value(in_force), lambda it: it == 2)
            finishing.cancel()
        assert await _states(Desk(first), 1, 2, 3) == [SUPPRESSED, READY, READY]
    clock.advance(IDLE_SECONDS + 1)
    async with running_queue(queue_url, redis_url, clock=clock, **SETTINGS) as second:
        for user_id, state in ((1, READY), (2, SUPPRESSED), (3, SUPPRESSED)):
            await Desk(second).becomes(user_id, state)
        is_placed = "SELECT bool_and(is_placed) FROM queue.phone_list_editions WHERE state = 2"
        await until(lambda: tables.value(is_placed), bool)


async def test_a_list_may_grow_by_parts_and_shrink_as_a_whole(desk: Desk) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 5)))
    assert (await desk.import_phones(_csv(1, 2, 1))).added == 2
    part = await desk.import_phones(_csv(2, 3))
    assert (part.added, part.removed, part.people_suppressed) == (1, 0, 1)
    whole = await desk.import_phones(_csv(3, 4), is_complete=True)
    assert (whole.added, whole.removed) == (1, 2)
    assert (whole.people_suppressed, whole.people_released) == (1, 2)
    assert await _states(desk, 1, 2, 3, 4) == [READY, READY, SUPPRESSED, SUPPRESSED]


async def test_a_number_on_two_lists_is_free_when_it_has_left_both(desk: Desk) -> None:
    await desk.fill(unsigned(1))
    for name in ("tps", "own"):
        await desk.import_phones(_csv(1), list_name=name)
    left = await desk.import_phones(_csv(2), list_name="own", is_complete=True)
    assert (left.removed, left.people_released) == (1, 0)
    assert await _states(desk, 1) == [SUPPRESSED]
    left = await desk.import_phones(_csv(2), list_name="tps", is_complete=True)
    assert (left.removed, left.people_released) == (1, 1)


async def test_a_complete_list_that_lacks_too_much_is_refused_unless_it_is_meant(
    desk: Desk,
) -> None:
    await desk.fill(unsigned(1), unsigned(200))
    await desk.import_phones(_csv(*range(1, 151)), is_complete=True, cut=500)
    with pytest.raises(FailedPrecondition) as raised:
        await desk.import_phones(_csv(*range(77, 151), 200), is_complete=True, cut=500)
    assert raised.value.reason == "LIST_SHRINKS"
    assert raised.value.metadata == {"numbers": "150", "removed": "76"}
    assert await _states(desk, 1, 200) == [SUPPRESSED, READY]
    half = await desk.import_phones(_csv(*range(76, 151)), is_complete=True, cut=500)
    assert (half.removed, half.people_released) == (75, 1)
    # Of a list as short as this nothing can be told.
    assert (await desk.import_phones(_csv(100), is_complete=True)).removed == 74
    await desk.import_phones(_csv(*range(1, 151)), is_complete=True, cut=500)
    meant = await desk.import_phones(_csv(200), is_complete=True, allow_shrink=True)
    assert (meant.added, meant.removed) == (1, 150)
    assert await _states(desk, 1, 200) == [READY, SUPPRESSED]


async def test_a_complete_list_without_its_end_takes_no_number_off(
    desk: Desk, queue: RunningQueue
) -> None:
    """A sender that does not ask for it is protected all the same."""
    await desk.fill(unsigned(1), unsigned(2))
    await desk.import_phones(_csv(1, 2))
    request = queue_pb2.ImportSuppressedPhonesRequest

    async def torn() -> AsyncIterator[queue_pb2.ImportSuppressedPhonesRequest]:
        yield request(list_name="tps", actor_id="boss", is_complete=True)
        yield request(csv=_csv(1))

    with pytest.raises(InvalidArgument) as raised:
        await queue.stub.ImportSuppressedPhones(torn())
    assert raised.value.reason == "LIST_TRUNCATED"
    assert await _states(desk, 1, 2) == [SUPPRESSED, SUPPRESSED]


async def test_numbers_are_looked_up_one_by_one_however_many_there_are(tables: Tables) -> None:
    """Joined, all numbers of all lists would be read by every claim."""
    listed = is_listed("entries.phone_e164")
    plan = await tables.plan(f"SELECT user_id FROM queue.entries WHERE NOT {listed}")
    assert "list_numbers_pkey" in plan
    assert "SubPlan" in plan
    assert "Join" not in plan


async def test_a_list_of_numbers_in_any_spelling_takes_effect_at_once(desk: Desk) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 6)))
    csv = (
        "name,phone\r\n"
        "x,07700 900001\r\n"
        'y,"+44 (0)7700 900002"\r\n'
        "z,7700900003\r\n"
        "q,not a number\r\n"
        "\r\n"
        "p,00447700900777\r\n"
    ).encode("utf-8-sig")
    answer = await desk.import_phones(csv)
    assert (answer.lines, answer.added, answer.invalid) == (5, 4, 1)
    assert list(answer.invalid_lines) == [5]
    assert answer.people_suppressed == 3
    states = [(await desk.state(it)).state for it in range(1, 6)]
    assert states == [SUPPRESSED] * 3 + [READY] * 2
    assert (await desk.state(1)).reason == "PHONE_LISTED"
    again = await desk.import_phones(csv)
    assert (again.added, again.people_suppressed) == (0, 0)
    await desk.fill(unsigned(777))
    assert (await desk.state(777)).state == SUPPRESSED


async def test_a_complete_list_frees_people_who_have_left_it(desk: Desk) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    await desk.import_phones(b"07700900001\n07700900002\n")
    answer = await desk.import_phones(b"07700900002\n", is_complete=True)
    assert (answer.added, answer.removed, answer.people_released) == (0, 1, 1)
    assert (await desk.state(1)).state == READY
    assert (await desk.state(2)).state == SUPPRESSED
    with pytest.raises(InvalidArgument) as raised:
        await desk.import_phones(b"name\nnobody\n", is_complete=True)
    assert raised.value.reason == "LIST_EMPTY"
    assert (await desk.state(2)).state == SUPPRESSED


@pytest.mark.parametrize(
    ("csv", "list_name", "reason"),
    [
        (b"\xff\xfe0\x007\x00", "tps", "CSV_NOT_UTF8"),
        (b"0" * 20_000, "tps", "CSV_LINE_TOO_LONG"),
        (b"07700900001\n", "", "LIST_NAME_INVALID"),
    ],
)
async def test_a_list_that_is_none_changes_nothing(
    desk: Desk, tables: Tables, csv: bytes, list_name: str, reason: str
) -> None:
    await desk.fill(unsigned(1))
    with pytest.raises(InvalidArgument) as raised:
        await desk.import_phones(b"07700900001\n" + csv, list_name=list_name, cut=5_000)
    assert raised.value.reason == reason
    assert (await desk.state(1)).state == READY
    assert await tables.value("SELECT count(*) FROM queue.phone_list_editions WHERE state = 2") == 0


async def test_a_number_listed_while_a_new_person_is_added_is_never_missed(
    desk: Desk, queue: RunningQueue
) -> None:
    for user_id in range(1, 41):
        queue.main_app.put(unsigned(user_id))
    csv = "".join(f"07700900{it:03d}\n" for it in range(1, 41)).encode()
    # As many as have a connection each: on a busy machine the rest would wait for too long.
    at_once = asyncio.Semaphore(4)

    async def apply(user_id: int) -> None:
        async with at_once:
            await desk.apply(user_id)

    await asyncio.gather(
        *(apply(user_id) for user_id in range(1, 41)), desk.import_phones(csv, cut=200)
    )
    states = [await desk.state(it) for it in range(1, 41)]
    assert {it.state for it in states} == {SUPPRESSED}


async def test_a_dry_run_counts_what_the_import_then_does(desk: Desk, tables: Tables) -> None:
    """Of lists that add, replace and release; people with another block are no change."""
    await desk.fill(*(unsigned(it) for it in range(1, 9)))
    await desk.suppress(8)
    await desk.import_phones(_csv(1, 2, 3), is_complete=True)
    await desk.import_phones(_csv(3), list_name="own")
    for csv, is_complete in ((_csv(4, 5, 8), False), (_csv(1, 6), True), (_csv(7), True)):
        before = await _states(desk, *range(1, 9))
        tried = await desk.import_phones(csv, is_complete=is_complete, dry_run=True)
        assert await _states(desk, *range(1, 9)) == before
        assert await _editions(tables, EditionState.LOADING) == 0
        done = await desk.import_phones(csv, is_complete=is_complete)
        assert tried == done
        assert done.people_suppressed + done.people_released > 0


async def test_a_dry_run_is_refused_as_the_import_would_be(desk: Desk) -> None:
    await desk.import_phones(_csv(*range(1, 151)), is_complete=True, cut=500)
    with pytest.raises(FailedPrecondition) as raised:
        await desk.import_phones(_csv(200), is_complete=True, dry_run=True)
    assert raised.value.reason == "LIST_SHRINKS"


async def test_a_list_is_of_the_day_of_its_latest_edition_and_grows_old(
    desk: Desk, queue: RunningQueue, clock: FakeClock
) -> None:
    async def lists() -> dict[str, queue_pb2.PhoneList]:
        answer = await queue.stub.ListPhoneLists(queue_pb2.ListPhoneListsRequest())
        return {it.list_name: it for it in answer.lists}

    today = clock.now().date()
    day = (today - timedelta(days=20)).isoformat()
    await desk.import_phones(_csv(1, 2), is_complete=True, dated_on=day, source="tps-full.csv")
    await desk.import_phones(_csv(3), list_name="own")
    found = await lists()
    assert (found["tps"].dated_on, found["tps"].oldest_days, found["tps"].is_old) == (
        day,
        28,
        False,
    )
    assert (found["own"].dated_on, found["own"].HasField("oldest_days")) == (str(today), False)
    clock.advance(9 * 86_400)
    assert (await lists())["tps"].is_old
    # An addition makes it younger; what it added to is still there to see.
    await desk.import_phones(_csv(3, 4))
    tps = (await lists())["tps"]
    assert (tps.is_old, tps.numbers) == (False, 4)
    complete, addition = tps.editions
    assert (complete.is_complete, complete.numbers, complete.source) == (True, 2, "tps-full.csv")
    assert (complete.imported_by, complete.dated_on) == ("boss", day)
    assert (addition.is_complete, addition.numbers, addition.dated_on) == (False, 2, "")


@pytest.mark.parametrize("dated_on", ["yesterday", "2126-01-01"])
async def test_a_list_of_no_day_or_of_a_day_to_come_is_refused(desk: Desk, dated_on: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await desk.import_phones(_csv(1), dated_on=dated_on)
    assert raised.value.reason == "LIST_DATE_INVALID"
