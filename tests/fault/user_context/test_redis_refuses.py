"""A Redis that reads as ever and takes no writes: nothing it has is served as fresh."""

import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from devstack.servers import PostgreSQL, Redis
from servicekit.migrations import upgrade
from services.user_context.domain import UserId
from tests.fakes.proxy import FaultProxy
from tests.fakes.running_user_context import (
    insertion,
    taken_apart,
)
from tests.fault.user_context.two_services import PEOPLE, TwoServices, two_services, until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]


@dataclass
class Scene:
    """Two services and the name of a Redis, which may come to mean another."""

    services: TwoServices
    proxy: FaultProxy
    first: Redis
    second: Redis


@pytest.fixture
def two_servers(servers_folder: Path) -> Iterator[list[Redis]]:
    servers = [Redis(Path(tempfile.mkdtemp(dir=servers_folder))) for _ in range(2)]
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.discard()


@pytest.fixture
async def scene(
    mainapp_database: MainAppDatabase,
    postgres_database: PostgresDatabase,
    two_servers: list[Redis],
) -> AsyncIterator[Scene]:
    async with (
        FaultProxy("127.0.0.1", two_servers[0].port) as proxy,
        two_services(
            mainapp_database, postgres_database.url, f"redis://127.0.0.1:{proxy.port}/0"
        ) as services,
    ):
        yield Scene(services, proxy, *two_servers)


def _set(server: Redis, name: str, value: str) -> None:
    server.ask("CONFIG", "SET", name, value)


def _fill_the_memory(server: Redis) -> None:
    _set(server, "maxmemory-policy", "noeviction")
    _set(server, "maxmemory", "1")


def _fail_a_snapshot(server: Redis) -> None:
    # A folder where the snapshot belongs.
    (server.data / "dump.rdb").mkdir()
    _set(server, "save", '"3600 1"')
    server.ask("BGSAVE")
    while "rdb_last_bgsave_status:err" not in server.ask("INFO", "persistence"):
        time.sleep(0.02)


def _save_again(server: Redis) -> None:
    _set(server, "save", '""')


REFUSALS: dict[str, tuple[Callable[[Redis], object], Callable[[Redis], object]]] = {
    "OOM": (_fill_the_memory, lambda server: _set(server, "maxmemory", "0")),
    "MISCONF": (_fail_a_snapshot, _save_again),
    "NOREPLICAS": (
        lambda server: _set(server, "min-replicas-to-write", "1"),
        lambda server: _set(server, "min-replicas-to-write", "0"),
    ),
    "READONLY": (
        # Of a server that does not answer it, so that it keeps what it has.
        lambda server: server.ask("REPLICAOF", "127.0.0.1", "1"),
        lambda server: server.ask("REPLICAOF", "NO", "ONE"),
    ),
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_while_redis_refuses_writes_nothing_it_has_is_served_as_fresh(
    scene: Scene, code: str
) -> None:
    refuse, relent = REFUSALS[code]
    refuse(scene.first)
    for user_id in (1, 2, 3):
        await scene.services.change(user_id)
        shown = await scene.services.shown()
        assert not scene.services.wrong(shown)
        assert not any(cached for _, cached in shown.values())
    assert await scene.services.reason(scene.services.reader) == code

    relent(scene.first)
    # Moments in which the fences that could not be raised are still due.
    for _ in range(20):
        assert not scene.services.wrong(await scene.services.shown())
    await scene.services.until_cached()


async def test_what_is_due_is_raised_before_anything_is_trusted_again(
    scene: Scene, postgres: PostgreSQL, postgres_database: PostgresDatabase
) -> None:
    """However long PostgreSQL, which keeps what is due, cannot be asked for it."""
    _set(scene.first, "min-replicas-to-write", "1")
    await scene.services.change(1)
    assert not scene.services.wrong(await scene.services.shown())
    database = postgres_database.name
    hide = "ALTER TABLE user_context.unraised_fences RENAME TO hidden"
    postgres.execute(hide, database=database)
    _set(scene.first, "min-replicas-to-write", "0")
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        shown = await scene.services.shown()
        assert not scene.services.wrong(shown)
        assert not any(cached for _, cached in shown.values())
    show = "ALTER TABLE user_context.hidden RENAME TO unraised_fences"
    postgres.execute(show, database=database)
    await scene.services.until_cached()


async def test_a_demoted_server_is_left_at_once_although_its_connections_stay_open(
    scene: Scene,
) -> None:
    scene.second.ask("REPLICAOF", "127.0.0.1", str(scene.first.port))
    await until(_is_copied(scene.second), "the replica to be up to date")
    connections = scene.proxy.connections

    scene.second.ask("REPLICAOF", "NO", "ONE")
    scene.proxy.lead_to("127.0.0.1", scene.second.port)
    scene.first.ask("REPLICAOF", "127.0.0.1", str(scene.second.port))
    assert scene.proxy.connections == connections

    for user_id in PEOPLE:
        await scene.services.change(user_id)
        assert not scene.services.wrong(await scene.services.shown())
    await scene.services.until_cached()
    # Nothing of ours is left on the one that was demoted.
    assert "connected_clients:2\r" in scene.first.ask("INFO", "clients")


def _is_copied(replica: Redis) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return "master_link_status:up" in replica.ask("INFO", "replication")

    return holds


async def test_a_server_that_leads_again_serves_nothing_of_its_former_time(scene: Scene) -> None:
    """What was invalidated while another led, it may have missed."""
    scene.proxy.lead_to("127.0.0.1", scene.second.port)
    # Cut off from its successor, it keeps what it had.
    scene.first.ask("REPLICAOF", "127.0.0.1", "1")
    await scene.services.until_cached()
    for user_id in PEOPLE:
        await scene.services.change(user_id)
    await scene.services.until_cached()

    scene.second.ask("REPLICAOF", "127.0.0.1", "1")
    scene.first.ask("REPLICAOF", "NO", "ONE")
    scene.proxy.lead_to("127.0.0.1", scene.first.port)
    for _ in range(20):
        assert not scene.services.wrong(await scene.services.shown())
    await scene.services.until_cached()


async def test_what_a_demoted_server_took_is_raised_where_its_successor_leads(
    mainapp_database: MainAppDatabase,
    postgres_database: PostgresDatabase,
    two_servers: list[Redis],
) -> None:
    """Writable although a replica: an invalidation succeeds on it and reaches no reader."""
    first, second = two_servers
    person = UserId(1)
    row = insertion("users", id=person, email_address="a@example.com", first_name="Before")
    mainapp_database.execute(*row)
    await upgrade(postgres_database.url, package="services.user_context", schema="user_context")
    urls = {"mysql_url": mainapp_database.url, "postgres_url": postgres_database.url}
    async with (
        FaultProxy("127.0.0.1", first.port) as proxy,
        taken_apart(redis_url=second.url(), **urls) as reader,
        taken_apart(redis_url=f"redis://127.0.0.1:{proxy.port}/0", **urls) as writer,
    ):
        look = writer.invalidations
        await look.run_once(datetime.now(UTC))
        await reader.readings.load([person])
        _set(first, "replica-read-only", "no")
        first.ask("REPLICAOF", "127.0.0.1", str(second.port))
        proxy.lead_to("127.0.0.1", second.port)

        mainapp_database.execute("UPDATE users SET first_name = 'After'")
        await writer.readings.refresh([person])
        assert (await reader.cache.read_one(person, as_json=False)).is_main_fresh

        assert (await look.run_once(datetime.now(UTC))).is_held_up
        assert not (await look.run_once(datetime.now(UTC))).is_held_up
        assert not (await reader.cache.read_one(person, as_json=False)).is_main_fresh


async def test_a_process_that_has_long_not_looked_serves_no_copy_as_fresh(
    mainapp_database: MainAppDatabase, postgres_database: PostgresDatabase, own_redis: Redis
) -> None:
    """It may have been stopped while another process, without Redis, kept an invalidation."""
    person = UserId(1)
    row = insertion("users", id=person, email_address="a@example.com", first_name="Before")
    mainapp_database.execute(*row)
    await upgrade(postgres_database.url, package="services.user_context", schema="user_context")
    urls = {"mysql_url": mainapp_database.url, "postgres_url": postgres_database.url}
    async with (
        FaultProxy("127.0.0.1", own_redis.port) as proxy,
        taken_apart(redis_url=own_redis.url(), **urls) as reader,
        taken_apart(redis_url=f"redis://127.0.0.1:{proxy.port}/0", **urls) as writer,
    ):

        async def is_fresh() -> bool:
            return (await reader.cache.read_one(person, as_json=False)).is_main_fresh

        await reader.readings.load([person])
        await reader.invalidations.run_once(datetime.now(UTC))
        assert await is_fresh()
        await proxy.cut()
        mainapp_database.execute("UPDATE users SET first_name = 'After'")
        # After the reader's look, which finds nothing.
        await writer.readings.refresh([person])
        assert not await is_fresh()

        assert (await reader.invalidations.run_once(datetime.now(UTC))).raised == 1
        assert not await is_fresh()
        await reader.readings.load([person])
        assert await is_fresh()


async def test_redis_is_away_for_the_process_alone_that_refreshes(
    mainapp_database: MainAppDatabase, postgres_database: PostgresDatabase, own_redis: Redis
) -> None:
    async with (
        FaultProxy("127.0.0.1", own_redis.port) as proxy,
        two_services(
            mainapp_database,
            postgres_database.url,
            own_redis.url(),
            writers_redis_url=f"redis://127.0.0.1:{proxy.port}/0",
        ) as services,
    ):
        await proxy.cut()
        for user_id in (1, 2, 3):
            await services.change(user_id)
            shown = await services.shown()
            assert not services.wrong(shown)
            # The others are still served from the cache.
            assert shown[PEOPLE[-1]][1]
            await services.until_cached()
