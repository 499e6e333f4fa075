"""Contexts that are wanted together: read together, answered as if each were alone."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import REGISTRY

from gateway.resources.contexts import CALLS_IN_FLIGHT, PEOPLE_PER_CALL
from servicekit.errors import Unavailable
from tests.fakes import waiting
from tests.fakes.running_gateway import RunningGateway
from tests.fakes.user_context import FakeUserContext

pytestmark = pytest.mark.integration

BATCH = "BatchGetUserContexts"
EVERY_USER = range(1, 201)


@pytest.fixture
def user_context(gateway: RunningGateway) -> FakeUserContext:
    fake = gateway.services.user_context
    fake.contexts = {user_id: b'{"user_id":"%d"}' % user_id for user_id in EVERY_USER}
    fake.cached = set(EVERY_USER)
    return fake


@pytest.fixture
async def desk(gateway: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    headers = gateway.headers("service", "s")
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=10) as client:
        yield client


async def _received(user_context: FakeUserContext, method: str, number: int) -> None:
    async with waiting.limit(5):
        while len(user_context.requests(method)) < number:  # noqa: ASYNC110 - the fake is told
            await asyncio.sleep(0.01)


async def _in_progress(number: int) -> None:
    async with waiting.limit(10):
        while REGISTRY.get_sample_value("dialler_http_server_in_progress") != number:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _read(desk: httpx.AsyncClient, user_id: int) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(desk.get(f"/v1/people/{user_id}/context"))


async def test_a_single_context_waits_for_no_other(
    user_context: FakeUserContext, desk: httpx.AsyncClient
) -> None:
    assert (await desk.get("/v1/people/7/context")).json() == {"user_id": "7"}
    assert [list(it.user_ids) for it in user_context.requests(BATCH)] == [[7]]
    assert user_context.requests("GetUserContext") == []


async def test_what_is_wanted_meanwhile_is_read_in_one_call(
    user_context: FakeUserContext, desk: httpx.AsyncClient
) -> None:
    user_context.gates[BATCH] = asyncio.Event()
    first = [_read(desk, user_id) for user_id in range(1, CALLS_IN_FLIGHT + 1)]
    await _received(user_context, BATCH, 1)
    others = [_read(desk, user_id) for user_id in (*range(10, 60), 10, 11)]
    await _in_progress(len(first) + len(others))
    user_context.gates[BATCH].set()

    answers = await asyncio.gather(*first, *others)

    wanted = [*range(1, CALLS_IN_FLIGHT + 1), *range(10, 60), 10, 11]
    assert [it.json()["user_id"] for it in answers] == [str(it) for it in wanted]
    calls = user_context.requests(BATCH)
    # A few that were slow to arrive may have had to wait for the next.
    assert len(calls) <= len(wanted) // 4
    assert all(len(it.user_ids) <= PEOPLE_PER_CALL and it.cached_only for it in calls)
    assert user_context.requests("GetUserContext") == []


async def test_no_request_waits_for_a_user_who_is_not_cached(
    user_context: FakeUserContext, desk: httpx.AsyncClient
) -> None:
    user_context.cached -= {5, 6, 7}
    user_context.gates["GetUserContext"] = asyncio.Event()
    slow = [_read(desk, user_id) for user_id in (5, 6, 7)]
    await _received(user_context, "GetUserContext", 3)

    assert (await desk.get("/v1/people/8/context")).json() == {"user_id": "8"}

    assert not any(it.done() for it in slow)
    user_context.gates["GetUserContext"].set()
    assert [it.json()["user_id"] for it in await asyncio.gather(*slow)] == ["5", "6", "7"]


async def test_one_whom_the_answer_had_no_room_for_is_read_alone(
    user_context: FakeUserContext, desk: httpx.AsyncClient
) -> None:
    user_context.contexts_per_answer = 1
    user_context.gates[BATCH] = asyncio.Event()
    wanted = range(1, 21)
    reads = [_read(desk, user_id) for user_id in wanted]
    await _in_progress(len(reads))
    user_context.gates[BATCH].set()

    answers = await asyncio.gather(*reads)

    assert [it.json()["user_id"] for it in answers] == [str(it) for it in wanted]
    assert user_context.requests("GetUserContext")


async def test_one_that_no_message_can_hold_is_refused_alone_and_for_good(
    user_context: FakeUserContext, desk: httpx.AsyncClient
) -> None:
    user_context.too_large = {5}

    answers = await asyncio.gather(*(_read(desk, user_id) for user_id in (4, 5, 6, 7)))

    assert [it.status_code for it in answers] == [200, 409, 200, 200]
    refused = answers[1]
    assert refused.json()["reason"] == "CONTEXT_TOO_LARGE"
    assert "Retry-After" not in refused.headers


async def test_a_context_that_cannot_be_read_fails_only_its_own_request(
    user_context: FakeUserContext, desk: httpx.AsyncClient
) -> None:
    user_context.cached -= {5}
    del user_context.contexts[5]
    user_context.failures["GetUserContext"] = Unavailable("MAIN_APP_UNAVAILABLE", "away")

    answers = await asyncio.gather(*(_read(desk, user_id) for user_id in (4, 5, 6, 7)))

    assert [it.status_code for it in answers] == [200, 503, 200, 200]
    del user_context.failures["GetUserContext"]
    assert (await desk.get("/v1/people/5/context")).status_code == 404


async def test_without_user_context_each_is_told(
    user_context: FakeUserContext, desk: httpx.AsyncClient
) -> None:
    user_context.failures[BATCH] = Unavailable("GOING_AWAY", "going away")

    answers = await asyncio.gather(*(_read(desk, user_id) for user_id in range(1, 9)))

    assert {(it.status_code, it.json()["reason"]) for it in answers} == {(503, "GOING_AWAY")}
