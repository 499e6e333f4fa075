"""A change that is requested again under the same id happens once, and has one answer."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from dialler.queue.v1 import queue_pb2
from sqlalchemy import text

from servicekit.database import postgres_engine
from servicekit.errors import Conflict, InvalidArgument
from services.queue.calls.once import once
from services.queue.store.database import Database, Transaction
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.types import AgentId
from tests.integration.queue.bench import Tables

pytestmark = pytest.mark.integration

NOW = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
REQUEST = IdempotentRequest(AgentId("anna"), UUID(int=1), "NoteComplaintRequest", b"content")


@pytest.fixture
async def database(queue_url: str) -> AsyncIterator[Database]:
    engine = postgres_engine(
        queue_url, pool_size=4, application_name="test", statement_timeout_seconds=5.0
    )
    yield Database(engine)
    await engine.dispose()


class Change:
    """A change that counts how often it is made, and answers with that number."""

    def __init__(self) -> None:
        self.made = 0
        self.committed = 0
        self.fails = False

    async def __call__(self, tx: Transaction) -> queue_pb2.FindUsersByPhoneResponse:
        self.made += 1
        if self.fails:
            raise Conflict("REFUSED", "refused on purpose")
        return queue_pb2.FindUsersByPhoneResponse(user_ids=[self.made])

    async def requested(
        self, database: Database, request: IdempotentRequest = REQUEST
    ) -> queue_pb2.FindUsersByPhoneResponse:
        def committed() -> None:
            self.committed += 1

        return await once(
            database, request, NOW, queue_pb2.FindUsersByPhoneResponse, self, committed
        )


async def test_a_repeat_gets_the_first_answer_and_changes_nothing(database: Database) -> None:
    change = Change()
    first = await change.requested(database)
    assert await change.requested(database) == first
    assert (list(first.user_ids), change.made, change.committed) == ([1], 1, 1)


async def test_requests_at_the_same_moment_make_one_change(database: Database) -> None:
    change = Change()
    answers = await asyncio.gather(*(change.requested(database) for _ in range(4)))
    assert [list(it.user_ids) for it in answers] == [[1]] * 4
    assert (change.made, change.committed) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        IdempotentRequest(
            REQUEST.agent_id, REQUEST.request_id, "NoteComplaintRequest", b"other content"
        ),
        IdempotentRequest(REQUEST.agent_id, REQUEST.request_id, "SuppressUserRequest", b"content"),
    ],
)
async def test_another_request_under_the_same_id_is_refused(
    database: Database, other: IdempotentRequest
) -> None:
    change = Change()
    await change.requested(database)
    with pytest.raises(InvalidArgument, match="REQUEST_ID_REUSED"):
        await change.requested(database, other)
    assert change.made == 1


async def test_the_same_id_of_another_agent_is_another_request(database: Database) -> None:
    change = Change()
    await change.requested(database)
    of_bob = IdempotentRequest(
        AgentId("bob"), REQUEST.request_id, REQUEST.method, REQUEST.payload_hash
    )
    assert list((await change.requested(database, of_bob)).user_ids) == [2]


async def test_a_change_that_fails_leaves_the_id_free(database: Database, tables: Tables) -> None:
    change = Change()
    change.fails = True
    with pytest.raises(Conflict, match="REFUSED"):
        await change.requested(database)
    assert change.committed == 0
    assert await tables.value("SELECT count(*) FROM queue.requests") == 0
    change.fails = False
    assert list((await change.requested(database)).user_ids) == [2]


async def test_the_guard_is_taken_before_the_request_id(database: Database) -> None:
    """Else two requests could wait for each other, one with the guard and one with the id."""
    change = Change()
    ids_seen: list[int] = []

    async def guard(tx: Transaction) -> None:
        found = await tx.execute(text("SELECT count(*) FROM queue.requests"))
        ids_seen.append(found.scalar_one())

    response = queue_pb2.FindUsersByPhoneResponse
    await once(database, REQUEST, NOW, response, change, guard=guard)
    assert ids_seen == [0]
