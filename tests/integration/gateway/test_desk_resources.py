"""People, agents, callbacks, lists of numbers, rebuilds, audit and reference data over HTTP."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2
from dialler.user_context.v1 import user_context_pb2

from servicekit.errors import Conflict, FailedPrecondition, InvalidArgument, Unavailable
from tests.fakes import waiting
from tests.fakes.running_gateway import RunningGateway

pytestmark = pytest.mark.integration

WHEN = "2030-06-02T18:00:00+01:00"


def key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def reason(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["reason"])


async def test_search(gateway: RunningGateway, supervisor: httpx.AsyncClient) -> None:
    gateway.services.user_context.found_people = [
        user_context_pb2.FoundUser(user_id=2**60, first_name="Zoë", is_enabled=True),
        user_context_pb2.FoundUser(user_id=7, last_name="Smith"),
    ]
    body = (await supervisor.post("/v1/people/search", json={"name": "z", "limit": 1})).json()
    assert body["is_complete"] is False
    (person,) = body["people"]
    assert (person["user_id"], person["first_name"]) == (str(2**60), "Zoë")
    assert person["last_name"] is None
    for sent in ({"phone": "07700 900123", "limit": 20.0}, {"email_address": "jo@example.com"}):
        response = await supervisor.post("/v1/people/search", json=sent)
        assert response.headers["cache-control"] == "no-store"
    requests = gateway.services.user_context.requests("SearchUsers")
    by = [(it.WhichOneof("by"), it.limit) for it in requests]
    assert by == [("name", 1), ("phone", 20), ("email_address", 20)]


@pytest.mark.parametrize(
    "phone",
    [
        "\u202a07700 900801\u202c",
        "07700\u00a0900801",
        "\ufeff07700900801",
        "07700900801\u200b",
        "07700900801\r\n",
        "\t07700900801",
        "\x0207700900801\x03",
    ],
)
async def test_a_number_as_it_is_pasted_is_searched_for(
    gateway: RunningGateway, supervisor: httpx.AsyncClient, phone: str
) -> None:
    gateway.services.user_context.found_people = [
        user_context_pb2.FoundUser(
            user_id=7,
            phone_number="+447700900801",
            phone_numbers=["+447700900801", "+442079460018"],
            phone_number_as_written="07700900801 / 020 7946 0018 wife",
        )
    ]
    response = await supervisor.post("/v1/people/search", json={"phone": phone})
    assert response.status_code == 200
    (person,) = response.json()["people"]
    assert person["phone_number"] == "+447700900801"
    assert person["phone_numbers"] == ["+447700900801", "+442079460018"]
    assert person["phone_number_as_written"] == "07700900801 / 020 7946 0018 wife"
    (request,) = gateway.services.user_context.requests("SearchUsers")
    assert request.phone == phone


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "jo\x00"},
        {"limit": 3},
        {"name": ""},
        {"name": "jo", "phone": "1"},
        {"name": "jo", "limit": 51},
    ],
)
async def test_search_by_exactly_one(supervisor: httpx.AsyncClient, body: dict[str, Any]) -> None:
    response = await supervisor.post("/v1/people/search", json=body)
    assert reason(response, 422) == "INVALID_REQUEST"


async def test_what_cannot_be_searched_for_is_told(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    failure = InvalidArgument("PHONE_NOT_VALID", "not a whole, valid phone number")
    gateway.services.user_context.failures["SearchUsers"] = failure
    response = await supervisor.post("/v1/people/search", json={"phone": "12"})
    assert reason(response, 400) == "PHONE_NOT_VALID"


async def test_explanation(
    gateway: RunningGateway, agent: httpx.AsyncClient, supervisor: httpx.AsyncClient
) -> None:
    body = (await supervisor.get("/v1/people/7/explanation", params={"agent_id": "a-2"})).json()
    assert body["queue"] == "unsigned_users"
    assert body["rules"][0]["inputs"] == {"zone": "UTC"}
    assert body["factors"] == [{"factor": "AGEING", "points": 2.5, "words": "half a week"}]
    gateway.services.queue.hold("agent-1", 7)
    assert (await agent.get("/v1/people/7/explanation")).status_code == 200
    other = await agent.get("/v1/people/7/explanation", params={"agent_id": "a-2"})
    assert reason(other, 403) == "NOT_YOURS"
    asked = [it.agent_id for it in gateway.services.queue.requests("ExplainUser")]
    assert asked == ["a-2", "agent-1"]


async def test_calls(gateway: RunningGateway, supervisor: httpx.AsyncClient) -> None:
    made = queue_pb2.Call(
        assignment_id="a", agent_id="agent-1", outcome=call_state_pb2.OUTCOME_HUNG_UP, notes="n"
    )
    gateway.services.queue.calls_made[7] = [made]
    unreported = queue_pb2.Call(assignment_id="b", agent_id="agent-2")
    gateway.services.queue.calls_made[7].append(unreported)
    body = (await supervisor.get("/v1/people/7/calls")).json()
    assert [it["outcome"] for it in body["calls"]] == ["hung_up", None]
    assert body["next_page_token"] is None
    response = await supervisor.get("/v1/people/7/calls", params={"page_token": "mine"})
    assert reason(response, 400) == "PAGE_TOKEN_INVALID"


async def test_agents(
    gateway: RunningGateway, agent: httpx.AsyncClient, supervisor: httpx.AsyncClient
) -> None:
    path = "/v1/agents/me/presence"
    body = (await agent.put(path, json={"presence": "break"})).json()
    assert (body["agent_id"], body["presence"], body["allowed_queues"]) == ("agent-1", "break", [])
    gateway.services.queue.agent("agent-1").today.outcomes.add(
        outcome=call_state_pb2.OUTCOME_NO_ANSWER, calls=3
    )
    gateway.services.queue.agent("agent-1").today.unreported_calls = 2
    path = "/v1/agents/agent-1/queues"
    body = (await supervisor.put(path, json={"allowed_queues": ["callbacks"]})).json()
    assert body["allowed_queues"] == ["callbacks"]
    (request,) = gateway.services.queue.requests("SetAgentQueues")
    assert request.actor_id == "supervisor-1"
    gateway.services.queue.agent("agent-2").presence = queue_pb2.PRESENCE_AVAILABLE
    agents = (await supervisor.get("/v1/agents")).json()["agents"]
    assert [it["agent_id"] for it in agents] == ["agent-1", "agent-2"]
    assert agents[0]["today"]["calls"] == 3
    assert [it["today"]["unreported_calls"] for it in agents] == [2, 0]
    away = (await supervisor.get("/v1/agents", params={"presence": "break"})).json()["agents"]
    assert [it["agent_id"] for it in away] == ["agent-1"]
    me = (await agent.get("/v1/agents/me")).json()
    assert (me["agent_id"], me["presence"], me["skips_last_hour"]) == ("agent-1", "break", 2)
    assert (body["skips_last_hour"], me["today"]["calls"]) == (None, 3)


async def test_who_holds_whom_and_taking_them_away(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    held = gateway.services.queue.hold("agent-1", 7)
    (one,) = (await supervisor.get("/v1/assignments")).json()["assignments"]
    assert (one["assignment_id"], one["user_id"]) == (held.assignment_id, "7")
    path = f"/v1/assignments/{held.assignment_id}/force-release"
    for notes in ("", " \n"):
        response = await supervisor.post(path, json={"notes": notes}, headers=key())
        assert reason(response, 422) == "INVALID_REQUEST"
    body = {"notes": "went home"}
    assert (await supervisor.post(path, json=body, headers=key())).status_code == 200
    response = await supervisor.post(path, json=body, headers=key())
    assert reason(response, 409) == "ASSIGNMENT_NOT_LIVE"


async def test_complaints(gateway: RunningGateway, supervisor: httpx.AsyncClient) -> None:
    path, once = "/v1/people/7/complaint", key()
    opened = (await supervisor.post(path, json={"is_open": True}, headers=once)).json()
    assert opened == {
        "is_open": True,
        "opened_at": "2023-11-14T22:13:20.000000Z",
        "closed_at": None,
    }
    closed = (await supervisor.post(path, json={"is_open": False}, headers=key())).json()
    assert (closed["is_open"], closed["closed_at"]) == (False, "2023-11-14T22:14:20.000000Z")
    first, second = gateway.services.queue.requests("NoteComplaint")
    assert (first.user_id, first.is_open, second.is_open) == (7, True, False)
    assert first.actor_id == "supervisor-1"
    assert first.request_id == once["Idempotency-Key"]
    for body in ({}, {"is_open": "no"}, {"is_open": None}, {"is_open": True, "notes": "n"}):
        response = await supervisor.post(path, json=body, headers=key())
        assert reason(response, 422) == "INVALID_REQUEST"
    unknown = "/v1/people/404/complaint"
    response = await supervisor.post(unknown, json={"is_open": True}, headers=key())
    assert reason(response, 404) == "USER_UNKNOWN"


async def test_pauses(gateway: RunningGateway, supervisor: httpx.AsyncClient) -> None:
    body, once = {"queue": "callbacks", "ends_at": WHEN, "reason": "Closed."}, key()
    made = await supervisor.post("/v1/pauses", json=body, headers=once)
    assert made.status_code == 201
    pause = made.json()
    assert (pause["queue"], pause["reason"], pause["created_by"], pause["ended_by"]) == (
        "callbacks", "Closed.", "supervisor-1", None,
    )  # fmt: skip
    assert (await supervisor.get("/v1/pauses")).json() == {"pauses": [pause]}
    path = f"/v1/pauses/{pause['pause_id']}/end"
    ended = (await supervisor.post(path, headers=key())).json()
    assert ended == {**pause, "ended_by": "supervisor-1"}
    (asked,) = gateway.services.queue.requests("BeginPause")
    assert (asked.request_id, asked.HasField("begins_at")) == (once["Idempotency-Key"], False)
    for change in ({"reason": " "}, {"ends_at": None}, {"ends_at": 7}, {"queue": "other"}):
        response = await supervisor.post("/v1/pauses", json={**body, **change}, headers=key())
        assert reason(response, 422) == "INVALID_REQUEST"
    everything = {"begins_at": WHEN, "ends_at": WHEN, "reason": "Closed."}
    assert (await supervisor.post("/v1/pauses", json=everything, headers=key())).json()[
        "queue"
    ] is None


async def test_callbacks_of_a_supervisor(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    body = {"user_id": "7", "scheduled_for": WHEN, "preferred_agent_id": "agent-1", "notes": "n"}
    once = key()
    made = await supervisor.post("/v1/callbacks", json=body, headers=once)
    assert made.status_code == 201
    assert (await supervisor.post("/v1/callbacks", json=body, headers=once)).json() == made.json()
    again = await supervisor.post("/v1/callbacks", json=body, headers=key())
    assert reason(again, 409) == "CALLBACK_OPEN"
    one = f"/v1/callbacks/{made.json()['callback_id']}"
    moved = {"scheduled_for": "2030-06-03T09:00:00Z"}
    response = await supervisor.post(f"{one}/reschedule", json=moved, headers=key())
    assert response.json()["scheduled_for"] == "2030-06-03T09:00:00.000000Z"
    assert response.json()["preferred_agent_id"] == "agent-1"
    moved["preferred_agent_id"] = None  # type: ignore[assignment]
    response = await supervisor.post(f"{one}/reschedule", json=moved, headers=key())
    assert response.json()["preferred_agent_id"] is None
    listed = (await supervisor.get("/v1/callbacks", params={"user_id": "7"})).json()
    assert [it["callback_id"] for it in listed["callbacks"]] == [made.json()["callback_id"]]
    assert (await supervisor.post(f"{one}/cancel", headers=key())).json()["state"] == "cancelled"
    assert reason(await supervisor.post(f"{one}/cancel", headers=key()), 409) == "CALLBACK_ENDED"
    missing = f"/v1/callbacks/{uuid.uuid4()}/cancel"
    assert reason(await supervisor.post(missing, headers=key()), 404) == "CALLBACK_NOT_FOUND"


async def test_a_callback_outside_calling_hours_is_told_when_they_begin(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    queue, opens = gateway.services.queue, "2030-06-03T07:00:00.000000Z"
    refusal = InvalidArgument(
        "CALLBACK_OUTSIDE_HOURS", "the person may not be called then", next_open_at=opens
    )
    for method in ("ScheduleCallback", "RescheduleCallback", "RecordOutcome"):
        queue.failures[method] = refusal
    held = queue.hold("agent-1", 7)
    agent = gateway.headers("agent", "agent-1")
    for path, body, headers in (
        ("/v1/callbacks", {"user_id": "7", "scheduled_for": WHEN}, {}),
        (f"/v1/callbacks/{uuid.uuid4()}/reschedule", {"scheduled_for": WHEN}, {}),
        (
            f"/v1/assignments/{held.assignment_id}/outcome",
            {"outcome": "call_back", "callback_at": WHEN},
            agent,
        ),
    ):
        response = await supervisor.post(path, json=body, headers=key() | headers)
        assert reason(response, 400) == "CALLBACK_OUTSIDE_HOURS"
        assert response.json()["metadata"] == {"next_open_at": opens}


async def test_callbacks_of_an_agent(gateway: RunningGateway, agent: httpx.AsyncClient) -> None:
    queue = gateway.services.queue
    own, other = queue.agree(7, "agent-1"), queue.agree(8, "agent-2")
    listed = (await agent.get("/v1/callbacks")).json()["callbacks"]
    assert [it["callback_id"] for it in listed] == [own.callback_id]
    for parameters in ({"preferred_agent_id": "agent-2"}, {"user_id": "8"}):
        assert (await agent.get("/v1/callbacks", params=parameters)).status_code == 403
    body = {"user_id": "9", "scheduled_for": WHEN}
    response = await agent.post("/v1/callbacks", json=body, headers=key())
    assert reason(response, 403) == "PERSON_NOT_YOURS"
    theirs = f"/v1/callbacks/{other.callback_id}/cancel"
    assert reason(await agent.post(theirs, headers=key()), 403) == "NOT_YOURS"
    # The callback of the person on the line is theirs to move, even if another agent agreed it.
    queue.hold("agent-1", 8)
    assert (await agent.get("/v1/callbacks", params={"user_id": "8"})).status_code == 200
    assert (await agent.post(theirs, headers=key())).status_code == 200
    mine = f"/v1/callbacks/{own.callback_id}/reschedule"
    response = await agent.post(mine, json={"scheduled_for": WHEN}, headers=key())
    assert response.status_code == 200


async def test_callbacks_say_whom_to_call(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    user_context = gateway.services.user_context
    for user_id in (7, 8, 9):
        gateway.services.queue.agree(user_id, "agent-1")
    for user_id in (7, 8):
        user_context.users[user_id] = user_context_pb2.User(
            user_id=user_id, first_name="Jo", phone_number=f"+44770090012{user_id}"
        )
    # What does not fit into one answer is asked for again.
    user_context.contexts_per_answer = 1
    listed = (await supervisor.get("/v1/callbacks")).json()["callbacks"]
    people = {it["user_id"]: it["person"] for it in listed}
    assert people == {
        "7": {"first_name": "Jo", "last_name": None, "phone_number": "+447700900127"},
        "8": {"first_name": "Jo", "last_name": None, "phone_number": "+447700900128"},
        "9": None,
    }
    user_context.failures["BatchGetUserContexts"] = Unavailable("MAIN_APP_UNAVAILABLE", "later")
    response = await supervisor.get("/v1/callbacks")
    assert [it["person"] for it in response.json()["callbacks"]] == [None, None, None]


async def test_an_agent_whose_answer_was_lost_gets_it_again(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    """The callback has ended, or is another's, by the time the first request is repeated."""
    called_off, given_away = (gateway.services.queue.agree(it, "agent-1") for it in (7, 8))
    body = {"scheduled_for": WHEN, "preferred_agent_id": "agent-2"}
    for path, sent in (
        (f"/v1/callbacks/{called_off.callback_id}/cancel", None),
        (f"/v1/callbacks/{given_away.callback_id}/reschedule", body),
    ):
        once = key()
        first = await agent.post(path, json=sent, headers=once)
        assert first.status_code == 200
        assert (await agent.post(path, json=sent, headers=once)).json() == first.json()
        assert (await agent.post(path, json=sent, headers=key())).status_code in (403, 409)


CSV = {"Content-Type": "text/csv; charset=utf-8"}


async def test_a_list_of_numbers_is_streamed(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    lines = b"".join(b"07700 900%03d\n" % number for number in range(1000))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield lines

    response = await supervisor.put(
        "/v1/phone-lists/tps", params={"is_complete": True}, content=pieces(), headers=CSV
    )
    assert response.status_code == 200
    assert response.json()["lines"] == 100_000
    assert gateway.services.queue.imported == [lines * 100]
    (first,) = gateway.services.queue.requests("ImportSuppressedPhones")
    told = (first.list_name, first.actor_id, first.is_complete, first.allow_shrink)
    assert told == ("tps", "supervisor-1", True, False)


async def test_a_list_that_is_too_long_is_not_taken_over(start: Any) -> None:
    gateway = await start(max_upload_bytes=100_000)
    headers = gateway.headers("supervisor", "boss") | CSV

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        response = await client.put("/v1/phone-lists/tps", content=pieces())
        assert reason(response, 413) == "BODY_TOO_LARGE"
        response = await client.put("/v1/phone-lists/tps", content=b"1\n")
        assert response.status_code == 200
    assert gateway.services.queue.imported == [b"1\n"]


async def test_a_list_is_csv(gateway: RunningGateway, supervisor: httpx.AsyncClient) -> None:
    response = await supervisor.put("/v1/phone-lists/tps", json=["07700 900123"])
    assert reason(response, 415) == "NOT_CSV"
    response = await supervisor.put("/v1/phone-lists/Not_A-Name", content=b"1", headers=CSV)
    assert reason(response, 422) == "INVALID_REQUEST"
    refusal = InvalidArgument("CSV_NOT_UTF8", "the file is not UTF-8 text")
    gateway.services.queue.failures["ImportSuppressedPhones"] = refusal
    response = await supervisor.put("/v1/phone-lists/tps", content=b"\xff", headers=CSV)
    assert reason(response, 400) == "CSV_NOT_UTF8"


async def test_a_list_that_shrinks_says_by_how_much_and_may_be_meant_to(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    refusal = FailedPrecondition("LIST_SHRINKS", "too short", numbers="150", removed="149")
    gateway.services.queue.failures["ImportSuppressedPhones"] = refusal
    response = await supervisor.put(
        "/v1/phone-lists/tps", params={"is_complete": True}, content=b"1\n", headers=CSV
    )
    assert reason(response, 409) == "LIST_SHRINKS"
    assert response.json()["metadata"] == {"numbers": "150", "removed": "149"}
    del gateway.services.queue.failures["ImportSuppressedPhones"]
    meant = {"is_complete": True, "allow_shrink": True}
    response = await supervisor.put(
        "/v1/phone-lists/tps", params=meant, content=b"1\n", headers=CSV
    )
    assert response.status_code == 200
    assert gateway.services.queue.requests("ImportSuppressedPhones")[-1].allow_shrink


async def test_a_list_says_of_which_day_it_is_and_a_dry_run_is_one(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    params = {"dated_on": "2026-10-31", "source": "tps.csv", "dry_run": "true"}
    response = await supervisor.put(
        "/v1/phone-lists/tps", params=params, content=b"1\n", headers=CSV
    )
    assert response.status_code == 200
    sent = gateway.services.queue.requests("ImportSuppressedPhones")[-1]
    assert (sent.dated_on, sent.source, sent.dry_run) == ("2026-10-31", "tps.csv", True)
    for wrong in ("31/10/2026", "0", "2026-10-31T00:00:00Z"):
        response = await supervisor.put(
            "/v1/phone-lists/tps", params={"dated_on": wrong}, content=b"1\n", headers=CSV
        )
        assert reason(response, 422) == "INVALID_REQUEST"


async def test_lists_in_force_show_their_age_and_health_says_which_are_old(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    edition = queue_pb2.PhoneListEdition(
        edition_id=2**60, is_complete=True, numbers=3, imported_by="boss"
    )
    gateway.services.queue.phone_lists = [
        queue_pb2.PhoneList(list_name="own", numbers=3, dated_on="2026-10-01", editions=[edition]),
        queue_pb2.PhoneList(list_name="tps", dated_on="2026-10-01", oldest_days=28, is_old=True),
    ]
    own, tps = (await supervisor.get("/v1/phone-lists")).json()["lists"]
    assert (own["oldest_days"], own["is_old"], own["dated_on"]) == (None, False, "2026-10-01")
    (shown,) = own["editions"]
    assert (shown["edition_id"], shown["dated_on"], shown["source"]) == (str(2**60), None, None)
    assert (tps["oldest_days"], tps["is_old"]) == (28, True)
    pipeline = (await supervisor.get("/v1/pipeline")).json()
    assert pipeline["old_phone_lists"] == ["tps"]
    assert pipeline["health"]["summary"].endswith("Old lists of numbers: tps.")


@pytest.mark.each_redis
async def test_a_rebuild_is_followed_and_seen_by_other_copies(start: Any) -> None:
    gateway, other = await start(), await start()
    gate = gateway.services.queue.gates["RebuildStep"] = asyncio.Event()
    once = key()
    async with httpx.AsyncClient(headers=gateway.headers("supervisor", "boss")) as client:
        begun = await client.post(f"{gateway.url}/v1/rebuilds", headers=once)
        assert (begun.status_code, begun.json()["state"]) == (202, "running")
        path = f"/v1/rebuilds/{once['Idempotency-Key']}"
        assert begun.json()["through_user_id"] == str(2**60)
        # The same key is the same rebuild, wherever it is asked for.
        headers = other.headers("supervisor", "boss")
        again = await client.post(f"{other.url}/v1/rebuilds", headers=headers | once)
        assert again.json()["rebuild_id"] == begun.json()["rebuild_id"]
        assert other.services.queue.requests("Rebuild") == []
        gate.set()
        async with waiting.limit(10):
            while True:
                seen = (await client.get(other.url + path, headers=headers)).json()
                if seen["state"] != "running":
                    break
                await asyncio.sleep(0.02)
        assert (seen["state"], seen["phase"], seen["people_read"]) == ("succeeded", "done", 30)
        missing = await client.get(f"{gateway.url}/v1/rebuilds/{uuid.uuid4()}")
        assert reason(missing, 404) == "REBUILD_NOT_FOUND"


async def test_a_rebuild_asked_for_many_times_at_once_is_one(start: Any) -> None:
    gateway = await start(rate_limit_per_second=100_000)
    headers = gateway.headers("supervisor", "boss")
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        for _ in range(5):
            gateway.services.queue.calls.clear()
            once = key()
            asked = [client.post("/v1/rebuilds", headers=once) for _ in range(50)]
            assert {it.status_code for it in await asyncio.gather(*asked)} == {202}
            assert len(gateway.services.queue.requests("Rebuild")) == 1


async def test_a_second_rebuild_is_refused_and_may_be_asked_for_again(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    once = key()
    failure = Conflict("REBUILD_UNDER_WAY", "another rebuild is under way")
    gateway.services.queue.failures["Rebuild"] = failure
    response = await supervisor.post("/v1/rebuilds", headers=once)
    assert reason(response, 409) == "REBUILD_UNDER_WAY"
    del gateway.services.queue.failures["Rebuild"]
    assert (await supervisor.post("/v1/rebuilds", headers=once)).status_code == 202


async def test_a_rebuild_is_told_that_many_people_are_gone_only_when_asked_to(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    for path in ("/v1/rebuilds", "/v1/rebuilds?allow_gone=true"):
        assert (await supervisor.post(path, headers=key())).status_code == 202
    told = [it.allow_gone for it in gateway.services.queue.requests("Rebuild")]
    assert told == [False, True]


async def test_audit_entries(gateway: RunningGateway, supervisor: httpx.AsyncClient) -> None:
    gateway.services.queue.accesses = [("a", "VIEWED_CONTEXT", 7), ("b", "VIEWED_CALLS", 2**60)]
    parameters = {
        "user_id": str(2**60),
        "actor_id": "b",
        "action": "VIEWED_CALLS",
        "since": "2025-06-02T09:00:00+01:00",
        "until": "2030-06-02T09:00:00Z",
    }
    (entry,) = (await supervisor.get("/v1/audit-entries", params=parameters)).json()["entries"]
    assert (entry["actor_id"], entry["user_id"]) == ("b", str(2**60))
    (request,) = gateway.services.queue.requests("ListAuditEntries")
    assert request.since.ToJsonString() == "2025-06-02T08:00:00Z"
    assert entry["notes"] is None
    release = queue_pb2.AuditEntry(action="FORCE_RELEASED", notes="went home")
    gateway.services.queue.audited = [release]
    body = (await supervisor.get("/v1/audit-entries")).json()
    assert body["entries"][0]["notes"] == "went home"
    for wrong in ({"since": "yesterday"}, {"since": "2025-06-02T09:00:00"}, {"action": "seen"}):
        response = await supervisor.get("/v1/audit-entries", params=wrong)
        assert reason(response, 422) == "INVALID_REQUEST"


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_time_that_utc_has_no_year_for_is_refused(
    supervisor: httpx.AsyncClient, moment: str
) -> None:
    response = await supervisor.get("/v1/audit-entries", params={"since": moment})
    assert reason(response, 422) == "INVALID_REQUEST"
    body = {"user_id": "7", "scheduled_for": moment}
    response = await supervisor.post("/v1/callbacks", json=body, headers=key())
    assert reason(response, 422) == "INVALID_REQUEST"


async def test_reference_is_kept_for_an_hour(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    response = await agent.get("/v1/reference")
    body = response.json()
    assert body["queues"] == ["unsigned_users", "outstanding_requests", "callbacks"]
    rules = {it["outcome"]: it for it in body["outcomes"]}
    assert rules["call_back"]["callback"] == "always"
    assert (rules["call_back"]["sets_score"], rules["call_back"]["adds_points"]) == (0, None)
    assert rules["do_not_contact"]["next_call_hours"] is None
    assert [rules[it]["is_conversation"] for it in ("call_back", "do_not_contact")] == [True, False]
    assert body["limits"]["unreported_rest_minutes"] == 30
    assert "unreported_call" in body["holds"]
    assert "objection_recorded" in body["event_types"]
    assert set(body["audit_actions"]) >= {"SUPPRESSED", "VIEWED_CONTEXT"}
    assert response.headers["cache-control"] == "private, max-age=3600"
    sent = {"If-None-Match": response.headers["etag"]}
    again = await agent.get("/v1/reference", headers=sent)
    assert (again.status_code, again.content) == (304, b"")
    assert (await agent.get("/v1/reference", headers={"If-None-Match": '"x"'})).status_code == 200
    assert len(gateway.services.queue.requests("GetReference")) == 1


async def test_what_is_large_is_compressed_and_contexts_are_not(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    gateway.services.user_context.contexts[7] = b'{"x":"' + b"a" * 10_000 + b'"}'
    gateway.services.queue.ready = list(range(1, 101))
    entries = await supervisor.get("/v1/queues/callbacks/entries", params={"page_size": 100})
    assert entries.headers["content-encoding"] == "gzip"
    assert len(entries.json()["entries"]) == 100
    for response in (
        await supervisor.get("/v1/people/7/context"),
        await supervisor.get("/v1/queues"),
        await supervisor.get("/v1/reference", headers={"Accept-Encoding": "identity"}),
    ):
        assert "content-encoding" not in response.headers


async def test_a_persons_history_and_a_note_in_it(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    once = key()
    response = await supervisor.post(
        "/v1/people/7/notes", json={"text": "moves in May"}, headers=once
    )
    assert response.status_code == 201
    assert response.json()["noted_at"] == "2026-11-30T18:00:00.000000Z"
    (request,) = gateway.services.queue.requests("AddNote")
    assert (request.user_id, request.text, request.actor_id) == (7, "moves in May", "supervisor-1")
    response = await supervisor.post("/v1/people/7/notes", json={"text": " "}, headers=key())
    assert reason(response, 422) == "INVALID_REQUEST"

    body = (await supervisor.get("/v1/people/7/history", params={"page_size": 2})).json()
    assert body["next_page_token"] == "more"
    call, complaint = body["entries"]
    assert (call["kind"], call["actor_id"], call["details"]["outcome"]) == (
        "call",
        "agent-1",
        "no_answer",
    )
    assert (complaint["kind"], complaint["actor_id"], complaint["at"]) == (
        "complaint_closed",
        None,
        None,
    )
