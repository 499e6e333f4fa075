"""Two processes of the service on one Redis: one is read from, the other one refreshes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from dialler.model.v1.call_state_pb2 import CallState
from dialler.user_context.v1 import user_context_pb2 as pb

from devstack.mainapp_database import MainAppDatabase
from tests.fakes import waiting
from tests.fakes.running_user_context import (
    RunningUserContext,
    insertion,
    running_user_context,
)

PEOPLE = range(1, 41)


class TwoServices:
    """Readings of contexts go to `reader` alone, refreshes to `writer` alone.

    That Redis refuses is only met by the one, and must not be missed by the other.
    """

    def __init__(
        self, reader: RunningUserContext, writer: RunningUserContext, main_app: MainAppDatabase
    ) -> None:
        self.reader = reader
        self._writer = writer
        self._main_app = main_app
        self._changes = 0

    async def change(self, user_id: int) -> None:
        """Change the person in MySQL and refresh them, as the ingest does."""
        self._changes += 1
        name = f"change {self._changes}"
        self._main_app.execute("UPDATE users SET first_name = %s WHERE id = %s", [name, user_id])
        await self._writer.stub.RefreshUsers(pb.RefreshUsersRequest(user_ids=[user_id]))

    async def shown(self) -> dict[int, tuple[str, bool]]:
        """Return each person's name as `reader` serves it, and whether from the cache."""
        request = pb.BatchGetUserContextsRequest(user_ids=PEOPLE)
        answer = await self.reader.stub.BatchGetUserContexts(request)
        assert not any(each.freshness.stale for each in answer.contexts)
        return {
            each.context.user.user_id: (each.context.user.first_name, each.freshness.cached)
            for each in answer.contexts
        }

    async def reason(self, service: RunningUserContext) -> str:
        return (await service.stub.GetCacheStats(pb.GetCacheStatsRequest())).distrust_reason

    def wrong(self, shown: dict[int, tuple[str, bool]]) -> list[str]:
        """Compare with MySQL, by a query that has nothing to do with the service's own."""
        truth = dict(self._main_app.rows("SELECT id, first_name FROM users"))
        return [
            f"{user_id} is shown as {shown.get(user_id)} instead of {name}"
            for user_id, name in truth.items()
            if shown.get(user_id, ("", False))[0] != name
        ]

    async def until_cached(self) -> None:
        """Wait until every person is served from a cache that is trusted again."""

        async def all_cached() -> bool:
            shown = await self.shown()
            assert not self.wrong(shown)
            return all(cached for _, cached in shown.values())

        await until(all_cached, "the cache to be used")
        assert await self.reason(self.reader) == ""


async def until(holds: Callable[[], Awaitable[bool]], what: str, seconds: float = 40.0) -> None:
    end = waiting.deadline(seconds)
    while not await holds():
        assert time.monotonic() < end, f"waited for {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def two_services(
    main_app: MainAppDatabase,
    postgres_url: str,
    redis_url: str,
    *,
    writers_redis_url: str | None = None,
) -> AsyncIterator[TwoServices]:
    """Yield two services with every person in the cache; each may have its own way to Redis."""
    for user_id in PEOPLE:
        row = insertion(
            "users", id=user_id, email_address=f"{user_id}@example.com", first_name="as at first"
        )
        main_app.execute(*row)
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(
                running_user_context(
                    mysql_url=main_app.url,
                    postgres_url=postgres_url,
                    redis_url=url,
                    redis_seconds=2.0,
                    unraised_interval_seconds=0.5,
                )
            )
            for url in (redis_url, writers_redis_url or redis_url)
        ]
        for service in services:
            # Known to the queue, so that it stays cached for longer than the test takes.
            service.queue.states.update(
                {user_id: CallState(user_id=user_id, version=1) for user_id in PEOPLE}
            )
        reader, writer = services
        pair = TwoServices(reader, writer, main_app)
        await pair.until_cached()
        yield pair
