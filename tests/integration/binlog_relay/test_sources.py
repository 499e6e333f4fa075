"""What the relay must find out about a source: its role, its filters, a binlog that begins anew."""

import asyncio
import dataclasses
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from devstack.accounts import PASSWORDS
from devstack.mainapp_database import MainAppDatabase
from devstack.mysql_server import MySQL
from devstack.processes import HOST, free_port
from devstack.servers import MariaDB
from servicekit.errors import FailedPrecondition, Unavailable
from servicekit.lifecycle import Parts
from services.binlog_relay import leadership
from services.binlog_relay.app import build
from services.binlog_relay.binlog.server import MySqlSource, examine
from tests.integration.binlog_relay.bench import Received, RelayBench
from tests.integration.binlog_relay.link import linked
from tests.integration.binlog_relay.test_following import (
    as_admin,
    asked_times,
    including,
    pretend_failover,
)

OFTEN: Final[dict[str, Any]] = {"capture_heartbeat_seconds": 0.2, "heartbeat_seconds": 0.2}
FIRST: Final = "binlog_relay: first_start"
# Some servers end the stream by themselves.
_ASKED_FOR_RESET: Final = {"binlog_relay: binlog_reset", "binlog_relay: position_lost"}


@pytest.fixture
def is_mysql(own_mariadb: MariaDB) -> bool:
    return isinstance(own_mariadb, MySQL)


@contextmanager
def another_server(like: MariaDB, folder: Path, **options: object) -> Iterator[MariaDB]:
    """A second server of the same kind with options of its own, their names in underscores."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    server = type(like)(Path(tempfile.mkdtemp(dir=folder)), durable=False, options=named)
    server.start()
    try:
        yield server
    finally:
        server.discard()


def replicate(replica: MariaDB, primary: MariaDB) -> None:
    """Have one server follow another; MariaDB's account may also look at how it does."""
    if isinstance(replica, MySQL):
        as_admin(
            replica,
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='{HOST}', SOURCE_PORT={primary.port},"
            f" SOURCE_USER='admin', SOURCE_PASSWORD='{PASSWORDS['admin']}',"
            " SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
            "START REPLICA",
        )
    else:
        as_admin(
            replica,
            f"CHANGE MASTER TO MASTER_HOST='{HOST}', MASTER_PORT={primary.port},"
            f" MASTER_USER='admin', MASTER_PASSWORD='{PASSWORDS['admin']}',"
            " MASTER_USE_GTID=slave_pos",
            "START SLAVE",
            "SET sql_log_bin = 0",
            "GRANT SLAVE MONITOR ON *.* TO 'dialler_relay'@'%'",
        )


async def refusal(bench: RelayBench, **settings: Any) -> str:
    """Start a relay that is refused; return why."""
    parts = build(bench.settings(**settings))
    with pytest.raises(FailedPrecondition) as refused:
        await parts.start()
    await parts.stop()
    return refused.value.message


async def until_replicated(bench: RelayBench) -> None:
    async def is_there() -> bool:
        try:
            await asyncio.to_thread(bench.main_app.rows, "SELECT count(*) FROM users")
        except Exception:
            return False
        return True

    await bench.until(is_there)


def health(parts: Parts) -> str:
    """What the relay's own check says, empty when it is well."""
    relay = next(part for part in parts._parts if hasattr(part, "check"))
    try:
        asyncio.run(relay.check())
    except Unavailable as error:
        return f"{error.reason}: {error.message}"
    return ""


def heartbeats(received: Received) -> int:
    return sum(r["metadata"]["operation"] == "heartbeat" for r in received.records)


@asynccontextmanager
async def silenced(bench: RelayBench, parts: Parts, expected: str) -> AsyncIterator[None]:
    """Expect health to say why, and no heartbeat meanwhile; and heartbeats again afterwards."""

    async def says(text: str) -> bool:
        said = await asyncio.to_thread(health, parts)
        return text in said if text else not said

    await bench.until(lambda: says(expected))
    # Those that were sent before; a server may take seconds to leave its group.
    earlier, count = Received(), -1
    while len(earlier.bodies) > count:
        count = len(earlier.bodies)
        await asyncio.to_thread(bench.receive_some, earlier)
    received = Received()
    for _ in range(3):
        await asyncio.to_thread(bench.receive_some, received)
    assert heartbeats(received) == 0
    yield
    await bench.until(lambda: says(""))
    await bench.receive(lambda so_far: heartbeats(so_far) > 0)


@asynccontextmanager
async def replica_of(
    bench: RelayBench, folder: Path, **options: object
) -> AsyncIterator[tuple[RelayBench, MariaDB]]:
    """The bench on a replica of the bench's own server."""
    primary = bench.main_app.server
    with another_server(primary, folder, server_id=2, **options) as replica:
        await asyncio.to_thread(replicate, replica, primary)
        copy = dataclasses.replace(bench, main_app=MainAppDatabase(replica, bench.main_app.name))
        await until_replicated(copy)
        yield copy, replica


async def test_a_replica_that_does_not_log_what_it_applies_is_refused(
    bench_of_own_mariadb: RelayBench, servers_folder: Path, is_mysql: bool
) -> None:
    name = "log_replica_updates" if is_mysql else "log_slave_updates"
    async with replica_of(bench_of_own_mariadb, servers_folder, **{name: "OFF"}) as (copy, _):
        assert f"{name} is OFF on a replica" in await refusal(copy)


@pytest.mark.mariadb
async def test_a_replica_that_may_not_be_examined_is_refused(
    bench_of_own_mariadb: RelayBench, servers_folder: Path
) -> None:
    async with replica_of(bench_of_own_mariadb, servers_folder) as (copy, replica):
        as_admin(
            replica, "SET sql_log_bin = 0", "REVOKE SLAVE MONITOR ON *.* FROM 'dialler_relay'@'%'"
        )
        assert "REPLICA MONITOR" in await refusal(copy)


async def test_a_replica_whose_replication_has_stopped_gets_no_heartbeats(
    bench_of_own_mariadb: RelayBench, servers_folder: Path, is_mysql: bool
) -> None:
    bench = bench_of_own_mariadb
    word = "REPLICA" if is_mysql else "SLAVE"
    async with (
        replica_of(bench, servers_folder) as (copy, replica),
        copy.relay(**OFTEN) as parts,
    ):
        await bench.add_users([1])
        await copy.receive(including({1}))
        readable = "SET GLOBAL read_only = ON"
        await asyncio.to_thread(as_admin, replica, readable, f"STOP {word}")
        async with silenced(copy, parts, "replication does not run"):
            await bench.add_users([2])
            await asyncio.to_thread(as_admin, replica, f"START {word}")
        assert copy.reconciler.reasons == [FIRST]


@pytest.mark.parametrize("left", ["STOP {0}", "RESET {0}"])
async def test_a_promoted_server_that_is_still_configured_as_a_replica_is_followed(
    bench_of_own_mariadb: RelayBench,
    servers_folder: Path,
    is_mysql: bool,
    caplog: pytest.LogCaptureFixture,
    left: str,
) -> None:
    word = "REPLICA" if is_mysql else "SLAVE"
    updates = "log_replica_updates" if is_mysql else "log_slave_updates"
    async with replica_of(bench_of_own_mariadb, servers_folder, **{updates: "OFF"}) as (copy, new):
        await asyncio.to_thread(as_admin, new, f"STOP {word}", left.format(word))
        async with copy.relay(**OFTEN) as parts:
            await copy.add_users([1])
            received = await copy.receive(including({1}))
            await copy.receive(lambda so_far: heartbeats(so_far) > 0, received)
            assert not await asyncio.to_thread(health, parts)
    (told,) = [vars(each) for each in caplog.records if each.message == "source_doubtful"]
    assert f"RESET {word} ALL" in told["error"]


async def test_a_primary_that_is_demoted_gets_no_heartbeats(
    bench_of_own_mariadb: RelayBench,
) -> None:
    bench = bench_of_own_mariadb
    server = bench.main_app.server
    async with bench.relay(**OFTEN) as parts:
        await asyncio.to_thread(as_admin, server, "SET GLOBAL read_only = ON")
        async with silenced(bench, parts, "read-only"):
            await asyncio.to_thread(as_admin, server, "SET GLOBAL read_only = OFF")


async def test_a_member_of_a_group_gets_heartbeats_while_it_is_online(
    bench: RelayBench, servers_folder: Path
) -> None:
    if not isinstance(bench.main_app.server, MySQL):
        pytest.skip("group replication is MySQL's")
    options: dict[str, Any] = {"performance_schema": "ON", "report_host": HOST}
    with another_server(bench.main_app.server, servers_folder, **options) as server:
        form_group(server)
        member = dataclasses.replace(bench, main_app=MainAppDatabase.create(server))
        await asyncio.to_thread(as_admin, server, _AS_A_SECONDARY)
        assert "performance_schema.replication_group_members" in await refusal(member)
        writable = "SET GLOBAL super_read_only = OFF"
        await asyncio.to_thread(as_admin, server, writable, _GROUP_GRANT, _AS_A_SECONDARY)
        async with member.relay(**OFTEN) as parts:
            await member.receive(lambda so_far: heartbeats(so_far) > 0)
            await asyncio.to_thread(as_admin, server, "STOP GROUP_REPLICATION")
            async with silenced(member, parts, "not online in its group"):
                await asyncio.to_thread(as_admin, server, *_BOOTSTRAP, _AS_A_SECONDARY)


def form_group(server: MariaDB) -> None:
    """Make a group of this server alone."""
    address = f"{HOST}:{free_port()}"
    as_admin(
        server,
        "INSTALL PLUGIN group_replication SONAME 'group_replication.so'",
        f"SET GLOBAL group_replication_group_name = '{uuid.uuid4()}'",
        f"SET GLOBAL group_replication_local_address = '{address}'",
        f"SET GLOBAL group_replication_group_seeds = '{address}'",
        *_BOOTSTRAP,
    )


_GROUP_GRANT: Final = (
    "GRANT SELECT ON performance_schema.replication_group_members TO 'dialler_relay'@'%'"
)
_BOOTSTRAP: Final = (
    "SET GLOBAL group_replication_bootstrap_group = ON",
    "START GROUP_REPLICATION",
)
_AS_A_SECONDARY: Final = "SET GLOBAL super_read_only = ON"


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("binlog_ignore_db", "mainapp_hidden", "Binlog_Ignore_DB is mainapp_hidden"),
        ("binlog_do_db", "mainapp_shown", "Binlog_Do_DB is mainapp_shown"),
    ],
)
async def test_a_filter_that_hides_us_is_refused_by_name(
    bench: RelayBench, servers_folder: Path, option: str, value: str, named: str
) -> None:
    with another_server(bench.main_app.server, servers_folder, **{option: value}) as server:
        hidden = MainAppDatabase.create(server, "mainapp_hidden")
        assert named in await refusal(dataclasses.replace(bench, main_app=hidden))


async def test_names_are_compared_without_case_where_the_server_does(
    bench: RelayBench, servers_folder: Path
) -> None:
    with another_server(bench.main_app.server, servers_folder, lower_case_table_names=1) as server:
        shop = dataclasses.replace(bench, main_app=MainAppDatabase.create(server, "mainapp_Shop"))
        async with shop.relay():
            await shop.add_users([1, 2])
            await shop.execute("TRUNCATE TABLE User_Addresses")
            received = await shop.receive_records(3)
    assert sorted(received.ids()) == [1, 2]
    assert {r["metadata"]["table-name"] for r in received.records} == {"users", "user_addresses"}


async def test_a_name_in_another_case_is_refused_where_case_matters(bench: RelayBench) -> None:
    name = bench.main_app.name
    url = bench.main_app.relay_url.replace(name, name.replace("mainapp", "mainAPP"))
    said = await refusal(bench, mysql_url=url)
    assert "lower_case_table_names is 0" in said
    assert f"is called {name} there" in said


async def test_checksums_may_change_while_it_reads(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench
) -> None:
    bench = bench_of_own_mariadb
    long = {"first_name": "Ann", "solicitor": "x" * 200}
    async with bench.relay() as parts:
        for number, kind in enumerate(("NONE", "CRC32", "NONE"), start=1):
            await asyncio.to_thread(as_admin, own_mariadb, f"SET GLOBAL binlog_checksum = {kind}")
            await bench.add_users([number], **long)
            received = await bench.receive(including({number}))
            assert received.records[0]["data"]["solicitor"] == long["solicitor"]
            await bench.execute("TRUNCATE TABLE user_addresses")
            await bench.receive(lambda so_far: bool(so_far.records))
        assert (await bench.position(parts)).gaps == 0
        await bench.caught_up(parts)
    # The file that is resumed in was written without, and the next one is to have them.
    await bench.add_users([9], **long)
    await asyncio.to_thread(as_admin, own_mariadb, "SET GLOBAL binlog_checksum = CRC32")
    await bench.add_users([10], **long)
    async with bench.relay() as parts:
        received = await bench.receive(including({9, 10}))
        assert {r["data"]["solicitor"] for r in received.records} == {long["solicitor"]}
        assert (await bench.position(parts)).gaps == 0


def reset(server: MariaDB) -> None:
    as_admin(server, "RESET BINARY LOGS AND GTIDS" if isinstance(server, MySQL) else "RESET MASTER")


async def test_a_binlog_that_begins_anew_requests_a_full_run_before_heartbeats(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench
) -> None:
    bench = bench_of_own_mariadb
    async with bench.relay(**OFTEN) as parts:
        await bench.add_users(range(1, 50))
        await bench.caught_up(parts)
        bench.reconciler.is_refusing = True
        await asyncio.to_thread(reset, own_mariadb)
        await bench.until(lambda: has_gap(bench, parts))
        await asyncio.to_thread(bench.receive_some, Received())
        await bench.add_users([100])
        received = await bench.receive(including({100}))
        assert heartbeats(received) == 0
        bench.reconciler.is_refusing = False
        await bench.until(lambda: asked_times(bench, 2))
        await bench.receive(lambda so_far: heartbeats(so_far) > 0)
    assert bench.reconciler.reasons[1] in _ASKED_FOR_RESET


async def test_a_source_is_examined_more_often_than_heartbeats_are_sent(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench
) -> None:
    bench = bench_of_own_mariadb
    async with bench.relay(capture_heartbeat_seconds=600.0) as parts:
        await bench.add_users(range(1, 50))
        await bench.caught_up(parts)
        await asyncio.to_thread(as_admin, own_mariadb, "SET GLOBAL read_only = ON")
        await bench.until(lambda: says(parts, "read-only"))
        await asyncio.to_thread(as_admin, own_mariadb, "SET GLOBAL read_only = OFF")
        await asyncio.to_thread(reset, own_mariadb)
        await bench.until(lambda: asked_times(bench, 2))
        received = Received()
        for _ in range(3):
            await asyncio.to_thread(bench.receive_some, received)
        assert heartbeats(received) == 0
    assert bench.reconciler.reasons[1] in _ASKED_FOR_RESET


async def test_a_new_binlog_that_outgrows_the_old_position_requests_a_full_run(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of_own_mariadb
    # It is asked too seldom to notice by the end of the binlog alone.
    monkeypatch.setattr(leadership, "_CONFIRM_SECONDS", 600.0)
    async with bench.relay(capture_heartbeat_seconds=600.0):
        await bench.add_users([1])
        await bench.receive(including({1}))
        await asyncio.to_thread(reset, own_mariadb)
        for number in range(2, 40):
            await bench.add_users([number], solicitor="x" * 200)
        await bench.until(lambda: asked_times(bench, 2))
        await bench.add_users([100])
        await bench.receive(including({100}))
    assert bench.reconciler.reasons[1] in _ASKED_FOR_RESET


async def test_an_address_that_fails_over_with_connections_open_is_followed(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench, servers_folder: Path
) -> None:
    bench = bench_of_own_mariadb
    with another_server(own_mariadb, servers_folder, server_id=2) as promoted:
        new = dataclasses.replace(
            bench, main_app=MainAppDatabase.create(promoted, bench.main_app.name)
        )
        async with linked(own_mariadb.host, own_mariadb.port) as (link, port):
            url = bench.main_app.relay_url.replace(f":{own_mariadb.port}/", f":{port}/")
            async with bench.relay(mysql_url=url, **OFTEN) as parts:
                await bench.add_users([1])
                await bench.receive(including({1}))
                link.lead_to(promoted.host, promoted.port)
                await bench.until(lambda: asked_times(bench, 2))
                await until_following(new, parts)
                await new.add_users([2])
                await bench.receive(including({2}))
    # The servers here have nothing in common: one may also refuse the other's set.
    assert bench.reconciler.reasons[1] == "binlog_relay: another_server"


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_settings_that_lose_changes_request_a_full_run_once_they_are_corrected(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench, is_restarted: bool
) -> None:
    bench = bench_of_own_mariadb
    async with bench.relay(**OFTEN) as parts:
        as_admin(own_mariadb, "SET GLOBAL binlog_row_image = MINIMAL")
        await bench.until(lambda: says(parts, "binlog_row_image is MINIMAL"))
        if not is_restarted:
            as_admin(own_mariadb, "SET GLOBAL binlog_row_image = FULL")
            await bench.until(lambda: asked_times(bench, 2))
    if is_restarted:
        await refusal(bench)
        as_admin(own_mariadb, "SET GLOBAL binlog_row_image = FULL")
        async with bench.relay():
            await bench.until(lambda: asked_times(bench, 2))
    assert bench.reconciler.reasons == [FIRST, "binlog_relay: settings"]


async def test_a_set_with_tags_is_followed_by_a_full_run(
    own_mariadb: MariaDB, bench_of_own_mariadb: RelayBench, is_mysql: bool
) -> None:
    if not is_mysql:
        pytest.skip("MariaDB's GTIDs have no tags")
    bench = bench_of_own_mariadb
    insert = "INSERT INTO users (id, email_address) VALUES (2, 'two@example.test')"
    async with bench.relay() as parts:
        await asyncio.to_thread(
            as_admin,
            own_mariadb,
            f"USE `{bench.main_app.name}`",
            "SET SESSION gtid_next = 'AUTOMATIC:batch'",
            insert,
        )
        await bench.receive(including({2}))
        await bench.add_users([3])
        await bench.receive(including({3}))
        await bench.caught_up(parts)
    async with bench.relay() as parts:
        assert bench.reconciler.reasons == [FIRST]
    state = examine(MySqlSource.parse(bench.main_app.relay_url), [])
    assert ":batch:1" in state.position.gtid
    await pretend_failover(bench, f"server = 'elsewhere', gtid = '{state.position.gtid}'")
    await bench.add_users([4])
    async with bench.relay() as parts:
        await bench.until(lambda: asked_times(bench, 2))
        await bench.add_users([5])
        await bench.receive(including({5}))
        assert (await bench.position(parts)).gaps == 1
    assert bench.reconciler.reasons[1:] == ["binlog_relay: another_server"]


async def has_gap(bench: RelayBench, parts: Parts) -> bool:
    return (await bench.position(parts)).gaps > 0


async def says(parts: Parts, text: str) -> bool:
    return text in await asyncio.to_thread(health, parts)


async def until_following(bench: RelayBench, parts: Parts) -> None:
    """Wait until the saved position is a place in this bench's server."""
    file, offset = await asyncio.to_thread(bench.binlog_end)

    async def is_there() -> bool:
        answer = await bench.position(parts)
        return (answer.file, answer.offset) == (file, offset)

    await bench.until(is_there)


async def test_columns_of_types_that_are_not_read_are_skipped(
    bench: RelayBench,
) -> None:
    is_mysql = isinstance(bench.main_app.server, MySQL)
    unread = "VECTOR(3)" if is_mysql else "VARCHAR(300) COMPRESSED"
    value = "STRING_TO_VECTOR('[1, 2, 3]')" if is_mysql else "repeat('v', 290)"
    latin = "VARCHAR(20) CHARACTER SET latin1 DEFAULT 'na\u00efve'"
    async with bench.relay() as parts:
        await bench.execute(
            f"ALTER TABLE users ADD COLUMN first_of_all {unread} FIRST,"
            f" ADD COLUMN between_them {unread} AFTER email_address, MODIFY introducer {latin}",
            "INSERT INTO users (id, email_address, first_of_all, between_them, solicitor)"
            f" VALUES (2, 'a@example.test', {value}, NULL, 'Ann'),"
            f" (3, 'b@example.test', NULL, {value}, 'Bob')",
        )
        received = await bench.receive(including({2, 3}))
        assert (await bench.position(parts)).gaps == 0
    rows = {r["data"]["id"]: r["data"] for r in received.records if "data" in r}
    assert [(row["introducer"], row["solicitor"]) for row in (rows[2], rows[3])] == [
        ("na\u00efve", "Ann"),
        ("na\u00efve", "Bob"),
    ]


async def test_a_described_column_of_such_a_type_is_left_out_and_named(
    bench: RelayBench, caplog: pytest.LogCaptureFixture
) -> None:
    is_mysql = isinstance(bench.main_app.server, MySQL)
    unread = "VECTOR(3)" if is_mysql else "VARCHAR(300) COMPRESSED"
    async with bench.relay() as parts:
        await bench.execute(
            f"ALTER TABLE users DROP COLUMN introducer, ADD COLUMN introducer {unread} FIRST"
        )
        await bench.add_users([2], solicitor="Ann")
        received = await bench.receive(including({2}))
        assert (await bench.position(parts)).gaps == 0
    (row,) = [r["data"] for r in received.records if "data" in r]
    assert "introducer" not in row
    assert (row["id"], row["solicitor"]) == (2, "Ann")
    named = [vars(each) for each in caplog.records if each.message == "columns_not_read"]
    assert [(each["table"], each["columns"]) for each in named] == [("users", ["introducer"])]
