"""What every request meets: tokens, roles, limits, headers, problems, the log."""

import asyncio
import io
import json
import logging
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from devstack.servers import Redis
from servicekit.logs import JsonFormatter
from tests.fakes import waiting
from tests.fakes.redis_tls import running_tls_redis
from tests.fakes.running_gateway import RunningGateway

pytestmark = pytest.mark.integration

ANY = "b83bf13c-60f4-4166-ad09-736910c6b1cc"
# Every guarded endpoint, and who may use it.
ROUTES = [
    ("GET", "/v1/people/7/context", {"agent", "supervisor", "service"}),
    ("POST", "/v1/people/search", {"agent", "supervisor", "service"}),
    ("GET", "/v1/people/7/explanation", {"agent", "supervisor", "service"}),
    ("GET", "/v1/people/7/calls", {"agent", "supervisor", "service"}),
    ("GET", "/v1/people/7/history", {"agent", "supervisor", "service"}),
    ("POST", "/v1/people/7/notes", {"agent", "supervisor"}),
    ("POST", "/v1/people/7/complaint", {"supervisor", "service"}),
    ("GET", "/v1/reference", {"agent", "supervisor", "service"}),
    ("GET", "/v1/agents/me", {"agent"}),
    ("PUT", "/v1/agents/me/presence", {"agent"}),
    ("GET", "/v1/agents", {"supervisor"}),
    ("PUT", "/v1/agents/agent-1/queues", {"supervisor"}),
    ("GET", "/v1/assignments", {"supervisor"}),
    ("POST", f"/v1/assignments/{ANY}/force-release", {"supervisor"}),
    ("POST", f"/v1/assignments/{ANY}/outcome/amend", {"agent", "supervisor"}),
    ("POST", "/v1/assignments/undo-outcomes", {"supervisor"}),
    ("GET", "/v1/callbacks", {"agent", "supervisor"}),
    ("POST", "/v1/callbacks", {"agent", "supervisor"}),
    ("GET", "/v1/pauses", {"supervisor"}),
    ("POST", "/v1/pauses", {"supervisor"}),
    ("POST", f"/v1/pauses/{ANY}/end", {"supervisor"}),
    ("GET", "/v1/suppressions", {"supervisor"}),
    ("POST", "/v1/suppressions", {"agent", "supervisor"}),
    ("POST", "/v1/suppressions/search", {"supervisor"}),
    ("POST", "/v1/suppressions/lift", {"supervisor"}),
    ("GET", "/v1/suppressions/export", {"supervisor"}),
    ("GET", "/v1/phone-lists", {"supervisor"}),
    ("PUT", "/v1/phone-lists/tps", {"supervisor"}),
    ("POST", "/v1/rebuilds", {"supervisor"}),
    ("GET", f"/v1/rebuilds/{ANY}", {"supervisor"}),
    ("GET", "/v1/audit-entries", {"supervisor"}),
    ("GET", "/v1/reports/calls", {"supervisor"}),
    ("GET", "/v1/queues", {"agent", "supervisor", "service"}),
    ("GET", "/v1/queues/callbacks/entries", {"agent", "supervisor"}),
    ("POST", "/v1/assignments", {"agent", "supervisor"}),
    ("GET", "/v1/assignments/current", {"agent", "supervisor"}),
    ("POST", f"/v1/assignments/{ANY}/heartbeat", {"agent", "supervisor"}),
    ("POST", f"/v1/assignments/{ANY}/release", {"agent", "supervisor"}),
    ("POST", f"/v1/assignments/{ANY}/outcome", {"agent", "supervisor"}),
    ("POST", f"/v1/assignments/{ANY}/events", {"agent", "supervisor", "service"}),
    ("POST", "/v1/missed-calls", {"service"}),
    ("GET", "/v1/pipeline", {"supervisor", "service"}),
    ("GET", "/v1/pipeline/dead-letters", {"supervisor", "service"}),
    ("POST", "/v1/pipeline/dead-letters/redrive", {"supervisor"}),
    ("POST", "/v1/pipeline/dead-letters/discard", {"supervisor"}),
    ("POST", "/v1/pipeline/ingest/pause", {"supervisor"}),
    ("POST", "/v1/pipeline/ingest/resume", {"supervisor"}),
    ("GET", "/v1/reconciliations", {"supervisor", "service"}),
    ("POST", "/v1/reconciliations", {"supervisor", "service"}),
    ("GET", f"/v1/reconciliations/{ANY}", {"supervisor", "service"}),
    ("GET", f"/v1/reconciliations/{ANY}/drift", {"supervisor", "service"}),
    ("POST", "/v1/events/tickets", {"agent", "supervisor", "service"}),
]


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) >= {"type", "title", "status", "detail", "instance", "reason", "trace_id"}
    assert body["status"] == status
    assert body["trace_id"] == response.headers["trace-id"]
    return dict(body)


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    """What the process would write to its log."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter("gateway", lambda: None))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield written
    root.removeHandler(handler)
    root.setLevel(before)


@pytest.mark.parametrize(("method", "path", "roles"), ROUTES)
async def test_who_may_do_what(
    gateway: RunningGateway, http: httpx.AsyncClient, method: str, path: str, roles: set[str]
) -> None:
    response = await http.request(method, path)
    assert problem(response, 401)["reason"] == "TOKEN_MISSING"
    assert response.headers["www-authenticate"] == 'Bearer realm="dialler"'
    gateway.services.queue.hold("reader-1", 7)
    for role in ("agent", "supervisor", "service"):
        response = await http.request(method, path, headers=gateway.headers(role, "reader-1"))
        if role not in roles:
            assert problem(response, 403)["reason"] == "ROLE_NOT_ALLOWED"
        else:
            assert response.status_code not in (401, 403, 500)


async def test_stream_needs_a_token(http: httpx.AsyncClient) -> None:
    assert problem(await http.get("/v1/events"), 401)["reason"] == "TOKEN_MISSING"
    response = await http.get("/v1/events", params={"access_token": "x"})
    assert problem(response, 401)["reason"] == "TOKEN_MISSING"


async def test_a_token_that_is_good_for_too_long_is_a_problem_that_says_so(
    gateway: RunningGateway, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    milliseconds = 1000 * time.time()
    headers = gateway.headers("agent", "agent-1", ttl_seconds=milliseconds)
    response = await http.get("/v1/queues", headers=headers)
    body = problem(response, 401)
    assert body["reason"] == "TOKEN_INVALID"
    assert "seconds since 1970" in body["detail"]
    assert body["metadata"] == {"longest_seconds": "86400"}
    assert "invalid_token" in response.headers["www-authenticate"]
    assert not [it for it in caplog.records if it.levelno >= logging.ERROR]


async def test_expired_token(gateway: RunningGateway, http: httpx.AsyncClient) -> None:
    headers = gateway.headers("agent", "agent-1", ttl_seconds=-120)
    response = await http.get("/v1/queues", headers=headers)
    assert problem(response, 401)["reason"] == "TOKEN_EXPIRED"
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


@pytest.mark.parametrize("value", ["Bearer", "Bearer a.b.c", "Basic YTpi", "a.b.c"])
async def test_malformed_token(http: httpx.AsyncClient, value: str) -> None:
    response = await http.get("/v1/queues", headers={"Authorization": value})
    assert problem(response, 401)["reason"] == "TOKEN_INVALID"


async def test_two_tokens(gateway: RunningGateway, http: httpx.AsyncClient) -> None:
    both = [
        ("Authorization", f"Bearer {gateway.token('agent', 'agent-1')}"),
        ("Authorization", f"Bearer {gateway.token('supervisor', 'boss')}"),
    ]
    response = await http.get("/v1/queues", headers=both)
    assert problem(response, 401)["reason"] == "TOKEN_INVALID"


@pytest.mark.parametrize(
    ("path", "body"),
    [("", {}), (f"/{ANY}/release", {}), (f"/{ANY}/outcome", {"outcome": "no_answer"})],
)
async def test_writes_need_a_key(
    gateway: RunningGateway, agent: httpx.AsyncClient, path: str, body: dict[str, str]
) -> None:
    response = await agent.post(f"/v1/assignments{path}", json=body)
    assert problem(response, 400)["reason"] == "IDEMPOTENCY_KEY_MISSING"
    headers = {"Idempotency-Key": "once"}
    response = await agent.post(f"/v1/assignments{path}", json=body, headers=headers)
    assert problem(response, 400)["reason"] == "IDEMPOTENCY_KEY_INVALID"
    assert gateway.services.queue.calls == []


PERSONAL = "jane.doe+07700900123@example.com"


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"outcome": PERSONAL}),
        json.dumps({"outcome": "no_answer", PERSONAL: 1}),
        json.dumps({"outcome": "no_answer", "callback_at": PERSONAL}),
        json.dumps({"outcome": "call_back", "callback_at": "2030-01-01T09:00:00"}),
        json.dumps({"outcome": "call_back", "callback_at": 1893488400}),
        json.dumps({"outcome": "no_answer", "notes": [PERSONAL]}),
        json.dumps({"outcome": "no_answer", "notes": "x" * 10_001}),
        json.dumps({"outcome": "no_answer", "notes": "\x00"}),
        '{"outcome": "no_answer", "notes": "\\ud800"}',
        json.dumps({"notes": PERSONAL}),
        json.dumps([PERSONAL]),
        json.dumps(PERSONAL),
        f'{{"outcome": "{PERSONAL}',
        "",
    ],
)
async def test_bad_bodies_are_not_echoed(
    gateway: RunningGateway, agent: httpx.AsyncClient, content: str
) -> None:
    response = await agent.post(
        f"/v1/assignments/{ANY}/outcome",
        content=content,
        headers={"Idempotency-Key": ANY, "Content-Type": "application/json"},
    )
    body = problem(response, 422)
    assert body["reason"] == "INVALID_REQUEST"
    assert body["errors"]
    assert all(set(each) == {"location", "code", "message"} for each in body["errors"])
    assert PERSONAL not in response.text
    assert "07700900123" not in response.text
    assert gateway.services.queue.calls == []


async def test_no_such_resource_or_method(agent: httpx.AsyncClient) -> None:
    response = await agent.get(f"/v1/people/{PERSONAL}")
    assert problem(response, 404)["reason"] == "NO_SUCH_RESOURCE"
    assert PERSONAL not in response.text
    response = await agent.delete("/v1/queues")
    assert problem(response, 405)["reason"] == "METHOD_NOT_ALLOWED"
    assert response.headers["allow"] == "GET"
    assert problem(await agent.get("/v1/queues/"), 404)["reason"] == "NO_SUCH_RESOURCE"


@pytest.mark.parametrize("path", ["/docs/x.js", "/wallboard/x.js"])
async def test_no_such_file(http: httpx.AsyncClient, path: str) -> None:
    assert problem(await http.get(path), 404)["reason"] == "NO_SUCH_RESOURCE"


@pytest.mark.parametrize("sent", [{}, {"Content-Type": "text/plain;charset=UTF-8"}])
async def test_body_that_is_not_said_to_be_json(
    gateway: RunningGateway, agent: httpx.AsyncClient, sent: dict[str, str]
) -> None:
    """What `fetch` sends of a text unless it is told otherwise."""
    headers = {"Idempotency-Key": ANY} | sent
    response = await agent.post("/v1/assignments", content=b'{"queues": []}', headers=headers)
    assert problem(response, 415)["reason"] == "NOT_JSON"
    assert gateway.services.queue.calls == []
    # Without a body there is nothing that could be of the wrong type.
    assert (await agent.post("/v1/assignments", headers=headers)).status_code == 200
    headers["Content-Type"] = "Application/JSON; charset=utf-8"
    response = await agent.post("/v1/assignments", content=b'{"queues": []}', headers=headers)
    assert response.status_code == 200


async def test_body_too_large(gateway: RunningGateway, agent: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": ANY, "Content-Type": "application/json"}
    too_much = b'{"queues": [' + b" " * 70_000 + b"]}"
    response = await agent.post("/v1/assignments", content=too_much, headers=headers)
    assert problem(response, 413)["reason"] == "BODY_TOO_LARGE"

    async def pieces() -> Any:
        for _ in range(70):
            yield b" " * 1000

    response = await agent.post("/v1/assignments", content=pieces(), headers=headers)
    assert problem(response, 413)["reason"] == "BODY_TOO_LARGE"
    assert gateway.services.queue.calls == []


async def test_every_answer_has_the_headers(
    gateway: RunningGateway, agent: httpx.AsyncClient, http: httpx.AsyncClient
) -> None:
    for response in (await agent.get("/v1/queues"), await http.get("/v1/queues")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["content-security-policy"].startswith("default-src 'none'")
        assert len(response.headers["trace-id"]) == 32
        assert "server" not in response.headers


async def test_service_that_is_away(gateway: RunningGateway, agent: httpx.AsyncClient) -> None:
    await gateway.services.stop("queue")
    response = await agent.get("/v1/queues")
    assert problem(response, 503)["reason"] == "UPSTREAM_UNAVAILABLE"
    assert response.headers["retry-after"] == "1"


async def test_deadline(start: Any) -> None:
    gateway = await start(request_deadline_seconds=0.3)
    gateway.services.queue.gates["GetQueueStats"] = asyncio.Event()
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        response = await client.get("/v1/queues", headers=gateway.headers("agent", "agent-1"))
    assert problem(response, 504)["reason"].endswith("DEADLINE_EXCEEDED")


async def test_slow_body_does_not_hold_on(start: Any) -> None:
    gateway = await start(request_deadline_seconds=0.3)
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/assignments HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
    assert b"504" in answer
    writer.close()
    await writer.wait_closed()


async def answer_to(gateway: RunningGateway, *pieces: bytes) -> tuple[int, dict[str, Any]]:
    """Send pieces that are no whole request, a moment apart; returns what came and the end."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = asyncio.create_task(reader.read())
    for piece in pieces:
        writer.write(piece)
        await asyncio.wait((answer,), timeout=0.05)
        if answer.done():
            break
    async with waiting.limit(5):
        head, _, body = (await answer).partition(b"\r\n\r\n")
    writer.close()
    assert b"application/problem+json" in head
    return int(head.split()[1]), json.loads(body)


async def test_head_that_comes_too_slowly(start: Any) -> None:
    gateway = await start(head_seconds=0.3)
    drops = [b"GET /v1/queues HTTP/1.1\r\n", *(b"X-Drop: 1\r\n" for _ in range(12))]
    status, problem = await answer_to(gateway, *drops)
    assert (status, problem["reason"]) == (408, "HEAD_TOO_SLOW")


async def test_head_that_is_too_large(start: Any) -> None:
    gateway = await start(max_head_bytes=20_000)
    pieces = [b"GET /v1/queues HTTP/1.1\r\n", *(b"X-Much: %b\r\n" % (b"x" * 5000),) * 8]
    status, problem = await answer_to(gateway, *pieces)
    assert (status, problem["reason"]) == (431, "HEAD_TOO_LARGE")


async def test_what_is_not_http(gateway: RunningGateway) -> None:
    status, problem = await answer_to(gateway, b"HELO jane.doe\r\n\r\n")
    assert (status, problem["reason"]) == (400, "HTTP_MALFORMED")


async def test_heads_of_requests_on_one_connection_are_counted_each_for_itself(start: Any) -> None:
    gateway = await start(max_head_bytes=20_000, head_seconds=0.5)
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with waiting.limit(10):
        for _ in range(4):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
            await asyncio.sleep(0.2)
            writer.write(b"X-Much: %b\r\n\r\n" % (b"x" * 9000))
            assert b"200" in await reader.readuntil(b"\r\n")
            await reader.readuntil(b'{"status":"live"}')
    writer.close()


async def test_an_answer_does_not_wait_for_the_client_to_acknowledge_its_head(
    gateway: RunningGateway,
) -> None:
    """A client that keeps its connection acknowledges 40 ms late, as the kernel has it."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    seconds = []
    for _ in range(31):
        began = time.monotonic()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b'{"status":"live"}')
        seconds.append(time.monotonic() - began)
    writer.close()
    assert statistics.median(seconds) < 0.02


async def test_defect_is_told_without_details_and_logged_once(
    gateway: RunningGateway, agent: httpx.AsyncClient, log_lines: io.StringIO
) -> None:
    gateway.services.queue.hold("agent-1", 7)
    gateway.services.queue.failures["GetQueueStats"] = ValueError(PERSONAL)
    response = await agent.get("/v1/queues")
    assert problem(response, 500)["reason"] == "INTERNAL"
    # A time that has no date: the gateway itself fails on it.
    gateway.services.user_context.contexts[7] = b"{}"
    gateway.services.user_context.read_at_seconds = 10**15
    log_lines.truncate(0)
    response = await agent.get("/v1/people/7/context")
    assert problem(response, 500)["reason"] == "INTERNAL"
    assert log_lines.getvalue().count("unexpected_error") == 1


async def test_log_has_ids_only(
    gateway: RunningGateway, agent: httpx.AsyncClient, log_lines: io.StringIO
) -> None:
    gateway.services.user_context.contexts[7] = PERSONAL.encode()
    gateway.services.queue.hold("agent-1", 7)
    theirs = gateway.services.queue.hold("agent-2", 8).assignment_id
    await agent.get("/v1/people/7/context", params={"why": PERSONAL})
    await agent.get(f"/v1/people/{PERSONAL}/context")
    await agent.get(f"/{PERSONAL}")
    await agent.post(
        f"/v1/assignments/{theirs}/outcome",
        json={"outcome": "no_answer", "notes": PERSONAL},
        headers={"Idempotency-Key": ANY},
    )
    lines = [json.loads(line) for line in log_lines.getvalue().splitlines()]
    seen = [line for line in lines if line["event"] == "request"]
    assert [(line["route"], line["status"]) for line in seen] == [
        ("/v1/people/{user_id}/context", 200),
        ("/v1/people/{user_id}/context", 422),
        ("none", 404),
        ("/v1/assignments/{assignment_id}/outcome", 409),
    ]
    assert seen[0]["user_id"] == "7"
    assert seen[0]["caller"] == "agent-1"
    assert seen[0]["role"] == "agent"
    assert "user_id" not in seen[1]
    assert seen[3]["assignment_id"] == theirs
    # The client here logs too, and does not know better.
    ours = json.dumps([line for line in lines if line["logger"] != "httpx"])
    assert "jane.doe" not in ours
    assert "07700900123" not in ours


@pytest.mark.each_redis
async def test_rate_limit_is_one_callers_at_all_copies(start: Any) -> None:
    copies = [await start(rate_limit_per_second=20) for _ in range(2)]
    headers = [copy.headers("agent", "agent-1") for copy in copies]
    async with httpx.AsyncClient() as client:
        # So that every copy is connected to Redis: while it cannot ask, it lets requests pass.
        for copy in copies:
            first = copy.headers("agent", "agent-3")
            assert (await client.get(f"{copy.url}/v1/queues", headers=first)).status_code == 200
        began = time.monotonic()
        found = await asyncio.gather(
            *(
                client.get(f"{copies[number % 2].url}/v1/queues", headers=headers[number % 2])
                for number in range(80)
            )
        )
        seconds = time.monotonic() - began
        stranger = copies[0].headers("agent", "agent-2")
        other = await client.get(f"{copies[0].url}/v1/queues", headers=stranger)
    statuses = [each.status_code for each in found]
    refused = next(each for each in found if each.status_code == 429)
    assert 10 <= statuses.count(200) <= 20 * (1 + seconds)
    assert set(statuses) == {200, 429}
    assert problem(refused, 429)["reason"] == "RATE_LIMITED"
    assert refused.headers["retry-after"] == "1"
    assert other.status_code == 200


async def test_one_address_is_limited_under_any_claimed_identity(start: Any) -> None:
    """Guesses of tokens count; behind a proxy that is believed, its clients are told apart."""
    gateway = await start(address_rate_limit_per_second=5, trusted_proxies=1)

    async with httpx.AsyncClient(base_url=gateway.url) as client:

        async def statuses(*told: str) -> set[int]:
            """Return those of requests that are sent together, one for each address."""
            asked = [
                client.get(
                    "/v1/queues", headers={"Authorization": "Bearer a.b.c", "X-Forwarded-For": each}
                )
                for each in told
            ]
            return {answer.status_code for answer in await asyncio.gather(*asked)}

        assert await statuses(*["192.0.2.1"] * 40) == {401, 429}
        # What a client says of itself comes before what the proxy adds, and is not believed.
        assert 429 in await statuses(*["198.51.100.9, 192.0.2.1"] * 40)
        assert await statuses("192.0.2.2") == {401}
        # A client with one IPv6 address has 2^64 of them to send from.
        assert 429 in await statuses(*(f"2001:db8::{number:x}" for number in range(40)))
        assert await statuses("2001:db8:0:1::1") == {401}
        assert await statuses("unknown") == {401}


async def test_rate_limit_fails_open(start: Any, own_redis: Redis) -> None:
    gateway = await start(redis_url=own_redis.url(), rate_limit_per_second=1)
    own_redis.kill()
    headers = gateway.headers("agent", "agent-1")
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        for _ in range(5):
            assert (await client.get("/v1/queues")).status_code == 200


async def test_cors(start: Any) -> None:
    gateway = await start(cors_origins=("https://desk.example",))
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        preflight = {
            "Origin": "https://desk.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,idempotency-key",
        }
        response = await client.options("/v1/assignments", headers=preflight)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "https://desk.example"
        response = await client.get("/v1/queues", headers={"Origin": "https://desk.example"})
        assert problem(response, 401)
        assert response.headers["access-control-allow-origin"] == "https://desk.example"
        assert "Trace-Id" in response.headers["access-control-expose-headers"]
        response = await client.get("/v1/queues", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in response.headers


@pytest.mark.each_redis
async def test_health(gateway: RunningGateway, http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "live"}
    response = await http.get("/readyz")
    assert response.status_code == 200
    body = response.json()
    assert body["ready"] is True
    assert set(body["dependencies"]) == {"user_context", "queue", "redis"}
    assert body["dependencies"]["queue"] == {
        "reachable": True,
        "required": True,
        "state": "serving",
    }
    await gateway.services.stop("queue")
    response = await http.get("/readyz")
    assert response.status_code == 503
    assert response.json()["dependencies"]["queue"]["reachable"] is False
    assert response.json()["dependencies"]["user_context"]["reachable"] is True
    assert (await http.get("/healthz")).status_code == 200


async def test_redis_over_tls(start: Any, tmp_path: Path) -> None:
    with running_tls_redis(tmp_path) as redis:
        trusting = await start(redis_url=redis.url, redis_tls_ca_file=redis.ca_file)
        doubting = await start(redis_url=redis.url)
        async with httpx.AsyncClient() as client:
            found = [
                (await client.get(f"{each.url}/readyz")).json()["dependencies"]["redis"]["state"]
                for each in (trusting, doubting)
            ]
    assert found == ["serving", "TLS"]


async def test_ready_without_redis_but_says_so(start: Any, own_redis: Redis) -> None:
    gateway = await start(redis_url=own_redis.url())
    own_redis.kill()
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        response = await client.get("/readyz")
    assert response.status_code == 200
    assert response.json()["dependencies"]["redis"]["reachable"] is False


async def test_taken_port_is_an_error(start: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            await start(http_port=taken.getsockname()[1])


async def test_requests_in_progress_are_counted_without_streams(
    gateway: RunningGateway, supervisor: httpx.AsyncClient
) -> None:
    def in_progress() -> float | None:
        return REGISTRY.get_sample_value("dialler_http_server_in_progress")

    assert in_progress() == 0
    gate = gateway.services.queue.gates["GetQueueStats"] = asyncio.Event()
    async with supervisor.stream("GET", "/v1/events") as stream:
        assert stream.status_code == 200
        asked = [asyncio.create_task(supervisor.get("/v1/queues")) for _ in range(3)]
        async with waiting.limit(5):
            while in_progress() != 3:  # noqa: ASYNC110 - a gauge notifies no waiter
                await asyncio.sleep(0.01)
        gate.set()
        assert [it.status_code for it in await asyncio.gather(*asked)] == [200] * 3
        assert in_progress() == 0
