"""Each resource through a real connection: what is answered, and what the services were asked."""

import uuid
from typing import Any

import httpx
import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2
from dialler.reconciler.v1 import reconciler_pb2
from dialler.user_context.v1 import user_context_pb2

from servicekit.errors import Unavailable
from tests.fakes.running_gateway import RunningGateway

pytestmark = pytest.mark.integration

CONTEXT = '{"user":{"user_id":"18446744073709551615","first_name":"Zoë"},  "claims":[] }'.encode()


def key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


def reason(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["trace_id"] == response.headers["trace-id"]
    return str(body["reason"])


async def test_context_passes_bytes_through(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    gateway.services.user_context.contexts[2**64 - 1] = CONTEXT
    response = await supervisor.get(f"/v1/people/{2**64 - 1}/context")
    assert response.status_code == 200
    assert response.content == CONTEXT
    assert response.headers["content-type"] == "application/json"
    assert response.headers["etag"] == '"e1"'
    assert response.headers["dialler-stale"] == "false"
    assert response.headers["dialler-cached"] == "true"
    assert response.headers["dialler-read-at"] == "2025-06-02T09:00:00.000000Z"
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("role", ["agent", "supervisor", "service"])
async def test_every_role_reads_a_context(
    gateway: RunningGateway, http: httpx.AsyncClient, role: str
) -> None:
    gateway.services.user_context.contexts[7] = CONTEXT
    gateway.services.queue.hold("reader-1", 7)
    response = await http.get("/v1/people/7/context", headers=gateway.headers(role, "reader-1"))
    assert response.content == CONTEXT


@pytest.mark.parametrize("sent", ['"e1"', 'W/"e1"', '"old", "e1"', "*"])
async def test_context_the_client_holds_is_not_sent_again(
    gateway: RunningGateway, supervisor: httpx.AsyncClient, sent: str
) -> None:
    gateway.services.user_context.contexts[7] = CONTEXT
    response = await supervisor.get("/v1/people/7/context", headers={"If-None-Match": sent})
    assert response.status_code == 304
    assert response.content == b""
    assert response.headers["etag"] == '"e1"'


async def test_context_that_changed_is_sent(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    gateway.services.user_context.contexts[7] = CONTEXT
    gateway.services.user_context.etag = "e2"
    response = await supervisor.get("/v1/people/7/context", headers={"If-None-Match": '"e1"'})
    assert response.status_code == 200


async def test_stale_context_says_so(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    gateway.services.user_context.contexts[7] = CONTEXT
    gateway.services.user_context.stale = True
    response = await supervisor.get("/v1/people/7/context")
    assert response.content == CONTEXT
    assert response.headers["dialler-stale"] == "true"


async def test_unknown_person(supervisor: httpx.AsyncClient) -> None:
    assert reason(await supervisor.get("/v1/people/7/context"), 404) == "USER_NOT_FOUND"


@pytest.mark.parametrize("text", ["0", "007", "-1", "1.5", str(2**64), "jo@example.com", "٣"])
async def test_what_is_no_id_is_not_echoed(agent: httpx.AsyncClient, text: str) -> None:
    response = await agent.get(f"/v1/people/{text}/context")
    assert reason(response, 422) == "INVALID_REQUEST"
    assert response.json()["instance"] == "/v1/people/{user_id}/context"


async def test_queue_stats(gateway: RunningGateway, agent: httpx.AsyncClient) -> None:
    gateway.services.queue.ready = [1, 2]
    body = (await agent.get("/v1/queues")).json()
    assert body["calls_today"] == 7
    (queue,) = body["queues"]
    assert queue == {
        "queue": "unsigned_users",
        "ready": 2,
        "waiting": 3,
        "assigned": 0,
        "oldest_ready_since": None,
        "holds": {"cooling": 2},
        "blocked": {"DO_NOT_CONTACT": 1},
    }
    assert body["outcomes_today"] == {"no_answer": 7}
    assert (body["callbacks_missed"], body["unreported_calls_today"]) == (4, 2)


async def test_entries_page_by_page(gateway: RunningGateway, supervisor: httpx.AsyncClient) -> None:
    gateway.services.queue.ready = [2**60 + n for n in range(5)]
    path, seen, token = "/v1/queues/callbacks/entries", list[str](), ""
    while True:
        parameters: dict[str, str | int] = {"page_size": 2, "page_token": token, "state": "waiting"}
        page = (await supervisor.get(path, params=parameters)).json()
        seen += [entry["user_id"] for entry in page["entries"]]
        assert all(entry["queue"] == "callbacks" for entry in page["entries"])
        if page["next_page_token"] is None:
            break
        token = page["next_page_token"]
    assert seen == [str(2**60 + n) for n in range(5)]
    requests = gateway.services.queue.requests("ListEntries")
    assert {each.state for each in requests} == {call_state_pb2.ENTRY_STATE_WAITING}


async def test_entries_by_every_filter(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    filters: dict[str, str | int] = {
        "state": "waiting",
        "hold": "daily_cap",
        "reason": "NO_SIGNATURE",
        "last_outcome": "no_answer",
        "agent_id": "agent-1",
        "attempts_at_least": 3,
    }
    path = "/v1/queues/unsigned_users/entries"
    assert (await supervisor.get(path, params=filters)).status_code == 200
    (request,) = gateway.services.queue.requests("ListEntries")
    assert request.hold == call_state_pb2.HOLD_DAILY_CAP
    assert request.last_outcome == call_state_pb2.OUTCOME_NO_ANSWER
    told = (request.reason, request.agent_id, request.attempts_at_least)
    assert told == ("NO_SIGNATURE", "agent-1", 3)


async def test_entries_refuse_what_they_do_not_know(supervisor: httpx.AsyncClient) -> None:
    path = "/v1/queues/callbacks/entries"
    response = await supervisor.get(path, params={"page_token": "mine"})
    assert reason(response, 400) == "PAGE_TOKEN_INVALID"
    assert reason(await supervisor.get("/v1/queues/all/entries"), 422) == "INVALID_REQUEST"
    response = await supervisor.get(path, params={"state": "asleep"})
    assert reason(response, 422) == "INVALID_REQUEST"


async def test_claim_hands_out_and_repeats(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    gateway.services.queue.ready = [2**63, 9]
    headers = key()
    first = await agent.post("/v1/assignments", json={}, headers=headers)
    assert first.status_code == 201
    body = first.json()
    assert body["assignment"]["user_id"] == str(2**63)
    assert body["assignment"]["agent_id"] == "agent-1"
    assert body["assignment"]["started_at"] == "2025-06-02T09:00:00.000000Z"
    assert body["already_held"] is False
    assert body["empty"] is None
    again = await agent.post("/v1/assignments", json={}, headers=headers)
    assert again.content == first.content
    held = await agent.post("/v1/assignments", headers=key())
    assert held.status_code == 200
    assert held.json()["already_held"] is True
    assert held.json()["assignment"] == body["assignment"]


async def test_claim_asks_for_the_queues_named(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    body = {"queues": ["callbacks", "unsigned_users"]}
    response = await agent.post("/v1/assignments", json=body, headers=key())
    assert response.status_code == 200
    assert response.json()["assignment"] is None
    assert response.json()["empty"] == {
        "waiting": 3,
        "assigned": 2,
        "next_due_at": None,
        "calling_hours_begin_at": None,
        "pauses": [],
    }
    assert response.json()["rejected_by_live_check"] == 1
    (request,) = gateway.services.queue.requests("ClaimNext")
    assert list(request.queues) == [
        call_state_pb2.QUEUE_CALLBACKS,
        call_state_pb2.QUEUE_UNSIGNED_USERS,
    ]


async def test_a_person_who_rang_is_taken_once_found(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    body = {"user_id": "7", "direction": "inbound"}
    response = await agent.post("/v1/assignments", json=body, headers=key())
    assert reason(response, 403) == "PERSON_NOT_YOURS"
    gateway.services.user_context.found_people = [user_context_pb2.FoundUser(user_id=7)]
    await agent.post("/v1/people/search", json={"phone": "07700 900123"})
    response = await agent.post("/v1/assignments", json=body, headers=key())
    assert response.status_code == 201
    taken = response.json()["assignment"]
    assert (taken["user_id"], taken["direction"], taken["contact_block"]) == ("7", "inbound", None)
    (request,) = gateway.services.queue.requests("AssignUser")
    assert (request.user_id, request.agent_id, request.is_supervisor) == (7, "agent-1", False)
    response = await agent.post("/v1/assignments", json=body, headers=key())
    assert (response.status_code, response.json()["already_held"]) == (200, True)


async def test_a_supervisor_chooses_a_person_and_learns_which_agent_holds_another(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    gateway.services.queue.hold("agent-1", 8)
    body = {"user_id": "8", "direction": "manual"}
    response = await supervisor.post("/v1/assignments", json=body, headers=key())
    assert reason(response, 409) == "PERSON_HELD"
    assert response.json()["metadata"]["agent_id"] == "agent-1"
    body["user_id"] = "7"
    response = await supervisor.post("/v1/assignments", json=body, headers=key())
    assert response.json()["assignment"]["direction"] == "manual"
    assert gateway.services.queue.requests("AssignUser")[-1].is_supervisor
    assert (await supervisor.get("/v1/assignments/current")).json()["user_id"] == "7"
    response = await supervisor.post("/v1/assignments", json={}, headers=key())
    assert reason(response, 403) == "ROLE_NOT_ALLOWED"


@pytest.mark.parametrize(
    "body",
    [
        {"user_id": "7"},
        {"direction": "inbound"},
        {"user_id": "7", "direction": "outbound"},
        {"user_id": "7", "direction": "inbound", "queues": ["callbacks"]},
    ],
)
async def test_a_person_is_named_with_a_direction_and_without_queues(
    supervisor: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    response = await supervisor.post("/v1/assignments", json=body, headers=key())
    assert reason(response, 422) == "INVALID_REQUEST"


async def test_token_limits_the_queues(gateway: RunningGateway, http: httpx.AsyncClient) -> None:
    headers = gateway.headers("agent", "agent-2", queues=["callbacks"])
    response = await http.post("/v1/assignments", json={}, headers=headers | key())
    assert response.status_code == 200
    (request,) = gateway.services.queue.requests("ClaimNext")
    assert list(request.queues) == [call_state_pb2.QUEUE_CALLBACKS]
    assert not request.own_callbacks_only
    body = {"queues": ["unsigned_users"]}
    response = await http.post("/v1/assignments", json=body, headers=headers | key())
    assert reason(response, 403) == "QUEUE_NOT_ALLOWED"
    response = await http.get("/v1/queues/unsigned_users/entries", headers=headers)
    assert reason(response, 403) == "QUEUE_NOT_ALLOWED"


@pytest.mark.parametrize(
    ("queues", "is_limited"), [(["unsigned_users"], True), (["callbacks"], False), (None, False)]
)
async def test_a_token_without_the_callbacks_claims_the_agents_own_only(
    gateway: RunningGateway, http: httpx.AsyncClient, queues: list[str] | None, is_limited: bool
) -> None:
    headers = gateway.headers("agent", "agent-2", queues=queues)
    response = await http.post("/v1/assignments", json={}, headers=headers | key())
    assert response.status_code == 200
    (request,) = gateway.services.queue.requests("ClaimNext")
    assert request.own_callbacks_only is is_limited


async def test_agent_comes_from_the_token_only(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    body = {"agent_id": "agent-2"}
    response = await agent.post("/v1/assignments", json=body, headers=key())
    assert reason(response, 422) == "INVALID_REQUEST"
    assert gateway.services.queue.calls == []


async def test_claim_while_the_main_app_is_away(
    gateway: RunningGateway, agent: httpx.AsyncClient
) -> None:
    gateway.services.queue.failures["ClaimNext"] = Unavailable(
        "MAIN_APP_UNAVAILABLE", "MySQL cannot be asked", retry_after_seconds=1.2
    )
    response = await agent.post("/v1/assignments", json={}, headers=key())
    assert reason(response, 503) == "MAIN_APP_UNAVAILABLE"
    assert response.headers["retry-after"] == "2"


async def test_current_assignment(gateway: RunningGateway, agent: httpx.AsyncClient) -> None:
    assert reason(await agent.get("/v1/assignments/current"), 404) == "NO_LIVE_ASSIGNMENT"
    held = gateway.services.queue.hold("agent-1", 7)
    response = await agent.get("/v1/assignments/current")
    assert response.json()["assignment_id"] == held.assignment_id


async def test_heartbeat_needs_no_key(gateway: RunningGateway, agent: httpx.AsyncClient) -> None:
    held = gateway.services.queue.hold("agent-1", 7)
    response = await agent.post(f"/v1/assignments/{held.assignment_id}/heartbeat")
    assert response.status_code == 200
    assert response.json()["lease_expires_at"] == "2025-06-02T09:02:00.000000Z"


async def test_release(gateway: RunningGateway, agent: httpx.AsyncClient) -> None:
    held = gateway.services.queue.hold("agent-1", 7)
    path, headers = f"/v1/assignments/{held.assignment_id}/release", key()
    response = await agent.post(path, json={"reason": "skipped"}, headers=headers)
    assert response.json()["call_state"]["state"] == "waiting"
    (request,) = gateway.services.queue.requests("ReleaseAssignment")
    assert request.reason == queue_pb2.RELEASE_REASON_SKIPPED
    assert request.request_id == headers["Idempotency-Key"]


async def test_outcome_is_recorded_once(gateway: RunningGateway, agent: httpx.AsyncClient) -> None:
    held = gateway.services.queue.hold("agent-1", 7)
    path, headers = f"/v1/assignments/{held.assignment_id}/outcome", key()
    body: dict[str, Any] = {
        "outcome": "call_back",
        "notes": "after work",
        "callback_at": "2030-06-02T18:00:00+01:00",
    }
    first = await agent.post(path, json=body, headers=headers)
    assert first.status_code == 200
    assert first.json()["call_state"]["last_outcome"] == "call_back"
    assert first.json()["conversion"] is None
    again = await agent.post(path, json=body, headers=headers)
    assert again.content == first.content
    other = await agent.post(path, json=body | {"outcome": "no_answer"}, headers=headers)
    assert reason(other, 422) == "REQUEST_ID_REUSED"
    request = gateway.services.queue.requests("RecordOutcome")[0]
    assert request.callback_at.ToJsonString() == "2030-06-02T17:00:00Z"


@pytest.mark.parametrize(
    ("action", "body"),
    [("outcome", {"outcome": "no_answer"}), ("release", {}), ("heartbeat", None)],
)
async def test_another_agents_or_ended_assignment(
    gateway: RunningGateway, agent: httpx.AsyncClient, action: str, body: dict[str, str] | None
) -> None:
    theirs = gateway.services.queue.hold("agent-2", 7).assignment_id
    response = await agent.post(f"/v1/assignments/{theirs}/{action}", json=body, headers=key())
    assert reason(response, 409) == "ASSIGNMENT_NOT_YOURS"
    held = gateway.services.queue.hold("agent-1", 8).assignment_id
    released = await agent.post(f"/v1/assignments/{held}/release", headers=key())
    assert released.status_code == 200
    response = await agent.post(f"/v1/assignments/{held}/{action}", json=body, headers=key())
    assert reason(response, 409) == "ASSIGNMENT_NOT_LIVE"
    path = f"/v1/assignments/{uuid.uuid4()}/{action}"
    response = await agent.post(path, json=body, headers=key())
    assert reason(response, 404) == "ASSIGNMENT_NOT_FOUND"


async def test_pipeline_is_the_active_relays_word(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    relay = gateway.services.binlog_relay
    for standbys, is_active in ((0, True), (1, True), (2, True), (9, False)):
        relay.standbys = standbys
        assert (await supervisor.get("/v1/pipeline")).json()["relay"]["active"] is is_active


async def test_pipeline(gateway: RunningGateway, supervisor: httpx.AsyncClient) -> None:
    body = (await supervisor.get("/v1/pipeline")).json()
    assert body["ingest"]["backlog_messages"] == 5
    assert body["ingest"]["capture_alive_at"] == "2025-06-02T09:00:05.000000Z"
    assert body["ingest"]["applied_through"] == "2025-06-02T09:00:00.000000Z"
    assert body["ingest"]["last_captured_at"] is None
    assert body["ingest"]["change_latency"] == {
        "count": 10,
        "p50_seconds": 0.05,
        "p99_seconds": 0.0,
    }
    assert body["relay"]["offset"] == "4711"
    assert body["cache"]["hits"] == 9
    assert body["reconciliation"] is None
    assert (body["freshness"]["mode"], body["freshness"]["reason"]) == ("batch", "CAPTURE_SILENT")
    assert body["unavailable"] == {}
    await gateway.services.stop("binlog_relay", "cdc_ingest")
    body = (await supervisor.get("/v1/pipeline")).json()
    assert body["ingest"] is None
    assert body["relay"] is None
    assert body["cache"]["hits"] == 9
    assert body["unavailable"] == {
        "ingest": "UPSTREAM_UNAVAILABLE",
        "relay": "UPSTREAM_UNAVAILABLE",
    }


async def test_pipeline_of_services_that_are_not_there(start: Any) -> None:
    lone = await start(cdc_ingest_target=None, binlog_relay_target=None, reconciler_target=None)
    headers = lone.headers("service", "make-run")
    async with httpx.AsyncClient(base_url=lone.url, headers=headers) as client:
        body = (await client.get("/v1/pipeline")).json()
        assert set(body["unavailable"].values()) == {"NOT_CONFIGURED"}
        assert reason(await client.post("/v1/reconciliations"), 503) == "NOT_CONFIGURED"


async def test_dead_letters(gateway: RunningGateway, supervisor: httpx.AsyncClient) -> None:
    path = "/v1/pipeline/dead-letters"
    listed = (await supervisor.get(path)).json()
    assert listed["total"] == 1
    (letter,) = listed["dead_letters"]
    assert (letter["reason"], letter["concerns"]) == ("BODY_NOT_JSON", ["users/5"])
    assert letter["first_seen_at"] is None
    dry = {"message_ids": ["m-1"], "dry_run": True}
    assert (await supervisor.post(f"{path}/redrive", json=dry)).json()["sent"] == 0
    sent = (await supervisor.post(f"{path}/redrive", json={"reason": "BODY_NOT_JSON"})).json()
    assert (sent["sent"], sent["complete"]) == (1, True)
    requests = [
        call.request
        for call in gateway.services.cdc_ingest.calls
        if call.method == "RedriveDeadLetters"
    ]
    assert (list(requests[0].message_ids), requests[0].validate_only) == (["m-1"], True)
    assert (requests[1].reason, requests[1].all) == ("BODY_NOT_JSON", False)
    bad = await supervisor.post(f"{path}/redrive", json={"reason": "'; --"})
    assert bad.status_code == 422
    discarded = (await supervisor.post(f"{path}/discard", json={"message_ids": ["m-1"]})).json()
    assert (discarded["discarded"], discarded["full_run_asked"]) == (1, True)
    dry = {"all": True, "dry_run": True}
    assert (await supervisor.post(f"{path}/discard", json=dry)).json()["discarded"] == 0


async def test_pause_and_resume(gateway: RunningGateway, supervisor: httpx.AsyncClient) -> None:
    paused = await supervisor.post("/v1/pipeline/ingest/pause")
    assert paused.json() == {"paused": True}
    resumed = await supervisor.post("/v1/pipeline/ingest/resume")
    assert resumed.json() == {"paused": False}
    methods = [call.method for call in gateway.services.cdc_ingest.calls]
    assert methods == ["PauseIngest", "ResumeIngest"]


async def test_reconciliations(gateway: RunningGateway, supervisor: httpx.AsyncClient) -> None:
    assert (await supervisor.get("/v1/reconciliations")).json() == {"reconciliations": []}
    response = await supervisor.post("/v1/reconciliations", json={"reason": "after the deploy"})
    assert response.status_code == 202
    run = response.json()
    assert run["state"] == "pending"
    assert run["kind"] == "full"
    assert (run["phase"], run["drift"], run["done"]) == (None, [], {})
    assert run["reason"] == "supervisor supervisor-1: after the deploy"
    again = await supervisor.post("/v1/reconciliations")
    assert again.json() == run
    listed = (await supervisor.get("/v1/reconciliations", params={"page_size": 1})).json()
    assert listed == {"reconciliations": [run]}
    path = f"/v1/reconciliations/{run['run_id']}"
    assert (await supervisor.get(path)).json() == run
    missing = await supervisor.get(f"/v1/reconciliations/{uuid.uuid4()}")
    assert reason(missing, 404) == "RUN_NOT_FOUND"
    first = (await supervisor.get(f"{path}/drift")).json()
    expected = {"user_id": str(2**60), "kind": "outdated", "table": "claims"}
    assert first == {"drift": [expected], "next_page_token": "next"}
    last = await supervisor.get(f"{path}/drift", params={"page_token": "next"})
    assert last.json()["next_page_token"] is None


async def test_a_repeat_of_asking_for_a_reconciliation_returns_the_first(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    once = key()
    first = await supervisor.post("/v1/reconciliations", headers=once)
    assert first.json()["run_id"] == once["Idempotency-Key"]
    gateway.services.reconciler.runs[0].state = reconciler_pb2.RUN_STATE_SUCCEEDED
    again = await supervisor.post("/v1/reconciliations", headers=once)
    assert (again.json()["run_id"], again.json()["state"]) == (first.json()["run_id"], "succeeded")
    assert (await supervisor.post("/v1/reconciliations")).json()["run_id"] != first.json()["run_id"]


async def test_a_supervisor_alone_lets_a_reconciliation_take_any_number_for_gone(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    asked = {"kind": "full", "allow_gone": True}
    service = gateway.headers("service", "nightly-job")
    refused = await supervisor.post("/v1/reconciliations", json=asked, headers=service)
    assert reason(refused, 403) == "ROLE_NOT_ALLOWED"
    assert not gateway.services.reconciler.requests("StartRun")
    usual = await supervisor.post("/v1/reconciliations", json={"kind": "full"}, headers=service)
    allowed = await supervisor.post("/v1/reconciliations", json=asked)
    assert (usual.json()["allow_gone"], allowed.json()["allow_gone"]) == (False, True)
    assert [it.allow_gone for it in gateway.services.reconciler.requests("StartRun")] == [
        False,
        True,
    ]
    gateway.services.reconciler.runs[1].users_withheld = 7
    path = f"/v1/reconciliations/{allowed.json()['run_id']}"
    assert (await supervisor.get(path)).json()["users_withheld"] == 7


@pytest.mark.parametrize("kind", ["changed", "warming", "housekeeping"])
async def test_every_kind_of_reconciliation(supervisor: httpx.AsyncClient, kind: str) -> None:
    response = await supervisor.post("/v1/reconciliations", json={"kind": kind})
    assert response.json()["kind"] == kind


async def test_deadline_and_trace_travel(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    trace_id = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-00"}
    response = await supervisor.get("/v1/queues", headers=headers)
    assert response.headers["trace-id"] == trace_id
    (call,) = gateway.services.queue.calls
    assert call.trace_id == trace_id
    assert call.remaining_seconds is not None
    assert 3.0 < call.remaining_seconds <= gateway.settings.request_deadline_seconds
