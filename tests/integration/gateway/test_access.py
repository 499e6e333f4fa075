"""Whom an agent may read, and that every view is in the audit trail."""

import asyncio
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from dialler.user_context.v1 import user_context_pb2

from devstack.servers import Redis
from gateway.access import audit
from gateway.access.person_access import GRANTED_SECONDS
from servicekit.errors import Unavailable
from tests.fakes import waiting
from tests.fakes.running_gateway import RunningGateway, running_gateway

pytestmark = pytest.mark.integration

ONES = ("context", "explanation", "calls")


def reason(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["reason"])


def know(gateway: RunningGateway, *user_ids: int) -> None:
    for user_id in user_ids:
        gateway.services.user_context.contexts[user_id] = b"{}"
    gateway.services.user_context.found_people = [
        user_context_pb2.FoundUser(user_id=it, first_name="Jo") for it in user_ids
    ]


async def noted(gateway: RunningGateway, number: int) -> list[tuple[str, str, int]]:
    """Wait until so many views are written."""
    async with waiting.limit(5):
        while len(gateway.services.queue.accesses) < number:  # noqa: ASYNC110 - another's loop
            await asyncio.sleep(0.02)
    return sorted(gateway.services.queue.accesses)


@pytest.mark.parametrize("what", ONES)
async def test_agents_read_only_the_assigned_person(
    gateway: RunningGateway, agent: httpx.AsyncClient, what: str
) -> None:
    know(gateway, 7, 8)
    gateway.services.queue.hold("agent-1", 7)
    gateway.services.queue.hold("agent-2", 8)
    assert (await agent.get(f"/v1/people/7/{what}")).status_code == 200
    assert reason(await agent.get(f"/v1/people/8/{what}"), 403) == "PERSON_NOT_YOURS"
    assert await noted(gateway, 1) == [("agent-1", f"VIEWED_{what.upper()}", 7)]


async def test_a_claim_opens_the_person_and_an_outcome_closes_them(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    know(gateway, 7)
    gateway.services.queue.ready = [7]
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    held = (await agent.post("/v1/assignments", headers=headers)).json()["assignment"]
    assert (await agent.get("/v1/people/7/context")).status_code == 200
    # The claim said so: the queue was not asked again.
    assert gateway.services.queue.requests("GetCurrentAssignment") == []
    path = f"/v1/assignments/{held['assignment_id']}/outcome"
    body = {"outcome": "no_answer"}
    assert (await agent.post(path, json=body, headers=headers)).status_code in (200, 422)
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    await agent.post(path, json=body, headers=headers)
    assert reason(await agent.get("/v1/people/7/context"), 403) == "PERSON_NOT_YOURS"


async def test_a_claim_answers_with_the_context_in_one_round_trip(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    know(gateway, 7)
    gateway.services.queue.ready = [7]
    gateway.services.user_context.stale = True
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    path = "/v1/assignments?include=context"
    response = await agent.post(path, headers=headers)
    assert (response.status_code, response.headers["dialler-stale"]) == (201, "true")
    alone = await agent.get("/v1/people/7/context")
    assert response.json()["context"] == alone.json()
    without = (await agent.post("/v1/assignments", headers=headers)).json()
    assert without["context"] is None
    assert response.json() == without | {"context": alone.json()}
    assert await noted(gateway, 1) == [("agent-1", "VIEWED_CONTEXT", 7)]
    # The claim stands where the context cannot be read.
    failure = Unavailable("MAIN_APP_UNAVAILABLE", "later")
    for method in ("GetUserContext", "BatchGetUserContexts"):
        gateway.services.user_context.failures[method] = failure
    response = await agent.post(path, headers={"Idempotency-Key": str(uuid.uuid4())})
    assert (response.status_code, response.json()["already_held"]) == (200, True)
    assert response.json()["context"] is None
    assert "dialler-stale" not in response.headers
    response = await agent.post("/v1/assignments?include=everything", headers=headers)
    assert reason(response, 422) == "INVALID_REQUEST"


async def test_a_claim_without_a_person_has_no_context(agent: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    answer = (await agent.post("/v1/assignments?include=context", headers=headers)).json()
    assert (answer["assignment"], answer["context"]) == (None, None)


async def test_agents_open_the_people_of_their_own_open_callbacks(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    know(gateway, 7, 8)
    queue = gateway.services.queue
    own = queue.agree(7, "agent-1")
    queue.agree(8, "agent-2")
    assert (await agent.get("/v1/people/7/context")).status_code == 200
    assert reason(await agent.get("/v1/people/8/context"), 403) == "PERSON_NOT_YOURS"
    assert await noted(gateway, 1) == [("agent-1", "VIEWED_CONTEXT", 7)]
    cancel = f"/v1/callbacks/{own.callback_id}/cancel"
    await agent.post(cancel, headers={"Idempotency-Key": str(uuid.uuid4())})
    async with waiting.limit(GRANTED_SECONDS * 2):
        while (await agent.get("/v1/people/7/calls")).status_code != 403:  # noqa: ASYNC110 - asks anew
            await asyncio.sleep(0.1)


async def test_a_repeated_claim_whose_assignment_has_ended_opens_no_person(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    know(gateway, 7, 8)
    gateway.services.queue.ready = [7, 8]
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    held = (await agent.post("/v1/assignments", headers=headers)).json()["assignment"]
    path = f"/v1/assignments/{held['assignment_id']}/release"
    release = {"Idempotency-Key": str(uuid.uuid4())}
    assert (await agent.post(path, headers=release)).status_code == 200
    assert reason(await agent.post("/v1/assignments", headers=headers), 409) == "CLAIM_ENDED"
    assert reason(await agent.get("/v1/people/7/context"), 403) == "PERSON_NOT_YOURS"
    # Nor does the repeat of what ended it, be it after the agent was handed the next one.
    await agent.post("/v1/assignments", headers={"Idempotency-Key": str(uuid.uuid4())})
    assert (await agent.post(path, headers=release)).status_code == 200
    assert reason(await agent.get("/v1/people/7/context"), 403) == "PERSON_NOT_YOURS"
    assert (await agent.get("/v1/people/8/context")).status_code == 200


async def test_a_claims_answer_that_names_a_lease_of_the_past_opens_no_person(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    """As a queue of the version before would repeat it; the fake's leases ended in 2025."""
    know(gateway, 7)
    queue = gateway.services.queue
    queue.hold("agent-1", 7)
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    assert (await agent.post("/v1/assignments", headers=headers)).json()["already_held"] is True
    del queue.live["agent-1"]
    assert reason(await agent.get("/v1/people/7/context"), 403) == "PERSON_NOT_YOURS"


@pytest.mark.each_redis
async def test_agents_read_whom_they_have_found_at_any_copy_for_a_while(start: Any) -> None:
    first = await start(search_access_seconds=10)
    other = await start(search_access_seconds=10)
    know(first, 7)
    know(other, 7)
    async with httpx.AsyncClient(headers=first.headers("agent", "agent-1")) as client:
        found = await client.post(f"{first.url}/v1/people/search", json={"name": "jo"})
        assert [it["user_id"] for it in found.json()["people"]] == ["7"]
        headers = other.headers("agent", "agent-1")
        response = await client.get(f"{other.url}/v1/people/7/context", headers=headers)
        assert response.status_code == 200
        headers = other.headers("agent", "agent-2")
        response = await client.get(f"{other.url}/v1/people/7/context", headers=headers)
        assert reason(response, 403) == "PERSON_NOT_YOURS"
    assert ("agent-1", "FOUND_BY_SEARCH", 7) in await noted(first, 1)


@pytest.mark.parametrize("role", ["supervisor", "service"])
async def test_other_roles_read_every_person_and_it_is_noted(
    gateway: RunningGateway, http: httpx.AsyncClient, role: str
) -> None:
    know(gateway, 7)
    headers = gateway.headers(role, "reader-1")
    for _ in range(3):
        assert (await http.get("/v1/people/7/context", headers=headers)).status_code == 200
    # Again and again within a minute is one view.
    assert await noted(gateway, 1) == [("reader-1", "VIEWED_CONTEXT", 7)]


async def test_nothing_is_noted_of_what_was_not_seen(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    assert (await supervisor.get("/v1/people/9/context")).status_code == 404
    know(gateway, 7)
    await supervisor.get("/v1/people/7/context")
    assert await noted(gateway, 1) == [("supervisor-1", "VIEWED_CONTEXT", 7)]


async def test_without_redis_only_the_person_held_is_readable(start: Any, own_redis: Redis) -> None:
    gateway = await start(redis_url=own_redis.url())
    know(gateway, 7, 8)
    gateway.services.queue.hold("agent-1", 7)
    own_redis.kill()
    headers = gateway.headers("agent", "agent-1")
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        assert (await client.get("/v1/people/7/context")).status_code == 200
        assert reason(await client.get("/v1/people/8/context"), 503) == "ACCESS_UNCERTAIN"
        found = await client.post("/v1/people/search", json={"name": "jo"})
        assert reason(found, 503) == "SEARCH_UNAVAILABLE"


async def test_without_the_queue_whom_an_agent_holds_is_readable_until_the_lease_ends(
    gateway: RunningGateway, agent: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(gateway, 7, 8)
    monkeypatch.setattr("gateway.access.person_access.GRANTED_SECONDS", 0.0)
    queue = gateway.services.queue
    queue.hold("agent-1", 7).lease_expires_at.GetCurrentTime()
    queue.live["agent-1"].lease_expires_at.seconds += 60
    assert (await agent.get("/v1/people/7/context")).status_code == 200
    queue.failures["GetCurrentAssignment"] = Unavailable("AWAY", "as the test wants it")
    assert (await agent.get("/v1/people/7/context")).status_code == 200
    assert reason(await agent.get("/v1/people/8/context"), 503) == "ACCESS_UNCERTAIN"
    del queue.failures["GetCurrentAssignment"]
    queue.live["agent-1"].lease_expires_at.seconds -= 120
    await agent.get("/v1/people/7/context")
    queue.failures["GetCurrentAssignment"] = Unavailable("AWAY", "as the test wants it")
    assert reason(await agent.get("/v1/people/7/context"), 503) == "ACCESS_UNCERTAIN"


async def test_views_wait_while_the_queue_is_away_and_too_many_are_refused(
    gateway: RunningGateway, supervisor: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(gateway, 1, 2, 3)
    monkeypatch.setattr(audit, "MOST_WAITING", 2)
    queue = gateway.services.queue
    queue.failures["RecordAccess"] = Unavailable("AWAY", "as the test wants it")
    for user_id in (1, 2):
        assert (await supervisor.get(f"/v1/people/{user_id}/context")).status_code == 200
    async with waiting.limit(5):
        while not queue.requests("RecordAccess"):  # noqa: ASYNC110 - another's loop
            await asyncio.sleep(0.02)
    refused = await supervisor.get("/v1/people/3/context")
    assert reason(refused, 503) == "AUDIT_UNAVAILABLE"
    assert refused.headers["retry-after"] == "5"
    del queue.failures["RecordAccess"]
    assert len(await noted(gateway, 2)) == 2


async def test_what_waits_at_the_end_is_written(start: Any, redis_url: str) -> None:
    from tests.fakes.running_gateway import running_gateway

    async with running_gateway(redis_url) as gateway:
        know(gateway, 7)
        async with httpx.AsyncClient(headers=gateway.headers("supervisor", "boss")) as client:
            await client.get(f"{gateway.url}/v1/people/7/context")
        queue = gateway.services.queue
    assert queue.accesses == [("boss", "VIEWED_CONTEXT", 7)]


@pytest.mark.fault
async def test_connections_that_a_restarted_redis_has_closed_fail_no_request(
    own_redis: Redis,
) -> None:
    async with running_gateway(own_redis.url()) as gateway:
        gateway.services.user_context.contexts[7] = b"{}"
        headers = gateway.headers("agent", "agent-1")
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
            asked = (client.get("/v1/people/7/context") for _ in range(10))
            assert {it.status_code for it in await asyncio.gather(*asked)} == {403}
            await asyncio.to_thread(own_redis.restart)
            asked = (client.get("/v1/people/7/context") for _ in range(10))
            assert {it.status_code for it in await asyncio.gather(*asked)} == {403}


async def test_a_token_for_emergencies_opens_the_api_and_every_use_says_so(
    start: Any, tmp_path: Path
) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key = tmp_path / "break-glass.pem"
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    gateway = await start(break_glass_public_key=public.decode())
    know(gateway, 7)
    asked = ("--break-glass", str(key), "--sub", "alice", "--reason", "INC-1")
    command = [sys.executable, "-m", "gateway.token", *asked]
    made = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    headers = {"Authorization": f"Bearer {made.stdout.decode().strip()}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=10) as client:
        assert (await client.get("/v1/queues")).status_code == 200
        assert (await client.get("/v1/people/7/context")).status_code == 200
    queue = gateway.services.queue
    async with waiting.limit(5):
        while len(queue.requests("RecordAccess")) < 2:  # noqa: ASYNC110 - another's loop
            await asyncio.sleep(0.02)
    told = {(it.action, tuple(it.user_ids)) for it in queue.requests("RecordAccess")}
    assert told == {("BREAK_GLASS", ()), ("VIEWED_CONTEXT", (7,))}
    actors = {it.actor_id for it in queue.requests("RecordAccess")}
    assert actors == {"break-glass:alice:INC-1"}
