"""One trace from a change's commit to its event, and one for a claim, as a collector gets them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import grpc
import httpx
import pytest
from dialler.cdc_ingest.v1 import cdc_ingest_pb2 as pb
from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceStub

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.otlp import OtlpReceiver, SpanSeen
from devstack.stack import SERVICES, Stack, wait_until
from devstack.trace import chrome_trace
from tests.e2e.conftest import running_suite

USERS = 200

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CHANGES = "dialler-changes"
EVENTS = "{dialler:events}"
USER_CONTEXT = "dialler.user_context.v1.UserContextService"
QUEUE = "dialler.queue.v1.QueueService"

# name, service, kind: the parent is the one less indented above it.
OF_A_CHANGE = f"""
create {CHANGES} | binlog_relay | PRODUCER
  send {CHANGES} | binlog_relay | CLIENT
  receive {CHANGES} | cdc_ingest | CLIENT
  process {CHANGES} | cdc_ingest | CONSUMER
    {USER_CONTEXT}/RefreshUsers | cdc_ingest | CLIENT
      {USER_CONTEXT}/RefreshUsers | user_context | SERVER
        SELECT users | user_context | CLIENT
    {QUEUE}/ApplyUserFacts | cdc_ingest | CLIENT
      {QUEUE}/ApplyUserFacts | queue | SERVER
        UPDATE queue.entries | queue | CLIENT
        send {EVENTS} | queue | PRODUCER
          process {EVENTS} | gateway | CONSUMER
  delete {CHANGES} | cdc_ingest | CLIENT
"""
OF_A_CLAIM = f"""
POST /v1/assignments | gateway | SERVER
  {QUEUE}/ClaimNext | gateway | CLIENT
    {QUEUE}/ClaimNext | queue | SERVER
      claim | queue | INTERNAL
        UPDATE queue.entries | queue | CLIENT
        {USER_CONTEXT}/ReadUserFacts | queue | CLIENT
          {USER_CONTEXT}/ReadUserFacts | user_context | SERVER
            SELECT users | user_context | CLIENT
      send {EVENTS} | queue | PRODUCER
        process {EVENTS} | gateway | CONSUMER
"""


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    """What every service sends its spans to."""
    with OtlpReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def stack(receiver: OtlpReceiver) -> Iterator[Stack]:
    """A stack of its own: other tests are not disturbed."""
    metrics = {f"{each.upper()}_METRICS_PORT": "0" for each in (*SERVICES, "gateway")}
    with running_suite(receiver.environment(ratio=1.0) | metrics) as running:
        yield running


@pytest.fixture
def supervisor(stack: Stack) -> Iterator[Desk]:
    """A supervisor of its own, whose rate limit no other test uses."""
    with Desk(stack.addresses, "supervisor") as desk:
        yield desk


class Trace:
    """The spans of one trace, found by name."""

    def __init__(self, spans: Sequence[SpanSeen]) -> None:
        self.spans = spans
        self._by_id = {span.span_id: span for span in spans}

    def has(self, line: str, ancestors: Sequence[str]) -> bool:
        return any(self._is_at(span, [*ancestors, line]) for span in self.spans)

    def one(self, name: str, kind: str) -> SpanSeen:
        return next(span for span in self.spans if (span.name, span.kind) == (name, kind))

    def _is_at(self, span: SpanSeen | None, path: Sequence[str]) -> bool:
        for line in reversed(path):
            if span is None or line != f"{span.name} | {span.service} | {span.kind}":
                return False
            span = self._by_id.get(span.parent_id)
        return span is None


def missing(trace: Trace, expected: str) -> list[str]:
    """The lines of the expected tree that the trace does not have in that place."""
    absent: list[str] = []
    path: list[str] = []
    for line in expected.strip().splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        path = path[:depth]
        if not trace.has(line.strip(), path):
            absent.append(line)
        path.append(line.strip())
    return absent


def complete(receiver: OtlpReceiver, trace_id: str, expected: str) -> Trace:
    """The trace once all that is expected has come."""

    def is_complete() -> bool:
        return not missing(Trace(receiver.of_trace(trace_id)), expected)

    try:
        wait_until(is_complete, 15, "the whole trace")
    except TimeoutError:
        trace = Trace(receiver.of_trace(trace_id))
        seen = [f"{span.service} {span.kind} {span.name}" for span in trace.spans]
        pytest.fail(f"missing: {missing(trace, expected)}; seen: {seen}")
    return Trace(receiver.of_trace(trace_id))


def ready_user(desk: Desk) -> int:
    return int(list(desk.all_entries("unsigned_users"))[-1]["user_id"])


def trace_of_signature(stack: Stack, desk: Desk, make: Callable[[MainApp, int], None]) -> str:
    with desk.events() as events, MainApp(stack.addresses.mysql_writer) as main_app:
        user_id = ready_user(desk)
        make(main_app, user_id)
        moved = events.wait_for_user(user_id, "entry_moved")
    return str(moved.event["traceparent"]).split("-")[1]


def test_change_is_one_trace_from_its_commit_to_its_event(
    stack: Stack, supervisor: Desk, receiver: OtlpReceiver
) -> None:
    trace_id = trace_of_signature(stack, supervisor, MainApp.sign)
    trace = complete(receiver, trace_id, OF_A_CHANGE)
    created = trace.one(f"create {CHANGES}", "PRODUCER")
    processed = trace.one(f"process {CHANGES}", "CONSUMER")
    told = trace.one(f"process {EVENTS}", "CONSUMER")
    assert created.start_ns <= processed.start_ns <= told.start_ns
    assert not any(span.is_error for span in trace.spans)
    received = trace.one(f"receive {CHANGES}", "CLIENT")
    assert (created.trace_id, created.span_id) in received.links


def test_spans_are_named_as_the_conventions_say(
    stack: Stack, supervisor: Desk, receiver: OtlpReceiver
) -> None:
    trace_id = trace_of_signature(stack, supervisor, MainApp.sign)
    trace = complete(receiver, trace_id, OF_A_CHANGE)
    for name, kind in (("create", "PRODUCER"), ("send", "CLIENT"), ("process", "CONSUMER")):
        attributes = trace.one(f"{name} {CHANGES}", kind).attributes
        assert attributes["messaging.system"] == "aws_sqs"
        assert attributes["messaging.destination.name"] == CHANGES
        assert attributes["messaging.operation.type"] == name
    settled = trace.one(f"delete {CHANGES}", "CLIENT").attributes
    assert settled["messaging.operation.type"] == "settle"
    called = trace.one(f"{QUEUE}/ApplyUserFacts", "SERVER").attributes
    assert called["rpc.system.name"] == "grpc"
    assert called["rpc.method"] == f"{QUEUE}/ApplyUserFacts"
    assert called["rpc.response.status_code"] == "OK"
    mysql = trace.one("SELECT users", "CLIENT").attributes
    assert (mysql["db.system.name"], mysql["db.collection.name"]) == ("mysql", "users")
    postgres = trace.one("UPDATE queue.entries", "CLIENT").attributes
    assert postgres["db.system.name"] == "postgresql"
    assert postgres["db.operation.name"] == "UPDATE"


def test_claim_is_one_trace(stack: Stack, agent: Desk, receiver: OtlpReceiver) -> None:
    answer = agent.post("/v1/assignments").raise_for_status()
    trace = complete(receiver, answer.headers["trace-id"], OF_A_CLAIM)
    asked = trace.one("POST /v1/assignments", "SERVER").attributes
    assert asked["http.request.method"] == "POST"
    assert asked["http.route"] == "/v1/assignments"
    assert asked["http.response.status_code"] == 201
    shown = chrome_trace(trace.spans)["traceEvents"]
    assert isinstance(shown, list)
    assert {each["name"] for each in shown} >= {span.name for span in trace.spans}


def test_refresh_for_many_changes_is_linked_with_each(
    stack: Stack, supervisor: Desk, receiver: OtlpReceiver
) -> None:
    people = list(supervisor.all_entries("unsigned_users"))[-8:]
    before = len(receiver.spans)
    with grpc.insecure_channel(stack.addresses.grpc["cdc_ingest"]) as channel:
        ingest = CdcIngestServiceStub(channel)
        ingest.PauseIngest(pb.PauseIngestRequest(), timeout=30)
        try:
            with MainApp(stack.addresses.mysql_writer) as main_app:
                for number, each in enumerate(people, 1):
                    main_app.sign(int(each["user_id"]))
                    # Otherwise the relay would pack several into one message.
                    wait_until(partial(has_backlog, ingest, number), 10, "message")
        finally:
            ingest.ResumeIngest(pb.ResumeIngestRequest(), timeout=5)

    def shared() -> list[SpanSeen]:
        """Spans of a refresh that name others of theirs in other traces, which name them too."""
        name = f"process {CHANGES}"
        found = [span for span in receiver.spans[before:] if span.name == name]
        by_place = {(span.trace_id, span.span_id): span for span in found}
        leaders = {link for span in found for link in span.links if link in by_place}
        return [span for place, span in by_place.items() if place in leaders and span.links]

    wait_until(lambda: bool(shared()), 15, "a refresh for several changes")
    leader = shared()[0]
    followers = [s for s in receiver.spans if (leader.trace_id, leader.span_id) in s.links]
    assert {s.trace_id for s in followers} == {trace_id for trace_id, _ in leader.links}


def has_backlog(ingest: CdcIngestServiceStub, messages: int) -> bool:
    status = ingest.GetStatus(pb.GetStatusRequest(), timeout=5)
    return bool(status.backlog_messages >= messages)


def test_problem_names_the_trace_that_the_collector_has(
    supervisor: Desk, receiver: OtlpReceiver
) -> None:
    answer = supervisor.client.get("/v1/people/999999999/context")
    assert answer.status_code == 404
    trace_id = answer.json()["trace_id"]
    assert trace_id == answer.headers["trace-id"]
    wait_until(lambda: bool(receiver.of_trace(trace_id)), 10, "the trace of the problem")


def test_no_personal_data_is_in_spans_metrics_or_logs(
    stack: Stack, supervisor: Desk, agent: Desk, receiver: OtlpReceiver
) -> None:
    user_id = ready_user(supervisor)
    canaries = ("Zzyzxcanary", "07700900959", "zzyzx.canary@example.com")
    with supervisor.events() as events, MainApp(stack.addresses.mysql_writer) as main_app:
        main_app.rename(user_id, *canaries)
        events.wait_for_user(user_id, "context_changed")
    # Where no client should put them, and where a failure might quote them.
    for text in canaries:
        assert supervisor.client.get(f"/v1/people/{text}/context?name={text}").is_client_error
        assert agent.record(text, "no_answer", notes=text).is_client_error
    assert "Zzyzxcanary" in supervisor.client.get(f"/v1/people/{user_id}/context").text
    agent.claim()
    began = len(receiver.raw)
    wait_until(lambda: len(receiver.raw) > began + 20, 15, "what was still held back")
    told = b"".join(receiver.raw) + metrics_pages(stack)
    told += b"".join(path.read_bytes() for path in stack.logs.glob("*.log"))
    assert b"dialler_queue_claims" in told
    forbidden = {"zzyzx", "7700900959", *(each.lower() for each in canaries)}
    for each in forbidden:
        at = told.lower().find(each.encode())
        assert at < 0, told[max(0, at - 300) : at + 100]


def metrics_pages(stack: Stack) -> bytes:
    """What Prometheus would read of every service."""
    pages = []
    for path in stack.logs.glob("*.log"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if '"event":"listening"' in line:
                address = json.loads(line)["metrics"]
                pages.append(httpx.get(f"http://{address}/metrics").raise_for_status().content)
    assert len(pages) == len(SERVICES) + 1
    return b"".join(pages)
