"""Objections over HTTP: who may record one about whom, what is lifted, what lists show."""

import asyncio
import csv
import io
import uuid
from typing import Any

import httpx
import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2
from dialler.user_context.v1 import user_context_pb2

from devstack.servers import Redis
from servicekit.errors import Internal, InvalidArgument, ServiceError, Unavailable
from services.queue.wire.phone_list import PhoneListReader
from tests.fakes import waiting
from tests.fakes.running_gateway import RunningGateway

pytestmark = pytest.mark.integration

PATH = "/v1/suppressions"
NUMBER = "07700 900123"
E164 = "+447700900123"


def key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def reason(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["reason"])


async def recorded(client: httpx.AsyncClient, **about: str) -> dict[str, Any]:
    """Record an objection; returns the answer."""
    response = await client.post(PATH, json={"notes": "asked", **about}, headers=key())
    assert response.status_code == 201, response.text
    return dict(response.json())


async def test_a_supervisor_records_and_lifts_an_objection(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    answer = await recorded(supervisor, user_id="7")
    assert answer["call_state"]["user_id"] == "7"
    (one,) = (await supervisor.get(PATH)).json()["suppressions"]
    assert one["suppression_id"] == answer["suppression_id"]
    assert (one["created_by"], one["user_id"], one["phone_number"], one["lifted_at"]) == (
        "supervisor-1",
        "7",
        None,
        None,
    )
    # The one that stands is named again.
    assert (await recorded(supervisor, user_id="7"))["suppression_id"] == one["suppression_id"]
    body = {"user_id": "7", "notes": "changed their mind"}
    lifted = await supervisor.post(f"{PATH}/lift", json=body, headers=key())
    assert lifted.json()["call_state"]["user_id"] == "7"
    response = await supervisor.post(f"{PATH}/lift", json=body, headers=key())
    assert reason(response, 409) == "NOT_SUPPRESSED"


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"user_id": "7", "phone": NUMBER},
        {"user_id": 7},
        {"user_id": "07"},
        {"user_id": ""},
        {"phone": ""},
        {"phone": None, "user_id": "7"},
        {"phone": "07700\x00900123"},
        {"phone": NUMBER, "notes": " "},
        {"phone": NUMBER, "suppression_id": str(uuid.uuid4())},
    ],
)
async def test_an_objection_is_about_exactly_one(
    gateway: RunningGateway, agent: httpx.AsyncClient, about: dict[str, Any]
) -> None:
    response = await agent.post(PATH, json={"notes": "asked", **about}, headers=key())
    assert reason(response, 422) == "INVALID_REQUEST"
    assert "900123" not in response.text
    assert gateway.services.queue.calls == []


async def test_an_agent_records_one_about_people_they_may_see(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    queue = gateway.services.queue
    queue.hold("agent-1", 7)
    queue.hold("agent-2", 8)
    assert (await recorded(agent, user_id="7"))["call_state"]["user_id"] == "7"
    body = {"user_id": "8", "notes": "asked"}
    refused = await agent.post(PATH, json=body, headers=key())
    assert reason(refused, 403) == "PERSON_NOT_YOURS"
    gateway.services.user_context.found_people = [user_context_pb2.FoundUser(user_id=8)]
    await agent.post("/v1/people/search", json={"name": "jo"})
    await recorded(agent, user_id="8")
    told = [(it.user_id, it.actor_id, it.notes) for it in queue.requests("SuppressUser")]
    assert told == [(7, "agent-1", "asked"), (8, "agent-1", "asked")]


async def test_any_agent_records_one_about_a_bare_number(
    gateway: RunningGateway, agent: httpx.AsyncClient, supervisor: httpx.AsyncClient
) -> None:
    answer = await recorded(agent, phone=f"{NUMBER} (mobile)")
    assert answer["call_state"] is None
    (request,) = gateway.services.queue.requests("SuppressUser")
    assert (request.user_id, request.phone) == (0, f"{NUMBER} (mobile)")
    (one,) = (await supervisor.get(PATH)).json()["suppressions"]
    assert (one["user_id"], one["phone_number"]) == (None, E164)
    body = {"suppression_id": answer["suppression_id"], "notes": "a mistake"}
    lifted = await supervisor.post(f"{PATH}/lift", json=body, headers=key())
    assert (lifted.status_code, lifted.json()) == (200, {"call_state": None})


async def test_what_is_no_number_is_told(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    failure = InvalidArgument("PHONE_NOT_VALID", "not exactly one phone number")
    for method in ("SuppressUser", "ListSuppressions"):
        gateway.services.queue.failures[method] = failure
    for path, body in (
        (PATH, {"phone": "12", "notes": "asked"}),
        (f"{PATH}/search", {"phone": "12"}),
    ):
        response = await supervisor.post(path, json=body, headers=key())
        assert reason(response, 400) == "PHONE_NOT_VALID"


async def test_without_redis_an_agents_objection_is_taken(start: Any, own_redis: Redis) -> None:
    gateway = await start(redis_url=own_redis.url())
    own_redis.kill()
    headers = gateway.headers("agent", "agent-1")
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        response = await client.get("/v1/people/8/calls")
        assert reason(response, 503) == "ACCESS_UNCERTAIN"
        answer = await recorded(client, user_id="8")
    # Whether the agent may see the person is not known, so nothing of the person is shown.
    assert answer["call_state"] is None
    assert gateway.services.queue.suppressions[answer["suppression_id"]].user_id == 8


@pytest.mark.parametrize(
    "failure", [Unavailable("AWAY", "as the test wants it"), Internal("BUG", "so too")]
)
async def test_an_objection_is_taken_when_holders_cannot_be_asked(
    gateway: RunningGateway, agent: httpx.AsyncClient, failure: ServiceError
) -> None:
    gateway.services.queue.failures["GetCurrentAssignment"] = failure
    assert (await recorded(agent, user_id="8"))["call_state"] is None


async def test_an_objection_that_is_not_stored_is_not_confirmed(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    failure = Unavailable("AWAY", "as the test wants it")
    gateway.services.queue.failures["SuppressUser"] = failure
    body = {"phone": NUMBER, "notes": "asked"}
    assert reason(await agent.post(PATH, json=body, headers=key()), 503) == "AWAY"


async def test_an_objection_and_a_no_claim_are_lifted_one_by_one(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    gateway.services.queue.no_claims = {7}
    await recorded(supervisor, user_id="7")

    async def lift(**what: str | None) -> httpx.Response:
        body = {"user_id": "7", "notes": "reviewed", **what}
        return await supervisor.post(f"{PATH}/lift", json=body, headers=key())

    assert reason(await lift(), 409) == "SEVERAL_STAND"
    assert (await lift(what="no_claim")).status_code == 200
    assert reason(await lift(what="no_claim"), 409) == "NOT_SUPPRESSED"
    assert (await lift(what=None)).status_code == 200
    assert reason(await lift(what="objection"), 409) == "NOT_SUPPRESSED"
    asked = [it.what for it in gateway.services.queue.requests("LiftSuppression")]
    assert asked == [
        queue_pb2.LIFTED_UNSPECIFIED,
        queue_pb2.LIFTED_NO_CLAIM,
        queue_pb2.LIFTED_NO_CLAIM,
        queue_pb2.LIFTED_UNSPECIFIED,
        queue_pb2.LIFTED_OBJECTION,
    ]


@pytest.mark.parametrize(
    "what",
    [
        {},
        {"user_id": "7", "suppression_id": str(uuid.uuid4())},
        {"user_id": "7", "what": "everything"},
        {"suppression_id": "7"},
        {"suppression_id": str(uuid.uuid4()), "what": "no_claim"},
        {"phone": NUMBER},
    ],
)
async def test_what_is_lifted_is_exactly_one(
    gateway: RunningGateway, supervisor: httpx.AsyncClient, what: dict[str, str]
) -> None:
    response = await supervisor.post(f"{PATH}/lift", json={"notes": "x", **what}, headers=key())
    assert reason(response, 422) == "INVALID_REQUEST"
    assert gateway.services.queue.calls == []


async def test_objections_are_found_by_number_and_views_of_people_noted(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    await recorded(supervisor, user_id="7")
    await recorded(supervisor, phone=NUMBER)
    await recorded(supervisor, phone="07700 900124")
    for spelling in (NUMBER, "+44 7700 900-123"):
        response = await supervisor.post(f"{PATH}/search", json={"phone": spelling})
        assert [it["phone_number"] for it in response.json()["suppressions"]] == [E164]
        assert response.headers["cache-control"] == "no-store"
    parameters: dict[str, Any] = {"include_lifted": True, "page_size": 3}
    await supervisor.post(f"{PATH}/search", json={"phone": NUMBER}, params=parameters)
    last = gateway.services.queue.requests("ListSuppressions")[-1]
    assert (last.phone, last.include_lifted, last.page_size) == (NUMBER, True, 3)
    # No address holds a number.
    response = await supervisor.post(f"{PATH}/search", params={"phone": NUMBER})
    assert reason(response, 422) == "INVALID_REQUEST"
    assert len((await supervisor.get(PATH)).json()["suppressions"]) == 3
    queue = gateway.services.queue
    async with waiting.limit(5):
        while not queue.accesses:  # noqa: ASYNC110 - another's loop
            await asyncio.sleep(0.02)
    assert queue.accesses == [("supervisor-1", "VIEWED_SUPPRESSION", 7)]


async def test_do_not_contact_is_taken_of_an_ended_assignment(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    queue = gateway.services.queue
    queue.ready = [7, 8]
    gateway.services.user_context.contexts[8] = b"{}"
    former = (await agent.post("/v1/assignments", headers=key())).json()["assignment"]
    one = f"/v1/assignments/{former['assignment_id']}"
    assert (await agent.post(f"{one}/release", headers=key())).status_code == 200
    await agent.post("/v1/assignments", headers=key())
    body = {"outcome": "do_not_contact", "notes": "asked"}
    once = key()
    response = await agent.post(f"{one}/outcome", json=body, headers=once)
    assert (response.status_code, response.json()["call_state"]["user_id"]) == (200, "7")
    assert (await agent.post(f"{one}/outcome", json=body, headers=once)).json() == response.json()
    other = {"outcome": "no_answer"}
    late = await agent.post(f"{one}/outcome", json=other, headers=key())
    assert reason(late, 409) == "ASSIGNMENT_NOT_LIVE"
    # The person on the line now stays open without asking the queue.
    assert (await agent.get("/v1/people/8/context")).status_code == 200
    assert queue.requests("GetCurrentAssignment") == []


async def test_people_without_a_callable_number_are_listed(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    parameters = {"state": "out", "reason": "NO_CALLABLE_NUMBER"}
    response = await supervisor.get("/v1/queues/unsigned_users/entries", params=parameters)
    assert response.status_code == 200
    (request,) = gateway.services.queue.requests("ListEntries")
    assert request.state == call_state_pb2.ENTRY_STATE_OUT
    assert request.reason == "NO_CALLABLE_NUMBER"


async def test_all_objections_are_exported_with_their_numbers(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    """As CSV that a spreadsheet does not execute and an import of a list takes."""
    await recorded(supervisor, phone=NUMBER, notes='=HYPERLINK("x")\nthen, so it went')
    await recorded(supervisor, user_id="7")
    response = await supervisor.get(f"{PATH}/export")
    assert response.headers["content-type"].startswith("text/csv")
    assert "objections.csv" in response.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [(it["user_id"], it["phone"]) for it in rows] == [
        ("", E164),
        ("", "+447700900002"),
        ("7", "+447700900001"),
        ("7", "+447700900002"),
    ]
    assert rows[0]["notes"] == '\'=HYPERLINK("x")\nthen, so it went'
    assert rows[0]["created_by"] == "supervisor-1"
    (request,) = gateway.services.queue.requests("ExportObjections")
    assert request.actor_id == "supervisor-1"
    reader = PhoneListReader()
    assert reader.feed(response.content, is_last=True) == [it["phone"] for it in rows]


async def test_an_export_that_is_refused_has_not_begun(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    gateway.services.queue.failures["ExportObjections"] = Unavailable("DATABASE_DOWN", "later")
    assert reason(await supervisor.get(f"{PATH}/export"), 503) == "DATABASE_DOWN"
