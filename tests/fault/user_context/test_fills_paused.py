"""A reading that is paused while the world moves on can no longer put the past in the cache."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from dialler.user_context.v1 import user_context_pb2 as pb

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from devstack.servers import Redis
from services.user_context.cache.context_cache import Filling
from services.user_context.cache.rendering import render_main
from services.user_context.domain import Part, UserId
from tests.fakes import waiting
from tests.fakes.running_user_context import (
    RunningUserContext,
    TakenApart,
    insertion,
    running_user_context,
    taken_apart,
)

pytestmark = pytest.mark.fault

PERSON = UserId(2**64 - 1)


class Scene:
    """A running service, and another process that is about to fill the cache."""

    def __init__(
        self,
        service: RunningUserContext,
        other: TakenApart,
        main_app: MainAppDatabase,
        redis: Redis,
    ) -> None:
        self.service = service
        self.other = other
        self.redis = redis
        self._main_app = main_app

    async def start_reading(self) -> "asyncio.Task[object]":
        """The other process has read the person and stops there."""
        self.other.store.pauses = True
        reading = asyncio.create_task(self._load())
        await self.other.store.has_read.wait()
        return reading

    async def finish(self, reading: "asyncio.Task[object]") -> None:
        self.other.store.let_go.set()
        await reading

    async def _load(self) -> object:
        return await self.other.readings.load([PERSON])

    def change(self, name: str) -> None:
        self._main_app.execute("UPDATE users SET first_name = %s", [name])

    async def refresh(self) -> None:
        await self.service.stub.RefreshUsers(pb.RefreshUsersRequest(user_ids=[PERSON]))

    async def shown(self) -> tuple[str, bool]:
        """The name that is served, and whether it comes from the cache."""
        answer = await self.service.stub.GetUserContext(pb.GetUserContextRequest(user_id=PERSON))
        assert not answer.freshness.stale
        return answer.context.user.first_name, answer.freshness.cached


@pytest.fixture
async def scene(
    mainapp_database: MainAppDatabase, postgres_database: PostgresDatabase, own_redis: Redis
) -> AsyncIterator[Scene]:
    mainapp_database.execute(
        *insertion("users", id=PERSON, email_address="a@example.com", first_name="Before")
    )
    addresses = {
        "mysql_url": mainapp_database.url,
        "postgres_url": postgres_database.url,
        "redis_url": own_redis.url(),
    }
    async with running_user_context(**addresses) as service, taken_apart(**addresses) as other:
        yield Scene(service, other, mainapp_database, own_redis)


async def test_a_fill_paused_across_a_refresh_does_not_land(scene: Scene) -> None:
    reading = await scene.start_reading()
    scene.change("After")
    await scene.refresh()
    await scene.finish(reading)

    assert scene.other.stats.fenced_fills == 1
    assert await scene.shown() == ("After", False)
    assert await scene.shown() == ("After", True)


async def test_a_fill_paused_across_nothing_lands(scene: Scene) -> None:
    """Without this the others would pass with a cache that never takes anything."""
    reading = await scene.start_reading()
    await scene.finish(reading)

    assert scene.other.stats.fenced_fills == 0
    await scene.service.stub.InvalidateCallStates(pb.InvalidateCallStatesRequest())
    await scene.shown()
    assert await scene.shown() == ("Before", True)


async def test_a_fill_paused_across_a_refresh_and_a_flush_does_not_land(scene: Scene) -> None:
    reading = await scene.start_reading()
    scene.change("After")
    await scene.refresh()
    scene.redis.ask("FLUSHALL")
    await scene.finish(reading)

    assert scene.other.stats.fenced_fills == 1
    assert (await scene.shown())[0] == "After"


async def test_a_fence_made_anew_by_an_older_version_lets_nothing_old_in(scene: Scene) -> None:
    """After a flush a slow process may make the fence with a version drawn long before."""
    long_ago = await scene.other.fences.draw_version()
    reading = await scene.start_reading()
    scene.change("After")
    await scene.refresh()
    scene.redis.ask("FLUSHALL")
    assert await scene.other.cache.begin(Part.MAIN, [PERSON], long_ago)
    await scene.finish(reading)

    assert scene.other.stats.fenced_fills == 1
    assert (await scene.shown())[0] == "After"


async def test_a_fill_paused_across_a_restart_does_not_land(scene: Scene) -> None:
    reading = await scene.start_reading()
    scene.change("After")
    await scene.refresh()
    scene.redis.kill()
    scene.redis.start()
    await scene.finish(reading)

    assert (await scene.shown())[0] == "After"
    assert (await scene.shown())[0] == "After"


async def test_a_server_back_with_an_old_copy_of_itself_serves_none_of_it_as_fresh(
    scene: Scene,
) -> None:
    await scene.shown()
    assert await scene.shown() == ("Before", True)
    scene.redis.ask("SAVE")
    scene.change("After")
    await scene.refresh()
    scene.redis.kill()
    scene.redis.start()
    assert scene.redis.ask("HGET", f"ctx:{{{PERSON}}}", "mv").startswith("$20")

    assert (await scene.shown())[0] == "After"
    assert (await scene.shown())[0] == "After"


async def test_a_refresh_that_dies_before_it_has_filled_leaves_nothing_old_as_fresh(
    scene: Scene,
) -> None:
    await scene.shown()
    scene.change("After")
    scene.other.store.pauses = True
    refresh = asyncio.create_task(scene.other.readings.refresh([PERSON]))
    await scene.other.store.has_read.wait()
    refresh.cancel()
    with pytest.raises(asyncio.CancelledError):
        await refresh

    assert (await scene.shown())[0] == "After"


async def test_a_fill_paused_across_a_refresh_that_died_does_not_land(scene: Scene) -> None:
    reading = await scene.start_reading()
    scene.change("After")
    version = await scene.other.fences.draw_version()
    await scene.other.cache.invalidate(Part.MAIN, [PERSON], version)
    await scene.finish(reading)

    assert scene.other.stats.fenced_fills == 1
    assert (await scene.shown())[0] == "After"


async def test_of_two_readings_the_later_stays_whichever_fills_first(scene: Scene) -> None:
    cache, fences, store = scene.other.cache, scene.other.fences, scene.other.store
    versions = [await fences.draw_version() for _ in range(2)]
    grants = {version: await cache.begin(Part.MAIN, [PERSON], version) for version in versions}
    for version in reversed(versions):
        scene.change(f"version {version}")
        person = (await store.read_people([PERSON])).people[PERSON]
        grant = grants[version]
        filling = Filling(PERSON, version, render_main(person))
        form = cache.form(Part.MAIN, filling, grant[PERSON].run, 0)
        await cache.fill(Part.MAIN, {PERSON: form}, grant)

    assert scene.other.stats.fenced_fills == 1
    await scene.shown()
    assert (await scene.shown()) == (f"version {versions[1]}", True)


async def test_a_full_server_that_refuses_fences_serves_nothing_old_as_fresh(scene: Scene) -> None:
    await scene.shown()
    assert await scene.shown() == ("Before", True)
    scene.change("After")
    scene.redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    scene.redis.ask("CONFIG", "SET", "maxmemory", "1")
    await scene.refresh()

    assert (await scene.shown())[0] == "After"
    scene.redis.ask("CONFIG", "SET", "maxmemory", "0")
    async with waiting.limit(20):
        while await scene.shown() != ("After", True):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
