"""The gateway as a desk uses it: what `make run`, `make demo`, the tests and benchmarks call."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Self

import httpx

from devstack.stack import Addresses
from gateway.token import development_token

WAIT_SECONDS = 20.0
# As long as a stack is used: an agent's as long as the gateway lets it be.
AGENT_TOKEN_SECONDS = 86_400
TOKEN_SECONDS = 30 * 86_400
_RETRIES_AT_LIMITS = 5


@dataclass(frozen=True)
class SeenEvent:
    """An event of the stream and when it arrived."""

    at: datetime
    event: dict[str, Any]


class DeskEventStream:
    """The gateway's event stream, read by a thread that owns its connection. Close it."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._url = url
        self._headers = headers
        self._seen: Queue[SeenEvent] = Queue()
        self._opened = threading.Event()
        self._closed = threading.Event()
        self._failure: httpx.HTTPError | None = None
        threading.Thread(target=self._read, daemon=True).start()
        if not self._opened.wait(WAIT_SECONDS):
            raise TimeoutError(f"the event stream did not open: {self._failure}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()

    def wait_for(
        self, matches: Callable[[dict[str, Any]], bool], seconds: float = WAIT_SECONDS
    ) -> SeenEvent:
        """Return the next event that matches; `TimeoutError` when none comes in time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                seen = self._seen.get(timeout=left)
            except Empty:
                break
            if matches(seen.event):
                return seen
        failure = f" ({self._failure})" if self._failure else ""
        raise TimeoutError(f"no such event within {seconds:.0f} s{failure}")

    def wait_for_user(self, user_id: int, kind: str, seconds: float = WAIT_SECONDS) -> SeenEvent:
        """Return the person's next event of a kind."""
        return self.wait_for(
            lambda event: event.get("user_id") == str(user_id) and event.get("type") == kind,
            seconds,
        )

    def _read(self) -> None:
        try:
            with httpx.stream("GET", self._url, headers=self._headers, timeout=30) as response:
                response.raise_for_status()
                self._opened.set()
                self._take(response.iter_lines())
        except httpx.HTTPError as error:
            self._failure = error

    def _take(self, lines: Iterator[str]) -> None:
        for line in lines:
            if self._closed.is_set():
                return
            if line.startswith("data:"):
                event = json.loads(line.removeprefix("data:"))
                self._seen.put(SeenEvent(datetime.now(UTC), event))


class InTurn(httpx.HTTPTransport):
    """Sends each request to the next gateway, as a load balancer does."""

    def __init__(self, gateways: Sequence[str]) -> None:
        super().__init__()
        self._next = cycle([httpx.URL(each) for each in gateways])

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        gateway = next(self._next)
        request.url = request.url.copy_with(host=gateway.host, port=gateway.port)
        return super().handle_request(request)


class Desk:
    """One signed-in person at the gateway, each of whose copies is asked in turn."""

    def __init__(self, addresses: Addresses, role: str, subject: str | None = None) -> None:
        """``role`` is agent or supervisor; without ``subject`` it is a new user."""
        self.subject = subject or f"{role}-{uuid.uuid4().hex[:8]}"
        seconds = AGENT_TOKEN_SECONDS if role == "agent" else TOKEN_SECONDS
        self.token = development_token(
            addresses.jwt_secret, role, self.subject, ttl_seconds=seconds
        )
        self.client = httpx.Client(
            base_url=addresses.gateway,
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=15.0,
            transport=InTurn(addresses.gateways),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.close()

    def get(self, path: str, **parameters: str | int) -> Any:
        """Return the JSON of a resource; `httpx.HTTPStatusError` when it is an error."""
        request = self.client.build_request("GET", path, params=parameters)
        return self._send(request).raise_for_status().json()

    def post(self, path: str, body: object | None = None) -> httpx.Response:
        """Post under a new idempotency key and return whatever is answered."""
        key = str(uuid.uuid4())
        headers = {"Idempotency-Key": key}
        return self._send(self.client.build_request("POST", path, json=body or {}, headers=headers))

    def put(self, path: str, body: object) -> httpx.Response:
        """Put and return whatever is answered."""
        return self._send(self.client.build_request("PUT", path, json=body))

    def _send(self, request: httpx.Request) -> httpx.Response:
        """Send; after 429 send again, after the delay that the gateway asks for."""
        response = self.client.send(request)
        for _ in range(_RETRIES_AT_LIMITS):
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
            time.sleep(float(response.headers["Retry-After"]))
            response = self.client.send(request)
        return response

    def events(self) -> DeskEventStream:
        """Open the event stream."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return DeskEventStream(f"{self.client.base_url}/v1/events", headers)

    def claim(self) -> dict[str, Any]:
        """Claim the next person; the whole answer."""
        return dict(self.post("/v1/assignments").raise_for_status().json())

    def record(self, assignment_id: str, outcome: str, **more: object) -> httpx.Response:
        """Record how a call ended."""
        path = f"/v1/assignments/{assignment_id}/outcome"
        return self.post(path, {"outcome": outcome, **more})

    def release(self) -> None:
        """Release the agent's assignment, if there is one."""
        current = self.client.get("/v1/assignments/current")
        if current.is_success:
            path = f"/v1/assignments/{current.json()['assignment_id']}/release"
            self.post(path, {"reason": "agent_leaving"}).raise_for_status()

    def entries(self, queue: str, page_size: int = 200) -> list[dict[str, Any]]:
        """The first page of a queue, in the order of handing out."""
        return list(self.get(f"/v1/queues/{queue}/entries", page_size=page_size)["entries"])

    def all_entries(self, queue: str, state: str = "ready") -> Iterator[dict[str, Any]]:
        """Every entry of a queue in one state, page by page."""
        parameters: dict[str, str | int] = {"page_size": 200, "state": state}
        while True:
            page = self.get(f"/v1/queues/{queue}/entries", **parameters)
            yield from page["entries"]
            if not page["next_page_token"]:
                return
            parameters["page_token"] = page["next_page_token"]

    def reconciliations(self) -> list[dict[str, Any]]:
        """The latest runs, newest first."""
        return list(self.get("/v1/reconciliations")["reconciliations"])

    def await_reconciled(self, seconds: float = 300.0) -> None:
        """Return once there was a run and none is pending or running."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            states = {run["state"] for run in self.reconciliations()}
            if states and not states & {"pending", "running"}:
                return
            time.sleep(0.1)
        raise TimeoutError(f"no reconciliation ended within {seconds:.0f} s")
