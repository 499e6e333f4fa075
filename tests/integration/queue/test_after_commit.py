"""What is left in an outbox wakes the dispatcher after the commit, and only then."""

from collections.abc import AsyncIterator

import pytest

from servicekit.database import postgres_engine
from services.queue.store import outbox
from services.queue.store.database import Database

pytestmark = pytest.mark.integration


class Hook:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


@pytest.fixture
async def database(queue_url: str) -> AsyncIterator[Database]:
    # One connection, so that a mark left by one transaction would be seen by the next.
    engine = postgres_engine(
        queue_url, pool_size=1, application_name="test", statement_timeout_seconds=5.0
    )
    yield Database(engine)
    await engine.dispose()


async def test_the_hook_is_called_once_after_a_commit_with_events(database: Database) -> None:
    hook = Hook()
    database.after_outbox_commit(hook)
    async with database.transaction() as tx:
        await outbox.post(tx, [b"one"])
        await outbox.post(tx, [b"two"])
        assert hook.calls == 0
    assert hook.calls == 1
    async with database.transaction() as tx:
        await outbox.post(tx, [])
        await outbox.lengths(tx)
    assert hook.calls == 1


async def test_the_hook_is_not_called_after_a_rollback(database: Database) -> None:
    hook = Hook()
    database.after_outbox_commit(hook)

    async def post_and_fail() -> None:
        async with database.transaction() as tx:
            await outbox.post(tx, [b"one"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await post_and_fail()
    async with database.transaction() as tx:
        assert await outbox.lengths(tx) == (0, 0)
    assert hook.calls == 0
