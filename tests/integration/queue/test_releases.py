"""Many agents giving back at the same moment, and what comes between reading and writing."""

import asyncio
from uuid import UUID, uuid4

import pytest
from dialler.model.v1 import call_state_pb2, event_pb2
from dialler.queue.v1 import queue_pb2
from sqlalchemy.ext.asyncio import create_async_engine

from servicekit.errors import Conflict, NotFound
from servicekit.event_stream import EventStream
from servicekit.testing.clock import FakeClock
from services.queue.domain.terms import AgentId
from services.queue.store import releases
from services.queue.store.assignments import Request
from services.queue.store.database import Database
from services.queue.store.releases import GivenBack
from services.queue.testing import done, unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration

READY = call_state_pb2.ENTRY_STATE_READY


async def _held(desk: Desk, number: int) -> list[queue_pb2.Assignment]:
    await desk.fill(*(unsigned(user_id) for user_id in range(1, number + 1)))
    claims = await asyncio.gather(*(desk.claim(f"agent-{it}") for it in range(number)))
    return [it.assignment for it in claims]


async def test_many_release_together_and_each_gets_the_answer_that_is_theirs(
    desk: Desk, tables: Tables
) -> None:
    held = await _held(desk, 12)
    unknown = queue_pb2.Assignment(assignment_id=str(uuid4()), agent_id="agent-0")
    request_id = str(uuid4())
    twice = [desk.release(held[0], request_id=request_id) for _ in range(2)]
    once = [desk.release(it) for it in held[2:]]
    answers = await asyncio.gather(
        *twice,
        desk.release(held[1], agent_id="thief"),
        desk.release(unknown),
        *once,
        return_exceptions=True,
    )
    first, second, stolen, missing, *others = answers
    assert first == second
    assert isinstance(stolen, Conflict)
    assert stolen.reason == "ASSIGNMENT_NOT_YOURS"
    assert isinstance(missing, NotFound)
    for answer, assignment in zip([first, *others], [held[0], *held[2:]], strict=True):
        assert isinstance(answer, queue_pb2.ReleaseAssignmentResponse)
        assert answer.call_state.user_id == assignment.user_id
        assert answer.call_state.state == READY
        assert answer.call_state == await desk.state(assignment.user_id)
    assert await tables.value("SELECT count(*) FROM queue.assignments WHERE ended_at IS NULL") == 1
    assert await tables.value("SELECT count(*) FROM queue.assignments WHERE ending = 2") == 11


async def test_a_conversion_during_the_hold_is_not_undone_by_the_release(
    desk: Desk, tables: Tables
) -> None:
    held = await _held(desk, 2)
    await desk.fill(done(held[0].user_id))
    answers = await asyncio.gather(*map(desk.release, held))
    assert answers[0].call_state.state == call_state_pb2.ENTRY_STATE_OUT
    assert answers[1].call_state.state == READY
    assert await tables.value("SELECT count(*) FROM queue.conversions") == 1


async def test_whoever_has_changed_since_they_were_read_is_not_written(
    desk: Desk, queue_url: str, clock: FakeClock, tables: Tables
) -> None:
    kept, changed, answered = await _held(desk, 3)
    engine = create_async_engine(queue_url)
    database = Database(engine)
    asked = {UUID(it.assignment_id): it for it in (kept, changed, answered)}
    requests = {
        key: Request(AgentId(it.agent_id), uuid4(), "Release", b"hash") for key, it in asked.items()
    }
    async with database.statements() as tx:
        found = await releases.held(tx, list(requests.items()), clock.now())
        assert {it.assignment.assignment_id for it in found} == asked.keys()
        # Facts that change nothing in the queue leave the state's version as it is.
        await desk.apply(changed.user_id)
        taken = requests[UUID(answered.assignment_id)]
        await tables.rows(
            "INSERT INTO queue.requests (agent_id, request_id, method, payload_hash, made_at)"
            " VALUES (:agent_id, :request_id, 'Other', '', now())",
            agent_id=taken.agent_id,
            request_id=taken.request_id,
        )
        given = [
            GivenBack(
                held=it,
                after=it.entry._replace(last_agent_id=AgentId("x")),
                request=requests[it.assignment.assignment_id],
                response=queue_pb2.ReleaseAssignmentResponse(),
                event=b"",
            )
            for it in found
        ]
        assert await releases.give_back(tx, given, clock.now()) == {kept.user_id}
    await engine.dispose()
    ended = await tables.rows("SELECT user_id FROM queue.assignments WHERE ended_at IS NOT NULL")
    assert [row[0] for row in ended] == [kept.user_id]
    written = await tables.rows("SELECT user_id FROM queue.entries WHERE last_agent_id = 'x'")
    assert [row[0] for row in written] == [kept.user_id]


async def test_releases_are_told_of_once_each(desk: Desk, stream: EventStream) -> None:
    held = await _held(desk, 6)
    start = await stream.position()
    await asyncio.gather(*map(desk.release, held))
    told: dict[str, int] = {}
    while len(told) < len(held):
        batch = await stream.read(start, block_seconds=4, count=100)
        start = batch[-1][0]
        for _, event in batch:
            if event.type == event_pb2.EVENT_TYPE_ASSIGNMENT_ENDED:
                told[event.assignment_id] = told.get(event.assignment_id, 0) + 1
    assert told == {it.assignment_id: 1 for it in held}
