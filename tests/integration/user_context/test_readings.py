"""Refreshes, live checks and look-ups, and what they cost the main app."""

import asyncio
import re
import time

import pytest
from dialler.model.v1 import facts_pb2
from dialler.user_context.v1 import user_context_pb2 as pb
from prometheus_client import REGISTRY

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from mainapp import description
from servicekit.database import mysql_engine
from servicekit.errors import Internal, InvalidArgument
from services.user_context.mysql.snapshots import answer_at_once, read_at_once
from services.user_context.settings import UserContextSettings
from tests.fakes import waiting
from tests.fakes.running_user_context import RunningUserContext, insertion, running_user_context

pytestmark = pytest.mark.integration

_DESCRIBED = description.load()


async def _refresh(service: RunningUserContext, *user_ids: int) -> list[facts_pb2.UserFacts]:
    response = await service.stub.RefreshUsers(pb.RefreshUsersRequest(user_ids=user_ids))
    return list(response.facts)


async def _facts(service: RunningUserContext, *user_ids: int) -> list[facts_pb2.UserFacts]:
    response = await service.stub.ReadUserFacts(pb.ReadUserFactsRequest(user_ids=user_ids))
    return list(response.facts)


async def test_a_refresh_returns_what_a_live_check_does_and_a_version(
    seeded_user_context: RunningUserContext,
) -> None:
    wanted = [*range(1, 301), 10**15]
    refreshed = await _refresh(seeded_user_context, *wanted)
    live = await _facts(seeded_user_context, *wanted)

    assert [facts.user_id for facts in refreshed] == wanted
    assert len({facts.version for facts in refreshed}) == 1
    assert refreshed[0].version > 0
    assert all(bool(facts.fingerprint) == facts.exists for facts in refreshed)
    for facts in refreshed:
        facts.ClearField("version")
        facts.ClearField("fingerprint")
        assert bool(facts.row_fingerprints) == facts.exists
        facts.ClearField("row_fingerprints")
    assert refreshed == live


async def test_versions_rise_and_fingerprints_tell_changes(
    seeded_user_context: RunningUserContext, seeded_mainapp: MainAppDatabase
) -> None:
    (first,) = await _refresh(seeded_user_context, 20)
    (again,) = await _refresh(seeded_user_context, 20)
    seeded_mainapp.execute("UPDATE users SET last_name = 'Changed' WHERE id = 20")
    (changed,) = await _refresh(seeded_user_context, 20)

    assert first.version < again.version < changed.version
    assert first.fingerprint == again.fingerprint != changed.fingerprint


async def test_a_refreshed_context_is_served_from_the_cache(
    seeded_user_context: RunningUserContext, seeded_mainapp: MainAppDatabase
) -> None:
    get = pb.GetUserContextRequest(user_id=21)
    await seeded_user_context.stub.GetUserContext(get)
    seeded_mainapp.execute("UPDATE users SET last_name = 'Changed' WHERE id = 21")
    await _refresh(seeded_user_context, 21)

    answer = await seeded_user_context.stub.GetUserContext(get)

    assert answer.freshness.cached
    assert answer.context.user.last_name == "Changed"


async def test_a_refresh_sends_the_same_statements_for_one_person_and_for_all(
    seeded_user_context: RunningUserContext, mysql_statements: list[str]
) -> None:
    for user_ids in ([1], range(1, 301), range(1, 1_001)):
        before = len(mysql_statements)
        await _refresh(seeded_user_context, *user_ids)
        # All of them in one round trip.
        (sent,) = _of_service(mysql_statements[before:])
        executed, first, *selects, last = sent.split("; ")
        # Before the snapshot, which then shows all of them.
        assert "gtid" in executed
        assert first.startswith("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        assert [each.partition("\n")[0].split()[0] for each in selects] == ["SELECT"] * 6
        assert last == "COMMIT"


async def test_a_live_check_is_one_statement(
    seeded_user_context: RunningUserContext, mysql_statements: list[str]
) -> None:
    await _facts(seeded_user_context, 1)
    for user_ids in ([1], range(1, 301)):
        before = len(mysql_statements)
        await _facts(seeded_user_context, *user_ids)
        assert len(_of_service(mysql_statements[before:])) == 1


async def test_live_checks_that_wait_share_statements(
    seeded_mainapp: MainAppDatabase,
    postgres_database: PostgresDatabase,
    redis_url: str,
    mysql_statements: list[str],
) -> None:
    """Readings are held up until all requests have arrived; those that wait then go in one."""
    async with running_user_context(
        mysql_url=seeded_mainapp.url,
        postgres_url=postgres_database.url,
        redis_url=redis_url,
        mysql_live_seconds=30.0,
        default_deadline_seconds=30.0,
    ) as service:
        await _facts(service, 1)
        before = len(mysql_statements)
        with seeded_mainapp.connect() as connection, connection.cursor() as cursor:
            cursor.execute("LOCK TABLES users WRITE")
            asked = [asyncio.create_task(_facts(service, user_id)) for user_id in range(1, 201)]
            await _until_in_progress(200)
            cursor.execute("UNLOCK TABLES")
        answers = await asyncio.gather(*asked)

    assert [facts.user_id for (facts,) in answers] == list(range(1, 201))
    connections = UserContextSettings.model_fields["mysql_live_connections"].default
    assert len(_of_service(mysql_statements[before:])) == connections + 1


async def _until_in_progress(calls: int) -> None:
    end = waiting.deadline(50)
    while REGISTRY.get_sample_value("dialler_grpc_server_in_progress") != calls:
        assert time.monotonic() < end, "waited for the calls to arrive"
        await asyncio.sleep(0.005)


def _of_service(statements: list[str]) -> list[str]:
    """Without what asks for the server's state, what prepares a new connection, and name sweeps."""
    others = (
        r"SELECT 1$|SELECT @@global\.read_only|SHOW (REPLICA|SLAVE) STATUS|SET SESSION"
        r"|SELECT VERSION|(?s:SELECT users\.id.*\.previous_name \nFROM)"
    )
    return [sent for sent in statements if not re.match(others, sent)]


async def test_only_described_columns_are_named_and_never_a_secret_one(
    seeded_user_context: RunningUserContext, mysql_statements: list[str]
) -> None:
    service = seeded_user_context
    await service.stub.GetUserContext(pb.GetUserContextRequest(user_id=1))
    facts = await _refresh(service, *range(1, 50))
    await _facts(service, 1)
    await service.stub.ListUserIds(pb.ListUserIdsRequest())
    requirement = next(
        one.requirement_id for fact in facts for claim in fact.claims for one in claim.requirements
    )
    rows = [pb.RowReference(table=name, key=requirement) for name in _DESCRIBED.tables]
    await service.stub.ResolveUsers(pb.ResolveUsersRequest(rows=rows))

    read = "\n".join(_of_service(mysql_statements))
    named = set(re.findall(r"(?<!@)\b(?:\w+)\.(\w+)", read))
    assert not re.search(r"SELECT \*|\.\*|\(\*\)", read)
    assert not named & _DESCRIBED.secret_columns
    assert not [column for column in _DESCRIBED.secret_columns if column in read]
    described = {name for table in _DESCRIBED.tables.values() for name in table.columns}
    assert named == described
    assert not re.search(r"\b(INSERT|UPDATE|DELETE|FOR UPDATE|LOCK)\b", read)


async def test_a_reading_is_of_one_moment(
    seeded_user_context: RunningUserContext, seeded_mainapp: MainAppDatabase
) -> None:
    """A writer moves name and claim together; no answer may show one without the other."""
    seeded_mainapp.execute(
        *insertion("claims", id=900_001, user_id=22, type="pcp", lender="round 0")
    )
    seeded_mainapp.execute("UPDATE users SET previous_name = 'round 0' WHERE id = 22")
    done = asyncio.Event()

    def write() -> None:
        with seeded_mainapp.connect() as connection, connection.cursor() as cursor:
            number = 0
            while not done.is_set():
                number += 1
                connection.begin()
                cursor.execute(
                    "UPDATE users SET previous_name = %s WHERE id = 22", [f"round {number}"]
                )
                cursor.execute(
                    "UPDATE claims SET lender = %s WHERE id = 900001", [f"round {number}"]
                )
                connection.commit()

    writer = asyncio.create_task(asyncio.to_thread(write))
    seen: set[str] = set()
    until = waiting.deadline(10)
    try:
        while len(seen) < 20 and time.monotonic() < until:
            await _refresh(seeded_user_context, 22)
            answer = await seeded_user_context.stub.GetUserContext(
                pb.GetUserContextRequest(user_id=22)
            )
            (claim,) = [one for one in answer.context.claims if one.claim_id == 900_001]
            assert claim.lender == answer.context.user.previous_name
            seen.add(claim.lender)
    finally:
        done.set()
        await writer
    assert len(seen) >= 20


async def test_a_live_check_sees_what_was_committed_before_it(
    seeded_user_context: RunningUserContext, seeded_mainapp: MainAppDatabase
) -> None:
    for number in range(30):
        signature = f"{number:036d}" if number % 2 else None
        seeded_mainapp.execute(
            "UPDATE users SET current_signature_file_id = %s WHERE id = 23", [signature]
        )
        others = [asyncio.create_task(_facts(seeded_user_context, 24)) for _ in range(8)]
        (facts,) = await _facts(seeded_user_context, 23)
        await asyncio.gather(*others)
        assert facts.has_signature == (signature is not None)


async def test_rows_lead_to_their_people(
    user_context: RunningUserContext, mainapp_database: MainAppDatabase
) -> None:
    for user_id in (1, 2, 2**64 - 1):
        mainapp_database.execute(
            *insertion("users", id=user_id, email_address=f"{user_id}@example.com")
        )
    mainapp_database.execute(*insertion("claims", id=10, user_id=1, type="pcp"))
    mainapp_database.execute(*insertion("claims", id=11, user_id=2**64 - 1, type="pcp"))
    mainapp_database.execute(*insertion("claim_requirements", id="r" * 36, claim_id=11, type="cfa"))
    mainapp_database.execute(*insertion("claim_vehicle_packages", id="v" * 36, claim_id=10))
    mainapp_database.execute(*insertion("user_addresses", id="a" * 36, user_id=2))
    for name, owner in (("b", 0), ("c", -1)):
        mainapp_database.execute(*insertion("user_addresses", id=name * 36, user_id=owner))

    async def resolve(*rows: tuple[str, str]) -> list[int]:
        references = [pb.RowReference(table=table, key=key) for table, key in rows]
        answer = await user_context.stub.ResolveUsers(pb.ResolveUsersRequest(rows=references))
        return list(answer.user_ids)

    assert await resolve(("claims", "10"), ("claim_vehicle_packages", "v" * 36)) == [1]
    assert await resolve(("claim_requirements", "r" * 36)) == [2**64 - 1]
    assert await resolve(("user_addresses", "a" * 36), ("users", "1")) == [1, 2]
    assert await resolve(("user_addresses", "b" * 36), ("user_addresses", "c" * 36)) == []
    assert await resolve(("claims", "404"), ("users", "404"), ("claims", "10abc")) == []
    assert await resolve() == []
    with pytest.raises(InvalidArgument) as refused:
        await resolve(("user_logs", "1"))
    assert refused.value.reason == "UNKNOWN_TABLE"


async def test_ten_thousand_rows_are_resolved_at_once_and_not_one_more(
    seeded_user_context: RunningUserContext, mysql_statements: list[str]
) -> None:
    rows = [pb.RowReference(table="claims", key=str(number)) for number in range(1, 10_001)]
    before = len(mysql_statements)
    answer = await seeded_user_context.stub.ResolveUsers(pb.ResolveUsersRequest(rows=rows))

    assert answer.user_ids
    assert len(_of_service(mysql_statements[before:])) <= 10
    with pytest.raises(InvalidArgument):
        await seeded_user_context.stub.ResolveUsers(pb.ResolveUsersRequest(rows=[*rows, rows[0]]))


async def test_ids_are_listed_in_rising_order_page_by_page(
    seeded_user_context: RunningUserContext,
) -> None:
    listed: list[int] = []
    while True:
        page = await seeded_user_context.stub.ListUserIds(
            pb.ListUserIdsRequest(after_user_id=listed[-1] if listed else 0, page_size=70)
        )
        listed += page.user_ids
        if len(page.user_ids) < 70:
            break

    assert listed == sorted(set(listed))
    assert len(listed) == 300
    assert page.max_user_id == listed[-1]


async def test_an_empty_main_app_is_an_empty_page(user_context: RunningUserContext) -> None:
    page = await user_context.stub.ListUserIds(pb.ListUserIdsRequest())

    assert page == pb.ListUserIdsResponse()


async def test_a_refresh_names_the_transactions_that_it_shows(
    seeded_user_context: RunningUserContext, seeded_mainapp: MainAppDatabase
) -> None:
    async def named() -> str:
        request = pb.RefreshUsersRequest(user_ids=[20])
        return (await seeded_user_context.stub.RefreshUsers(request)).executed_gtids

    first = await named()
    seeded_mainapp.execute("UPDATE users SET status = 'of a later transaction' WHERE id = 20")
    second = await named()
    # MariaDB: domain-server-number; MySQL: uuid:1-number.
    before, after = (int(re.findall(r"\d+", each)[-1]) for each in (first, second))
    assert after > before > 0
    assert not re.search(r"\s", second)


async def test_a_reading_that_fails_midway_leaves_nothing_to_the_next(
    mainapp_database: MainAppDatabase,
) -> None:
    engine = mysql_engine(mainapp_database.url, pool_size=1, statement_timeout_seconds=1)
    answer_at_once(engine)
    try:
        with pytest.raises(Internal):
            await read_at_once(engine, ["SELECT 1", "SELECT absent", "SELECT 3"])
        assert (await read_at_once(engine, ["SELECT 4", "SELECT 5"])).sets == [[(4,)], [(5,)]]
    finally:
        await engine.dispose()
