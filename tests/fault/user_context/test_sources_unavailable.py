"""What is still answered, and how it is marked, while a database or the queue is unavailable."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.user_context.v1 import user_context_pb2 as pb
from sqlalchemy.engine import make_url

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from devstack.servers import MariaDB, PostgreSQL, Redis
from servicekit.errors import Unavailable
from tests.fakes.proxy import FaultProxy
from tests.fakes.running_user_context import RunningUserContext, insertion, running_user_context

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]


async def _get(service: RunningUserContext, user_id: int) -> pb.GetUserContextResponse:
    return await service.stub.GetUserContext(pb.GetUserContextRequest(user_id=user_id))


async def _refresh(service: RunningUserContext, user_id: int) -> pb.RefreshUsersResponse:
    return await service.stub.RefreshUsers(pb.RefreshUsersRequest(user_ids=[user_id]))


async def _facts(service: RunningUserContext, user_id: int) -> pb.ReadUserFactsResponse:
    return await service.stub.ReadUserFacts(pb.ReadUserFactsRequest(user_ids=[user_id]))


async def _stream(service: RunningUserContext, user_id: int) -> list[pb.StreamUserFactsResponse]:
    request = pb.StreamUserFactsRequest(after_user_id=user_id - 1)
    return [block async for block in service.stub.StreamUserFacts(request)]


async def _until(holds: Callable[[], Awaitable[bool]], what: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < end, f"waited for {what}"
        await asyncio.sleep(0.02)


def _people(main_app: MainAppDatabase) -> MainAppDatabase:
    for user_id in (1, 2, 3):
        main_app.execute(
            *insertion(
                "users", id=user_id, email_address=f"{user_id}@example.com", first_name="Before"
            )
        )
    return main_app


@pytest.fixture
def people(mainapp_database: MainAppDatabase) -> MainAppDatabase:
    return _people(mainapp_database)


@pytest.fixture
async def beside_own_mysql(
    own_mariadb: MariaDB, postgres_database: PostgresDatabase, redis_url: str
) -> AsyncIterator[RunningUserContext]:
    main_app = _people(MainAppDatabase.create(own_mariadb))
    async with running_user_context(
        mysql_url=main_app.url,
        postgres_url=postgres_database.url,
        redis_url=redis_url,
        mysql_live_seconds=0.5,
        mysql_bulk_seconds=0.5,
    ) as service:
        yield service


async def test_mysql_stopped(
    beside_own_mysql: RunningUserContext, own_mariadb: MariaDB, redis_server: Redis
) -> None:
    service = beside_own_mysql
    known = await _get(service, 1)
    own_mariadb.stop()

    assert (await _get(service, 1)).freshness.cached
    for ask in (_refresh, _facts, _stream):
        with pytest.raises(Unavailable) as refused:
            await ask(service, 1)
        assert refused.value.reason == "MAIN_APP_UNAVAILABLE"
        assert refused.value.retry_after_seconds

    # The refresh has said that what is held may be out of date, and could not confirm it.
    last_known = await _get(service, 1)
    assert last_known.freshness.stale
    assert last_known.freshness.cached
    assert last_known.context == known.context
    assert last_known.freshness.read_at == known.freshness.read_at

    with pytest.raises(Unavailable) as nothing_known:
        await _get(service, 2)
    assert nothing_known.value.reason == "MAIN_APP_UNAVAILABLE"
    assert nothing_known.value.retry_after_seconds
    with pytest.raises(Unavailable):
        await service.stub.BatchGetUserContexts(pb.BatchGetUserContextsRequest(user_ids=[1, 2]))
    batch = await service.stub.BatchGetUserContexts(pb.BatchGetUserContextsRequest(user_ids=[1]))
    assert batch.contexts[0].freshness.stale
    stats = await service.stub.GetCacheStats(pb.GetCacheStatsRequest())
    assert stats.stale_serves >= 2

    own_mariadb.start()

    async def is_back() -> bool:
        return not (await _get(service, 1)).freshness.stale

    await _until(is_back, "MySQL to be read again")
    assert (await _facts(service, 2)).facts[0].exists
    assert (await _refresh(service, 1)).facts[0].version
    assert [list(block.user_ids) for block in await _stream(service, 1)] == [[1, 2, 3]]


async def test_no_session_goes_on_reading_a_mysql_that_was_demoted(
    own_mariadb: MariaDB,
    mariadb: MariaDB,
    postgres_database: PostgresDatabase,
    redis_url: str,
) -> None:
    """As fail-overs go: the old primary is made read-only and answers on; then the name moves."""
    old = _people(MainAppDatabase.create(own_mariadb))
    new = _people(MainAppDatabase.create(mariadb, old.name))
    url = make_url(old.url)
    async with FaultProxy(own_mariadb.host, own_mariadb.port) as name:
        moved = url.set(host=name.host, port=name.port).render_as_string(hide_password=False)
        async with running_user_context(
            mysql_url=moved, postgres_url=postgres_database.url, redis_url=redis_url
        ) as service:
            for user_id in (1, 2):
                await _get(service, user_id)
                await _facts(service, user_id)
            with own_mariadb.connect() as connection, connection.cursor() as cursor:
                cursor.execute("SET GLOBAL read_only = ON")
            new.execute("UPDATE users SET first_name = 'After', status = 'inactive'")
            # Longer than sessions are asked after: they are opened anew with the old primary.
            for _ in range(3):
                await asyncio.sleep(1.1)
                await _facts(service, 1)
                await _refresh(service, 2)
            name.lead_to(mariadb.host, mariadb.port)

            async def is_read_live() -> bool:
                return (await _facts(service, 1)).facts[0].status == "inactive"

            async def is_read_for_contexts() -> bool:
                await _refresh(service, 2)
                return (await _get(service, 2)).context.user.first_name == "After"

            await _until(is_read_live, "live checks to read the new primary", 10)
            await _until(is_read_for_contexts, "contexts to be read from the new primary", 10)
    new.drop()


async def test_mysql_hanging_is_given_up_in_time_and_then_left_alone(
    beside_own_mysql: RunningUserContext, own_mariadb: MariaDB
) -> None:
    service = beside_own_mysql
    await _get(service, 1)
    await _facts(service, 1)
    os.kill(own_mariadb.pid, signal.SIGSTOP)
    try:
        for ask in (_refresh, _facts):
            for _ in range(3):
                with pytest.raises(Unavailable) as refused:
                    await ask(service, 1)
                assert refused.value.reason == "MAIN_APP_UNAVAILABLE"
        started = time.monotonic()
        for _ in range(20):
            with pytest.raises(Unavailable):
                await _facts(service, 1)
            assert (await _get(service, 1)).freshness.stale
        # Twenty limits of half a second each would be ten, twice.
        assert time.monotonic() - started < 8
    finally:
        os.kill(own_mariadb.pid, signal.SIGCONT)

    async def is_back() -> bool:
        return not (await _get(service, 1)).freshness.stale

    await _until(is_back, "MySQL to be read again")


async def test_a_context_outlives_its_time_only_while_mysql_is_unavailable(
    own_mariadb: MariaDB, postgres_database: PostgresDatabase, redis_url: str
) -> None:
    main_app = _people(MainAppDatabase.create(own_mariadb))
    async with running_user_context(
        mysql_url=main_app.url,
        postgres_url=postgres_database.url,
        redis_url=redis_url,
        context_fresh_seconds=0.3,
        absent_fresh_seconds=0.3,
    ) as service:
        await _get(service, 1)
        main_app.execute("UPDATE users SET first_name = 'After'")

        async def is_read_anew() -> bool:
            return (await _get(service, 1)).context.user.first_name == "After"

        await _until(is_read_anew, "the context's time to end")
        own_mariadb.stop()

        async def is_stale() -> bool:
            return (await _get(service, 1)).freshness.stale

        await _until(is_stale, "the context's time to end again")
        assert (await _get(service, 1)).context.user.first_name == "After"


async def test_a_cached_absence_is_not_served_once_it_cannot_be_confirmed(
    own_mariadb: MariaDB, postgres_database: PostgresDatabase, redis_url: str
) -> None:
    main_app = _people(MainAppDatabase.create(own_mariadb))
    async with running_user_context(
        mysql_url=main_app.url,
        postgres_url=postgres_database.url,
        redis_url=redis_url,
        absent_fresh_seconds=0.2,
    ) as service:
        batch = pb.BatchGetUserContextsRequest(user_ids=[99])
        assert list((await service.stub.BatchGetUserContexts(batch)).missing_user_ids) == [99]
        own_mariadb.stop()

        async def is_unknown() -> bool:
            try:
                await service.stub.BatchGetUserContexts(batch)
            except Unavailable as error:
                return error.reason == "MAIN_APP_UNAVAILABLE"
            return False

        await _until(is_unknown, "the cached absence to end")


async def test_postgresql_stopped(
    people: MainAppDatabase, own_postgres: PostgreSQL, redis_url: str
) -> None:
    database = PostgresDatabase.create(own_postgres)
    async with running_user_context(
        mysql_url=people.url, postgres_url=database.url, redis_url=redis_url
    ) as service:
        await _refresh(service, 1)
        own_postgres.stop()

        for _ in range(2):
            answer = await _get(service, 2)
            assert answer.context.user.user_id == 2
            assert (answer.freshness.stale, answer.freshness.cached) == (False, False)
        assert (await _facts(service, 2)).facts[0].exists
        for ask in (_refresh, _stream):
            with pytest.raises(Unavailable) as refused:
                await ask(service, 1)
            assert refused.value.reason == "VERSIONS_UNAVAILABLE"
        assert (await _get(service, 1)).context.user.user_id == 1
        # For longer than a look for invalidations holds: PostgreSQL can keep none meanwhile.
        await asyncio.sleep(4.0)
        assert (await _get(service, 1)).freshness.cached

        own_postgres.start()

        async def is_cached() -> bool:
            return (await _get(service, 2)).freshness.cached

        await _until(is_cached, "fills to be possible again")
        assert (await _refresh(service, 1)).facts[0].exists


async def test_redis_stopped_costs_only_speed(
    people: MainAppDatabase, postgres_database: PostgresDatabase, own_redis: Redis
) -> None:
    async with running_user_context(
        mysql_url=people.url, postgres_url=postgres_database.url, redis_url=own_redis.url()
    ) as service:
        await _get(service, 1)
        own_redis.kill()

        for number in range(10):
            people.execute("UPDATE users SET first_name = %s", [f"name {number}"])
            answer = await _get(service, 1)
            assert answer.context.user.first_name == f"name {number}"
            assert not answer.freshness.stale
        refreshed = await _refresh(service, 1)
        assert refreshed.facts[0].version
        await service.stub.InvalidateCallStates(
            pb.InvalidateCallStatesRequest(versions=[pb.CallStateVersion(user_id=1, version=3)])
        )
        service.queue.states[1] = call_state_pb2.CallState(user_id=1, version=3)
        stats = await service.stub.GetCacheStats(pb.GetCacheStatsRequest())
        assert stats.errors > 0
        assert stats.distrust_reason == "UNREACHABLE"

        own_redis.start()

        async def is_cached() -> bool:
            return (await _get(service, 1)).freshness.cached

        await _until(is_cached, "the cache to be used again")


class Wire:
    """A way to a server that can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.is_cut = False
        self.port = 0

    @asynccontextmanager
    async def laid(self) -> AsyncIterator["Wire"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.cut()
            server.close()
            await server.wait_closed()

    def cut(self) -> None:
        self.is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        onward, back = await asyncio.open_connection(*self._upstream)
        self._writers |= {writer, back}
        await asyncio.gather(self._carry(reader, back), self._carry(onward, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


async def test_a_process_cut_off_from_redis_does_not_leave_the_others_the_past(
    people: MainAppDatabase, postgres_database: PostgresDatabase, redis_url: str
) -> None:
    """It refreshes a person whose cached copy it cannot invalidate; others can and do."""
    address = urlsplit(redis_url)
    assert address.port
    async with Wire("127.0.0.1", address.port).laid() as wire:
        addresses = {"mysql_url": people.url, "postgres_url": postgres_database.url}
        async with (
            running_user_context(
                **addresses, redis_url=f"redis://127.0.0.1:{wire.port}/0"
            ) as cut_off,
            running_user_context(**addresses, redis_url=redis_url) as connected,
        ):
            connected.queue.states[1] = call_state_pb2.CallState(user_id=1, version=1)
            await _get(cut_off, 1)
            await _get(connected, 1)
            wire.cut()
            people.execute("UPDATE users SET first_name = 'After'")
            refreshed = await _refresh(cut_off, 1)
            assert refreshed.facts[0].exists

            async def knows() -> bool:
                return (await _get(connected, 1)).context.user.first_name == "After"

            await _until(knows, "the fence to be raised by the other process")
            assert (await _get(cut_off, 1)).context.user.first_name == "After"


async def test_the_queue_is_unavailable(
    people: MainAppDatabase, postgres_database: PostgresDatabase, redis_url: str
) -> None:
    async with running_user_context(
        mysql_url=people.url, postgres_url=postgres_database.url, redis_url=redis_url
    ) as service:
        service.queue.states[1] = call_state_pb2.CallState(user_id=1, score=4, version=1)
        await _get(service, 1)
        service.queue.is_unavailable = True

        unknown = await _get(service, 2)
        assert unknown.freshness.stale
        assert not unknown.context.HasField("call_state")
        assert unknown.context.user.user_id == 2

        await service.stub.InvalidateCallStates(
            pb.InvalidateCallStatesRequest(versions=[pb.CallStateVersion(user_id=1, version=2)])
        )
        last_known = await _get(service, 1)
        assert last_known.freshness.stale
        assert last_known.context.call_state.score == 4

        service.queue.is_unavailable = False
        service.queue.states[1] = call_state_pb2.CallState(user_id=1, score=5, version=2)

        async def is_back() -> bool:
            return not (await _get(service, 1)).freshness.stale

        await _until(is_back, "the queue to be asked again")
        assert (await _get(service, 1)).context.call_state.score == 5
