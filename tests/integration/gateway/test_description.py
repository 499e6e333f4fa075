"""The API description is valid, complete and true; its page needs nothing from elsewhere."""

import gzip
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
from dialler.model.v1 import call_state_pb2
from dialler.user_context.v1 import user_context_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from gateway.http.compression import LEVEL
from gateway.resources.call_states import CallState
from services.user_context.cache.rendering import render_call
from tests.fakes.running_gateway import RunningGateway

pytestmark = pytest.mark.integration

# A search is sent so that no personal data stands in an address; a ticket is new each time.
_CHANGE_NOTHING = {"/v1/people/search", "/v1/suppressions/search", "/v1/events/tickets"}
GUARDED = {"401", "403", "429", "500", "503", "504"}


@pytest.fixture
async def document(http: httpx.AsyncClient) -> dict[str, Any]:
    response = await http.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    return dict(response.json())


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


async def test_description_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    validate(document, cls=OpenAPIV31SpecValidator)
    assert {(method, path) for method, path, _ in operations(document)} == {
        ("GET", "/v1/people/{user_id}/context"),
        ("POST", "/v1/people/search"),
        ("GET", "/v1/people/{user_id}/explanation"),
        ("GET", "/v1/people/{user_id}/calls"),
        ("GET", "/v1/people/{user_id}/history"),
        ("POST", "/v1/people/{user_id}/notes"),
        ("POST", "/v1/people/{user_id}/complaint"),
        ("GET", "/v1/reference"),
        ("GET", "/v1/agents/me"),
        ("PUT", "/v1/agents/me/presence"),
        ("GET", "/v1/agents"),
        ("PUT", "/v1/agents/{agent_id}/queues"),
        ("GET", "/v1/assignments"),
        ("POST", "/v1/assignments/{assignment_id}/force-release"),
        ("POST", "/v1/assignments/{assignment_id}/outcome/amend"),
        ("POST", "/v1/assignments/undo-outcomes"),
        ("GET", "/v1/callbacks"),
        ("POST", "/v1/callbacks"),
        ("POST", "/v1/callbacks/{callback_id}/reschedule"),
        ("POST", "/v1/callbacks/{callback_id}/cancel"),
        ("GET", "/v1/pauses"),
        ("POST", "/v1/pauses"),
        ("POST", "/v1/pauses/{pause_id}/end"),
        ("GET", "/v1/suppressions"),
        ("POST", "/v1/suppressions"),
        ("POST", "/v1/suppressions/lift"),
        ("POST", "/v1/suppressions/search"),
        ("GET", "/v1/suppressions/export"),
        ("GET", "/v1/phone-lists"),
        ("PUT", "/v1/phone-lists/{list_name}"),
        ("POST", "/v1/rebuilds"),
        ("GET", "/v1/rebuilds/{rebuild_id}"),
        ("GET", "/v1/audit-entries"),
        ("GET", "/v1/reports/{report}"),
        ("GET", "/v1/queues"),
        ("GET", "/v1/queues/{queue}/entries"),
        ("POST", "/v1/assignments"),
        ("GET", "/v1/assignments/current"),
        ("POST", "/v1/assignments/{assignment_id}/heartbeat"),
        ("POST", "/v1/assignments/{assignment_id}/release"),
        ("POST", "/v1/assignments/{assignment_id}/outcome"),
        ("POST", "/v1/assignments/{assignment_id}/events"),
        ("POST", "/v1/missed-calls"),
        ("GET", "/v1/pipeline"),
        ("GET", "/v1/pipeline/dead-letters"),
        ("POST", "/v1/pipeline/dead-letters/redrive"),
        ("POST", "/v1/pipeline/dead-letters/discard"),
        ("POST", "/v1/pipeline/ingest/pause"),
        ("POST", "/v1/pipeline/ingest/resume"),
        ("GET", "/v1/reconciliations"),
        ("POST", "/v1/reconciliations"),
        ("GET", "/v1/reconciliations/{run_id}"),
        ("GET", "/v1/reconciliations/{run_id}/drift"),
        ("GET", "/v1/events"),
        ("POST", "/v1/events/tickets"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
    }


async def test_every_error_is_described(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        responses = operation["responses"]
        if path.startswith("/v1/"):
            assert operation["security"][0] == {"bearer": []}, path
            assert set(responses) >= GUARDED, (method, path)
            if method in ("POST", "PUT") and "requestBody" in operation:
                assert set(responses) >= {"413", "415", "422"}, path
            if method in ("POST", "PUT") and path not in _CHANGE_NOTHING:
                taken = {each["name"] for each in operation["parameters"]}
                assert "Idempotency-Key" in taken, path
        for status, response in responses.items():
            if int(status) >= 400 and path != "/readyz":
                assert set(response["content"]) == {"application/problem+json"}, (path, status)
        names = [each["name"] for each in operation.get("parameters", [])]
        assert len(names) == len(set(names)), path
        if "Idempotency-Key" in names:
            assert set(responses) >= {"400", "409", "422"}, path
    assert "HTTPValidationError" not in document["components"]["schemas"]


def schema_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document["components"]["schemas"][name]
    return {**found, "components": document["components"]}


async def test_every_body_has_an_example_that_fits(document: dict[str, Any]) -> None:
    components = {"components": document["components"]}
    for method, path, operation in operations(document):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            for media_type, content in body.get("content", {}).items():
                if media_type in ("text/event-stream", "text/csv"):
                    continue
                errors = list(
                    OAS31Validator(content["schema"] | components).iter_errors(content["example"])
                )
                assert not errors, (method, path, errors)


async def test_problems_are_as_described(
    gateway: RunningGateway, agent: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    validator = OAS31Validator(schema_of(document, "Problem"))
    for response in (
        await agent.get("/v1/people/7/context"),
        await agent.get("/v1/people/x/context"),
        await agent.post("/v1/assignments", json={"queues": 7}),
        await agent.get("/v1/pipeline"),
    ):
        validator.validate(response.json())


async def test_answers_are_as_described(
    gateway: RunningGateway,
    agent: httpx.AsyncClient,
    supervisor: httpx.AsyncClient,
    document: dict[str, Any],
) -> None:
    gateway.services.queue.ready = [1, 2, 3]
    entries = "/v1/queues/{queue}/entries"
    letters = "/v1/pipeline/dead-letters"
    key = {"Idempotency-Key": str(uuid.uuid4())}
    for method, path, response in (
        ("get", "/v1/queues", await agent.get("/v1/queues")),
        ("get", entries, await agent.get("/v1/queues/callbacks/entries")),
        ("post", "/v1/assignments", await agent.post("/v1/assignments", headers=key)),
        ("get", "/v1/assignments/current", await agent.get("/v1/assignments/current")),
        ("get", "/v1/pipeline", await supervisor.get("/v1/pipeline")),
        ("get", letters, await supervisor.get(letters)),
        (
            "post",
            f"{letters}/redrive",
            await supervisor.post(f"{letters}/redrive", json={"all": True}),
        ),
        (
            "post",
            f"{letters}/discard",
            await supervisor.post(f"{letters}/discard", json={"all": True}),
        ),
        ("post", "/v1/reconciliations", await supervisor.post("/v1/reconciliations")),
        ("get", "/v1/reconciliations", await supervisor.get("/v1/reconciliations")),
        ("post", "/v1/events/tickets", await agent.post("/v1/events/tickets")),
        ("get", "/readyz", await agent.get("/readyz")),
    ):
        described = document["paths"][path][method]["responses"][str(response.status_code)]
        schema = described["content"]["application/json"]["schema"]
        whole = {**schema, "components": document["components"]}
        OAS31Validator(whole).validate(response.json())


async def test_context_is_described_from_the_contract(document: dict[str, Any]) -> None:
    context = document["components"]["schemas"]["Context"]["properties"]
    assert set(context) == set(user_context_pb2.UserContext.DESCRIPTOR.fields_by_name)
    claim = context["claims"]["items"]["properties"]
    assert claim["claim_id"] == {"type": "string", "pattern": "^[0-9]+$"}
    assert claim["created_at"]["anyOf"][0] == {"type": "string", "format": "date-time"}
    state = context["call_state"]["anyOf"][0]["properties"]
    assert "unsigned_users" in state["queue"]["anyOf"][0]["enum"]


@pytest.mark.parametrize(
    "callback",
    [
        None,
        call_state_pb2.Callback(),
        call_state_pb2.Callback(
            callback_id="c-1",
            user_id=2**64 - 1,
            scheduled_for=Timestamp(seconds=1_750_000_000),
            preferred_agent_id="agent-1",
            state=call_state_pb2.CALLBACK_STATE_OPEN,
            created_by="agent-2",
            closed_reason="USER_DISABLED",
        ),
    ],
)
async def test_what_the_context_says_of_the_queue_is_as_described_and_as_the_queue_has_it(
    document: dict[str, Any], callback: call_state_pb2.Callback | None
) -> None:
    state = call_state_pb2.CallState(
        user_id=7,
        queue=call_state_pb2.QUEUE_CALLBACKS,
        hold=call_state_pb2.HOLD_SHARED_PHONE,
        open_callback=callback,
        recent_attempts=[
            call_state_pb2.Attempt(agent_id="a"),
            call_state_pb2.Attempt(agent_id="b", disposition="busy_tone"),
        ],
    )
    in_context = json.loads(render_call(state).json)
    in_answers = json.loads(CallState.of(state).model_dump_json())
    described = document["components"]["schemas"]["Context"]["properties"]["call_state"]

    OAS31Validator({**described, "components": document["components"]}).validate(in_context)
    OAS31Validator(schema_of(document, "CallState")).validate(in_answers)
    assert in_context == in_answers
    assert in_context["queue"] == "callbacks"


async def test_page_uses_only_what_is_served_here(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert "http" not in page.text
    # The policy allows no script in the page itself.
    assert not re.search(r"<script>|\son\w+=", page.text)
    sources = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page.text)
    assert len(sources) == 3
    for source in sources:
        asset = await http.get(str(page.url.join(source).path))
        assert asset.status_code == 200
        assert asset.headers["content-type"].partition(";")[0] in ("text/css", "text/javascript")
        assert len(asset.content) > 50
    assert (await http.get("/docs/redoc.standalone.js")).status_code == 404
    assert (await http.get("/docs/..%2fcore.py")).status_code == 404


@pytest.mark.parametrize("path", ["/openapi.json", "/docs/swagger-ui-bundle.js"])
async def test_what_is_the_same_for_all_is_compressed_once_and_well(
    http: httpx.AsyncClient, path: str
) -> None:
    """Every client may ask for it without a token: it must not cost the work of compressing."""
    plain = await http.get(path, headers={"Accept-Encoding": "identity"})
    small = await http.get(path, headers={"Accept-Encoding": "br, gzip"})
    assert (small.headers["content-encoding"], small.content) == ("gzip", plain.content)
    # Answers made for one request are compressed fast rather than best.
    assert int(small.headers["content-length"]) < len(gzip.compress(plain.content, LEVEL))
    assert "content-encoding" not in plain.headers
    assert small.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    again = await http.get(path, headers={"If-None-Match": small.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_page_knows_openapi_31(http: httpx.AsyncClient) -> None:
    bundle = (await http.get("/docs/swagger-ui-bundle.js")).text
    assert "spec.openapis.org/oas/3.1" in bundle


def run_token(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.token", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_token_of_the_command_line_opens_the_api(
    gateway: RunningGateway, http: httpx.AsyncClient
) -> None:
    environment = {"GATEWAY_JWT_SECRET": gateway.secret, "PATH": "/usr/bin"}
    arguments = ("--role", "agent", "--sub", "agent-9", "--ttl", "60", "--queues", "callbacks")
    made = run_token(environment, *arguments)
    token = made.stdout.strip()
    assert made.returncode == 0, made.stderr
    response = await http.get("/v1/queues", headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 200
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["sub"] == "agent-9"
    assert claims["queues"] == ["callbacks"]


def test_no_token_without_a_secret() -> None:
    made = run_token({"PATH": "/usr/bin"}, "--role", "agent", "--sub", "agent-9")
    assert made.returncode == 78
    assert "GATEWAY_JWT_SECRET" in made.stderr
    assert made.stdout == ""
