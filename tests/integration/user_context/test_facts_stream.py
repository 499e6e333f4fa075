"""The facts of all people in blocks equal those of live checks, as of one moment."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from dialler.model.v1.facts_pb2 import UserFacts
from dialler.user_context.v1 import user_context_pb2 as pb

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from mainapp import description
from servicekit.database import mysql_engine, postgres_engine
from servicekit.errors import DeadlineExceeded, Unavailable
from services.user_context.batch import facts_stream
from services.user_context.batch.facts_stream import FactsStreams
from services.user_context.mysql.scan import TableScans
from services.user_context.store import FenceStore
from tests.fakes import waiting
from tests.fakes.running_user_context import (
    FactsDecoder,
    RunningUserContext,
    insertion,
    running_user_context,
)

pytestmark = pytest.mark.integration

LAST = 2**64 - 1


async def _blocks(
    service: RunningUserContext, *, after: int = 0, size: int = 0
) -> list[pb.StreamUserFactsResponse]:
    request = pb.StreamUserFactsRequest(after_user_id=after, block_size=size)
    return [block async for block in service.stub.StreamUserFacts(request)]


async def _streamed(
    service: RunningUserContext, *, after: int = 0, size: int = 0
) -> list[UserFacts]:
    decoder = FactsDecoder()
    blocks = await _blocks(service, after=after, size=size)
    return [facts for block in blocks for facts in decoder.people(block)]


async def _checked(service: RunningUserContext, user_ids: list[int]) -> list[UserFacts]:
    found: list[UserFacts] = []
    for start in range(0, len(user_ids), 1_000):
        request = pb.ReadUserFactsRequest(user_ids=user_ids[start : start + 1_000])
        found += (await service.stub.ReadUserFacts(request)).facts
    return found


def _comparable(facts: UserFacts) -> UserFacts:
    """Without what a stream leaves out, and with claims and requirements in an order."""
    plain = UserFacts()
    plain.CopyFrom(facts)
    for claim in plain.claims:
        claim.ClearField("claim_id")
        for requirement in claim.requirements:
            requirement.ClearField("requirement_id")
            requirement.ClearField("created_at")
        claim.requirements.sort(key=lambda it: it.SerializeToString(deterministic=True))
    plain.claims.sort(key=lambda it: it.SerializeToString(deterministic=True))
    return plain


async def _assert_same(service: RunningUserContext, size: int) -> list[UserFacts]:
    streamed = await _streamed(service, size=size)
    checked = await _checked(service, [facts.user_id for facts in streamed])
    assert [_comparable(facts) for facts in streamed] == [_comparable(facts) for facts in checked]
    return streamed


def _odd_people(main_app: MainAppDatabase) -> None:
    """People as they come up in few places, or ought never to."""

    def user(user_id: int, **values: object) -> None:
        main_app.execute(
            *insertion("users", id=user_id, email_address=f"{user_id}@example.com", **values)
        )

    def claim(claim_id: int, user_id: int, **values: object) -> None:
        main_app.execute(*insertion("claims", id=claim_id, user_id=user_id, type="pcp", **values))

    def requirement(number: int, claim_id: int, **values: object) -> None:
        named = {"id": f"odd-{number:032d}", "claim_id": claim_id, "type": "cfa"} | values
        main_app.execute(*insertion("claim_requirements", **named))

    user(1_001)
    user(1_002, phone_number="07700 900\n123", status="Zażółć \x1f\x00 😀", is_enabled=0)
    user(1_003, phone_number="  +44 (0)7700-900-123 ", date_of_birth="1900-02-28")
    user(1_004, phone_number="+1 202 555 0123 x5", created_at="1970-01-01 00:00:01")
    user(1_005, phone_number="", status="", date_of_birth="2004-02-29")
    user(1_006, created_at="2038-01-19 03:14:07", current_signature_file_id="s" * 36)
    # Equal in everything, twice: nothing may be merged.
    for number in (0, 1):
        claim(9_000_010 + number, 1_005, created_at="2024-05-01 10:00:00", lender="Bank")
        requirement(number, 9_000_010 + number, status="PENDING", claim_requirement_reason="")
        requirement(number + 2, 9_000_010 + number, status="PENDING", claim_requirement_reason="")
    claim(9_000_020, 1_006, status="complete")
    claim(9_000_021, 1_006, status="Cancelled ", lender="", created_at="2024-05-01 10:00:00")
    claim(9_000_022, 1_006, status="", lender="Ünïversal 🏦", created_at="2024-05-01 10:00:00")
    requirement(5, 9_000_022, type="", status=None, claim_requirement_reason="é" * 20_000)
    user(1_007, phone_number="07700900557 (mobile)")
    user(1_008, phone_number="07700900560 / 02079460018, 07700900561 wife")
    user(1_009, phone_number="447700900558.0")
    user(1_010, phone_number="02079460018 07700900560")
    user(2**63 + 5)
    claim(2**64 - 2, 2**63 + 5, lender="Bank", created_at="2024-05-01 10:00:00")
    requirement(6, 2**64 - 2, status="PENDING", claim_requirement_reason="base requirement")
    user(LAST, phone_number="not a number")


@pytest.mark.parametrize("size", [1, 7, 0])
async def test_the_stream_has_the_facts_of_a_live_check_for_every_person(
    seeded_user_context: RunningUserContext, seeded_mainapp: MainAppDatabase, size: int
) -> None:
    _odd_people(seeded_mainapp)
    seeded_mainapp.execute("UPDATE claims SET created_at = NULL WHERE id % 7 = 0")
    seeded_mainapp.execute("UPDATE claims SET created_at = '2024-01-01' WHERE user_id % 9 = 0")
    streamed = await _assert_same(seeded_user_context, size)

    ids = [facts.user_id for facts in streamed]
    assert ids == [*range(1, 301), *range(1_001, 1_011), 2**63 + 5, LAST]
    firsts = {facts.user_id: facts.phone_e164 for facts in streamed}
    assert (firsts[1_003], firsts[1_004], firsts[LAST]) == ("+447700900123", "+12025550123", "")
    phones = {facts.user_id: list(facts.phones.e164) for facts in streamed}
    assert [phones[it] for it in range(1_007, 1_011)] == [
        ["+447700900557"],
        ["+447700900560", "+442079460018", "+447700900561"],
        ["+447700900558"],
        ["+442079460018", "+447700900560"],
    ]
    assert (firsts[1_008], firsts[1_010]) == ("+447700900560", "+442079460018")


async def test_pages_of_few_rows_and_turns_of_few_people_make_no_difference(
    seeded_user_context: RunningUserContext,
    seeded_mainapp: MainAppDatabase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _odd_people(seeded_mainapp)
    expected = await _streamed(seeded_user_context)
    monkeypatch.setattr(facts_stream, "ROWS_PER_PAGE", 3)
    monkeypatch.setattr(facts_stream, "PEOPLE_PER_TURN", 2)
    monkeypatch.setattr(facts_stream, "BLOCK_BYTES", 400)
    monkeypatch.setattr(facts_stream, "SHARED_FACTS_REMEMBERED", 5)
    blocks = await _blocks(seeded_user_context, size=50)

    decoder = FactsDecoder()
    found = [facts for block in blocks for facts in decoder.people(block)]
    # Shared facts may list claims in any order that the columns follow.
    assert list(map(_comparable, found)) == list(map(_comparable, expected))
    assert len(blocks) > 7, "no block has ended early"


async def test_blocks_cover_every_person_up_to_their_end_and_the_last_all_people(
    user_context: RunningUserContext, mainapp_database: MainAppDatabase
) -> None:
    for user_id in (3, 4, 10, 11, 90):
        mainapp_database.execute(
            *insertion("users", id=user_id, email_address=f"{user_id}@example.com")
        )
    mainapp_database.execute("DELETE FROM users WHERE id = 4")

    def spans(blocks: list[pb.StreamUserFactsResponse]) -> list[tuple[list[int], int]]:
        return [(list(block.user_ids), block.through_user_id) for block in blocks]

    three = await _blocks(user_context, size=3)
    two = await _blocks(user_context, size=2)

    assert spans(three) == [([3, 10, 11], 11), ([90], LAST)]
    assert spans(two) == [([3, 10], 10), ([11, 90], 90), ([], LAST)]
    assert {block.last_user_id for block in (*two, *three)} == {90}
    assert spans(await _blocks(user_context, after=10)) == [([11, 90], LAST)]
    assert spans(await _blocks(user_context, after=90)) == [([], LAST)]
    assert spans(await _blocks(user_context, size=4_000_000_000)) == [([3, 10, 11, 90], LAST)]


async def test_a_main_app_without_people_is_one_block_without_people(
    user_context: RunningUserContext,
) -> None:
    (block,) = await _blocks(user_context)

    assert (list(block.user_ids), block.through_user_id, block.last_user_id) == ([], LAST, 0)
    assert block.version > 0


async def test_a_stream_that_begins_further_on_has_the_same_people(
    seeded_user_context: RunningUserContext,
) -> None:
    all_people = await _streamed(seeded_user_context)
    rest = await _streamed(seeded_user_context, after=120, size=50)

    assert [_comparable(it) for it in rest] == [_comparable(it) for it in all_people[120:]]


async def test_equal_shared_facts_and_lenders_are_sent_once(
    seeded_user_context: RunningUserContext,
) -> None:
    blocks = await _blocks(seeded_user_context, size=20)

    shared_facts = [it.SerializeToString() for block in blocks for it in block.new_shared_facts]
    lenders = [lender for block in blocks for lender in block.new_lenders]
    assert len(shared_facts) == len(set(shared_facts)) < 300
    assert len(lenders) == len(set(lenders)) > 5


async def test_versions_are_of_the_same_sequence_as_those_of_refreshes(
    seeded_user_context: RunningUserContext,
) -> None:
    async def refreshed() -> int:
        request = pb.RefreshUsersRequest(user_ids=[1])
        return (await seeded_user_context.stub.RefreshUsers(request)).facts[0].version

    before = await refreshed()
    versions = {block.version for block in await _blocks(seeded_user_context, size=100)}
    after = await refreshed()

    assert all(before < version < after for version in versions)


class _ChangedAfterTheVersion(FenceStore):
    """Gives a version, and then the main app changes before the caller can go on."""

    change: Callable[[], object]

    async def draw_version(self) -> int:
        version = await super().draw_version()
        self.change()
        return version


async def test_what_changed_after_the_version_was_drawn_is_in_the_blocks(
    seeded_user_context: RunningUserContext, seeded_mainapp: MainAppDatabase
) -> None:
    """Else a block could carry a later version than a refresh that has seen more."""
    settings = seeded_user_context.settings
    mysql = mysql_engine(
        settings.mysql_url.get_secret_value(), pool_size=1, statement_timeout_seconds=5.0
    )
    postgres = postgres_engine(
        settings.postgres_url.get_secret_value(),
        pool_size=1,
        application_name="test",
        statement_timeout_seconds=5.0,
    )
    fences = _ChangedAfterTheVersion(postgres)
    fences.change = lambda: seeded_mainapp.execute("UPDATE users SET status = 'after' WHERE id = 7")
    streams = FactsStreams(TableScans(mysql, description.load()), fences, most_seconds=30.0)
    decoder = FactsDecoder()
    people = [
        facts
        async for block in streams.blocks(0, 100)
        for facts in decoder.people(pb.StreamUserFactsResponse.FromString(block))
    ]
    await mysql.dispose()
    await postgres.dispose()

    assert people[6].status == "after"


async def test_a_stream_is_of_one_moment(
    seeded_user_context: RunningUserContext, seeded_mainapp: MainAppDatabase
) -> None:
    """A writer moves a claim with its requirement between the first and the last person, and says
    at each of them which way; no stream may find it with both, with neither, or the wrong one."""
    first, last = 1, 300
    seeded_mainapp.execute("DELETE FROM claims WHERE user_id IN (1, 300)")
    seeded_mainapp.execute(*insertion("claims", id=900_001, user_id=first, type="pcp"))
    seeded_mainapp.execute(
        *insertion("claim_requirements", id="r" * 36, claim_id=900_001, type="cfa")
    )
    done = asyncio.Event()

    def write() -> None:
        with seeded_mainapp.connect() as connection, connection.cursor() as cursor:
            number = 0
            while not done.is_set():
                number += 1
                holder = (first, last)[number % 2]
                connection.begin()
                cursor.execute("UPDATE claims SET user_id = %s WHERE id = 900001", [holder])
                cursor.execute("UPDATE users SET status = %s WHERE id IN (1, 300)", [str(holder)])
                cursor.execute(
                    "UPDATE claim_requirements SET claim_requirement_reason = %s WHERE id = %s",
                    [str(holder), "r" * 36],
                )
                connection.commit()

    seeded_mainapp.execute("UPDATE users SET status = '1' WHERE id IN (1, 300)")
    seeded_mainapp.execute(
        "UPDATE claim_requirements SET claim_requirement_reason = '1' WHERE claim_id = 900001"
    )
    writer = asyncio.create_task(asyncio.to_thread(write))
    seen: list[int] = []
    until = waiting.deadline(10)
    try:
        while (len(seen) < 30 or len(set(seen)) < 2) and time.monotonic() < until:
            people = await _streamed(seeded_user_context, size=20)
            (holder,) = [it for it in (people[0], people[-1]) if it.claims]
            (requirement,) = holder.claims[0].requirements
            shown = {people[0].status, people[-1].status, requirement.reason, str(holder.user_id)}
            assert len(shown) == 1
            seen.append(holder.user_id)
    finally:
        done.set()
        await writer
    assert set(seen) == {first, last}


async def test_a_stream_sends_a_constant_number_of_statements_for_a_block(
    seeded_user_context: RunningUserContext, mysql_statements: list[str]
) -> None:
    await _blocks(seeded_user_context)
    before = len(mysql_statements)
    await _blocks(seeded_user_context)

    sent = [it for it in mysql_statements[before:] if it != "SELECT 1"]
    assert len(sent) == 6, sent


@pytest.fixture
async def slow_reader(
    seeded_mainapp: MainAppDatabase, postgres_database: PostgresDatabase, redis_url: str
) -> AsyncIterator[RunningUserContext]:
    """The service with little time for streams."""
    async with running_user_context(
        mysql_url=seeded_mainapp.url,
        postgres_url=postgres_database.url,
        redis_url=redis_url,
        mysql_stream_seconds=3.0,
    ) as running:
        yield running


def _widen(main_app: MainAppDatabase) -> None:
    """Blocks of one person that exceed what gRPC keeps for a client that does not read."""
    main_app.execute(
        "UPDATE claim_requirements SET claim_requirement_reason = CONCAT(id, %s)", ["x" * 30_000]
    )


async def _eventually(holds: Callable[[], bool], what: str) -> None:
    until = waiting.deadline(10)
    while not holds():
        assert time.monotonic() < until, f"waited for {what}"
        # InnoDB shows the same answer again to who asks more often than ten times a second.
        await asyncio.sleep(0.2)


async def _read_to_the_end(blocks: AsyncIterator[Any]) -> None:
    async for _ in blocks:
        pass


def _snapshots(main_app: MainAppDatabase) -> int:
    with main_app.server.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema."
            "processlist p ON p.id = t.trx_mysql_thread_id WHERE p.db = %s",
            [main_app.name],
        )
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


async def test_a_client_that_does_not_read_holds_up_the_reading_and_its_going_ends_it(
    seeded_user_context: RunningUserContext,
    seeded_mainapp: MainAppDatabase,
    mysql_statements: list[str],
) -> None:
    _widen(seeded_mainapp)
    before = len(mysql_statements)
    call = seeded_user_context.stub.StreamUserFacts(pb.StreamUserFactsRequest(block_size=1))
    await call.read()
    await asyncio.sleep(0.5)
    held = len(mysql_statements)
    assert held - before < 250, "all people have been read ahead"
    assert _snapshots(seeded_mainapp) == 1

    call.cancel()

    await _eventually(lambda: _snapshots(seeded_mainapp) == 0, "the snapshot to be let go")
    assert len(mysql_statements) - held < 5
    assert len(await _streamed(seeded_user_context, size=20)) == 300


async def test_a_client_that_is_too_slow_gets_an_error_and_holds_no_snapshot(
    slow_reader: RunningUserContext, seeded_mainapp: MainAppDatabase
) -> None:
    _widen(seeded_mainapp)
    call = slow_reader.stub.StreamUserFacts(pb.StreamUserFactsRequest(block_size=1))
    blocks = aiter(call)
    await anext(blocks)

    await _eventually(lambda: _snapshots(seeded_mainapp) == 0, "the snapshot to be let go")
    with pytest.raises(DeadlineExceeded) as refused:
        await _read_to_the_end(blocks)
    assert refused.value.reason == "STREAM_TOO_SLOW"


async def test_one_stream_at_a_time(
    seeded_user_context: RunningUserContext, seeded_mainapp: MainAppDatabase
) -> None:
    _widen(seeded_mainapp)
    call = seeded_user_context.stub.StreamUserFacts(pb.StreamUserFactsRequest(block_size=1))
    await call.read()

    with pytest.raises(Unavailable) as refused:
        await _blocks(seeded_user_context)
    assert refused.value.reason == "MAIN_APP_UNAVAILABLE"
    call.cancel()
