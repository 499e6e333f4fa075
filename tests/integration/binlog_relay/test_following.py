"""Following the binlog through ends, restarts and rotations: duplicates perhaps, losses never."""

import asyncio
from collections.abc import Callable

import asyncpg
import pymysql
import pytest
from dialler.reconciler.v1 import reconciler_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.engine import make_url

from devstack.servers import MariaDB
from servicekit.errors import FailedPrecondition
from servicekit.lifecycle import Parts
from services.binlog_relay.app import build
from tests.integration.binlog_relay.bench import Received, RelayBench
from tests.integration.binlog_relay.link import linked

_WIDE = ("first_name", "last_name", "previous_name", "status", "introducer", "solicitor")


async def test_the_first_start_begins_at_the_end_and_asks_for_a_full_run(
    bench: RelayBench,
) -> None:
    await bench.add_users([1])
    async with bench.relay():
        await bench.add_users([2])
        received = await bench.receive_records(1)
    assert received.ids() == [2]
    assert bench.reconciler.reasons == ["binlog_relay: first_start"]


async def test_nothing_is_lost_between_two_runs(bench: RelayBench) -> None:
    async with bench.relay():
        await bench.add_users([1])
        received = await bench.receive_records(1)
    await bench.add_users(range(2, 60))
    async with bench.relay():
        await bench.receive(lambda so_far: len(set(so_far.ids())) == 59, received)
    assert sorted(received.ids()) == list(range(1, 60))
    assert bench.reconciler.reasons == ["binlog_relay: first_start"]


async def test_killed_in_the_middle_of_a_stream_it_resumes_and_loses_nothing(
    bench: RelayBench,
) -> None:
    async with bench.relay_process():
        received = await until_heard(bench)
        writing = asyncio.create_task(write_people(bench, range(1, 1_501)))
        # One statement with many rows spans events, between which nothing may be resumed.
        bulk = asyncio.create_task(bench.add_users(range(10_000, 13_000)))
        for _ in range(3):
            async with bench.relay_process() as relay:
                await bench.receive(more_than(len(received.records) + 400), received)
                relay.kill()
        await asyncio.gather(writing, bulk)
    everyone = {*range(1, 1_501), *range(10_000, 13_000)}
    async with bench.relay_process():
        await bench.receive(including(everyone), received)
    assert bench.reconciler.reasons == ["binlog_relay: first_start"]


async def test_one_statement_that_was_half_published_is_published_again(
    bench: RelayBench,
) -> None:
    # So slow at sending and so quick at saving that it is killed with only a part published.
    slowly = {"max_records_per_message": 5, "sends_in_flight": 1, "save_interval_seconds": 0.002}
    async with bench.relay_process(**slowly) as relay:
        received = await until_heard(bench)
        await bench.add_users(range(1, 4_001))
        await bench.receive(more_than(200), received)
        relay.kill()
    assert len(received.records) < 4_000
    everyone = set(range(1, 4_001))
    async with bench.relay_process():
        await bench.receive(including(everyone), received)


async def test_a_connection_that_ends_in_the_middle_of_a_statement_loses_nothing(
    bench: RelayBench,
) -> None:
    slowly = {"max_records_per_message": 50, "sends_in_flight": 1, "backlog_bytes": 65_536}
    # More than the sockets in between can hold, so that the end is felt before the last row.
    wide = dict.fromkeys(_WIDE, "x" * 250)
    server = bench.main_app.server
    async with linked(server.host, server.port) as (link, port):
        url = bench.main_app.relay_url.replace(f":{server.port}/", f":{port}/")
        async with bench.relay(mysql_url=url, **slowly) as parts:
            writing = asyncio.create_task(bench.add_users(range(1, 10_001), **wide))
            received = Received()
            for _ in range(4):
                await bench.receive(more_than(len(received.records) + 400), received)
                await bench.until(link.is_cut)
            await writing
            await bench.receive(including(set(range(1, 10_001))), received)
            assert (await bench.position(parts)).gaps == 0


async def test_it_reconnects_after_mariadb_has_been_restarted(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench
) -> None:
    bench = bench_of_own_mariadb
    async with bench.relay() as parts:
        await bench.add_users([1])
        received = await bench.receive_records(1)
        for number, end in enumerate((own_mariadb.stop, own_mariadb.kill), start=2):
            await asyncio.to_thread(end)
            await asyncio.to_thread(own_mariadb.start)
            await bench.add_users([number])
            await bench.receive(including({number}), received)
        assert (await bench.position(parts)).gaps == 0
    assert bench.reconciler.reasons == ["binlog_relay: first_start"]


# MySQL ends a new file with a record of its own, which the position need not be behind.
@pytest.mark.mariadb
async def test_it_follows_a_rotation(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench
) -> None:
    bench = bench_of_own_mariadb
    async with bench.relay() as parts:
        first = await bench.position(parts)
        await bench.add_users([1])
        await asyncio.to_thread(as_admin, own_mariadb, "FLUSH BINARY LOGS")
        # A file that will be purged must not be held on to, even when nothing more happens.
        await bench.until(lambda: is_beyond(bench, parts, first.file))
        # The end of the new file is a checkpoint that belongs to no transaction.
        await bench.caught_up(parts)
        await bench.add_users([2])
        received = await bench.receive_records(2)
        await bench.caught_up(parts)
    assert sorted(received.ids()) == [1, 2]


async def test_on_another_server_it_goes_on_by_gtid_and_asks_for_a_full_run(
    bench: RelayBench,
) -> None:
    async with bench.relay():
        await bench.add_users([1])
        await bench.receive_records(1)
    await pretend_failover(bench, "server = 'elsewhere', file = 'other.000009', file_offset = 4")
    await bench.add_users([2, 3])
    async with bench.relay() as parts:
        received = await bench.receive_records(2)
        await bench.caught_up(parts)
        assert (await bench.position(parts)).gaps == 1
    assert sorted(received.ids()) == [2, 3]
    # A promotion without waiting loses the last transactions of the old server, which we may have.
    assert bench.reconciler.reasons[1:] == ["binlog_relay: another_server"]


async def test_on_another_server_without_gtids_there_is_a_gap(bench: RelayBench) -> None:
    async with bench.relay():
        pass
    await pretend_failover(bench, "server = 'elsewhere', gtid = ''")
    async with bench.relay() as parts:
        await bench.until(lambda: asked_times(bench, 2))
        assert (await bench.position(parts)).gaps == 1
    assert bench.reconciler.reasons[1] == "binlog_relay: another_server"


@pytest.mark.mariadb
async def test_a_purged_position_becomes_a_gap_that_is_repaired(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench
) -> None:
    bench = bench_of_own_mariadb
    async with bench.relay() as parts:
        before = await bench.position(parts)
    await bench.add_users([1])
    await asyncio.to_thread(as_admin, own_mariadb, "FLUSH BINARY LOGS", "RESET MASTER TO 40")
    bench.reconciler.is_refusing = True
    parts = build(bench.settings())
    await parts.start()
    try:
        await bench.until(lambda: refused(bench))
        await bench.add_users([2])
        received = await bench.receive_records(1)
        assert received.ids() == [2]
        held = await bench.position(parts)
        assert (held.file, held.offset) == (before.file, before.offset)
        assert held.gaps == 1
        bench.reconciler.is_refusing = False
        await bench.caught_up(parts)
    finally:
        await parts.stop()
    assert bench.reconciler.reasons[1:] == ["binlog_relay: position_lost"]


async def test_a_run_that_was_under_way_before_the_gap_does_not_repair_it(
    bench: RelayBench,
) -> None:
    early = Timestamp()
    early.FromJsonString("2020-01-01T00:00:00Z")
    bench.reconciler.run = reconciler_pb2.Run(
        run_id="old", state=reconciler_pb2.RUN_STATE_RUNNING, started_at=early
    )
    parts = build(bench.settings())
    await parts.start()
    try:
        await bench.until(lambda: asked_times(bench, 3))
        assert not (await bench.position(parts)).HasField("saved_at")
        bench.reconciler.run = reconciler_pb2.Run(
            run_id="new", state=reconciler_pb2.RUN_STATE_PENDING
        )
        await bench.until(lambda: bench.is_following(parts))
    finally:
        await parts.stop()


@pytest.mark.mariadb
async def test_a_statement_in_the_binlog_requests_a_full_run(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench
) -> None:
    bench = bench_of_own_mariadb
    await bench.add_users([1])
    async with bench.relay() as parts:
        await asyncio.to_thread(
            as_admin,
            own_mariadb,
            f"USE `{bench.main_app.name}`",
            "SET SESSION binlog_format = 'STATEMENT'",
            "UPDATE users SET first_name = 'Ann' WHERE id = 1",
        )
        await bench.until(lambda: asked_times(bench, 2))
        assert (await bench.position(parts)).gaps == 1
    assert bench.reconciler.reasons[1] == "binlog_relay: statement_format"


@pytest.mark.mariadb
async def test_compressed_events_request_a_full_run(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench
) -> None:
    bench = bench_of_own_mariadb
    async with bench.relay():
        await asyncio.to_thread(as_admin, own_mariadb, "SET GLOBAL log_bin_compress = ON")
        await bench.add_users([1], first_name="x" * 250, last_name="y" * 250)
        await bench.until(lambda: asked_times(bench, 2))
    assert bench.reconciler.reasons[1] == "binlog_relay: compressed_rows"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("binlog_format", "MIXED"),
        ("binlog_row_image", "MINIMAL"),
        pytest.param("binlog_row_metadata", "NO_LOG", marks=pytest.mark.mariadb),
        pytest.param("log_bin_compress", "ON", marks=pytest.mark.mariadb),
    ],
)
async def test_settings_that_lose_changes_are_refused_by_name(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench, setting: str, value: str
) -> None:
    await asyncio.to_thread(as_admin, own_mariadb, f"SET GLOBAL {setting} = '{value}'")
    parts = build(bench_of_own_mariadb.settings())
    with pytest.raises(FailedPrecondition) as refusal:
        await parts.start()
    await parts.stop()
    assert refusal.value.reason == "BINLOG_SETTINGS_INSUFFICIENT"
    assert f"{setting} is {value}: SET GLOBAL {setting} = " in refusal.value.message


def as_admin(server: MariaDB, *statements: str) -> None:
    with server.connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


async def pretend_failover(bench: RelayBench, changes: str) -> None:
    """Change the saved position to one that another server's binlog gave."""
    url = make_url(bench.postgres.url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        await connection.execute(f"UPDATE binlog_relay.positions SET {changes}")
    finally:
        await connection.close()


async def is_beyond(bench: RelayBench, parts: Parts, file: str) -> bool:
    return (await bench.position(parts)).file > file


async def refused(bench: RelayBench) -> bool:
    return bench.reconciler.refusals > 0


async def asked_times(bench: RelayBench, times: int) -> bool:
    return len(bench.reconciler.reasons) >= times


async def until_heard(bench: RelayBench) -> Received:
    """Change something again and again until a relay that is starting tells of it."""
    received = Received()
    number = 1_000_000

    async def is_heard() -> bool:
        nonlocal number
        number += 1
        await bench.add_users([number])
        await asyncio.to_thread(bench.receive_some, received)
        return bool(received.records)

    await bench.until(is_heard)
    return received


async def write_people(bench: RelayBench, ids: range) -> None:
    """Insert people one transaction each."""

    def write() -> None:
        with bench.main_app.connect() as connection, connection.cursor() as cursor:
            for number in ids:
                insert_one(cursor, number)

    await asyncio.to_thread(write)


def insert_one(cursor: "pymysql.cursors.Cursor", number: int) -> None:
    cursor.execute(
        "INSERT INTO users (id, email_address) VALUES (%s, %s)",
        (number, f"person-{number}@example.test"),
    )


def more_than(count: int) -> Callable[[Received], bool]:
    return lambda so_far: len(so_far.records) > count


def including(ids: set[int]) -> Callable[[Received], bool]:
    return lambda so_far: ids <= set(so_far.ids())
