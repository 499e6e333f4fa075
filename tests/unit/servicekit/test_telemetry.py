"""Traces: what is recorded, what is passed on, and how parts of a trace join."""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from contextvars import copy_context

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from servicekit import telemetry
from servicekit.errors import NotFound, Unavailable
from servicekit.spans import MOST_HELD, Kind, Span

SAMPLED = f"00-{'a' * 32}-{'b' * 16}-01"
UNSAMPLED = f"00-{'a' * 32}-{'b' * 16}-00"


class Recording:
    """The spans that were recorded, by name."""

    def __init__(self) -> None:
        self.sample(1.0)

    def sample(self, ratio: float) -> None:
        self.exporter = InMemorySpanExporter()
        telemetry.record_to("test", ratio, self.exporter)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def recording() -> Iterator[Recording]:
    yield Recording()
    telemetry.shutdown()


def ids(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def parent_id(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def test_outside_any_trace_there_is_nothing_to_send() -> None:
    assert telemetry.inject() is None
    assert telemetry.trace_id() is None


def test_inner_span_is_the_outers_child(recording: Recording) -> None:
    with telemetry.span("outer"), telemetry.span("inner", attributes={"user_id": 7}):
        inside = telemetry.inject()
    spans = recording.spans()
    assert parent_id(spans["outer"]) is None
    assert parent_id(spans["inner"]) == ids(spans["outer"])[1]
    assert ids(spans["inner"])[0] == ids(spans["outer"])[0]
    assert spans["inner"].attributes == {"user_id": 7}
    assert inside is not None
    assert inside.startswith("00-{}-{}-".format(*ids(spans["inner"])))
    assert int(inside[-2:], 16) & 1
    assert telemetry.inject() is None


def test_remote_trace_is_continued_whatever_the_current_one(recording: Recording) -> None:
    remote = telemetry.extract(SAMPLED)
    with telemetry.span("loop"), telemetry.span("message", parent=remote):
        assert telemetry.trace_id() == "a" * 32
    span = recording.spans()["message"]
    assert ids(span)[0] == "a" * 32
    assert parent_id(span) == "b" * 16


def test_what_the_caller_does_not_record_we_do_not_but_pass_on(recording: Recording) -> None:
    remote = telemetry.extract(UNSAMPLED)
    with telemetry.span("message", parent=remote), telemetry.span("inner"):
        inside = telemetry.inject() or ""
    assert inside[3:35] == "a" * 32
    assert inside.endswith("-00")
    assert recording.spans() == {}
    assert telemetry.inject() is None


def test_trace_that_is_not_recorded_still_has_an_id(recording: Recording) -> None:
    recording.sample(0.0)
    with telemetry.span("outer"):
        outer = telemetry.trace_id()
        with telemetry.span("inner"):
            assert telemetry.trace_id() == outer
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", telemetry.inject() or "")
    assert recording.spans() == {}


def test_share_of_recorded_traces_is_the_ratio(recording: Recording) -> None:
    recording.sample(0.3)
    for _ in range(1000):
        with telemetry.span("outer"):
            pass
    assert 230 < len(recording.exporter.get_finished_spans()) < 370


def test_without_exporter_a_recorded_trace_is_passed_on_unharmed() -> None:
    telemetry.shutdown()
    with telemetry.span("message", parent=telemetry.extract(SAMPLED)):
        assert telemetry.inject() == SAMPLED


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "x",
        f"00-{'0' * 32}-{'b' * 16}-01",
        f"00-{'a' * 32}-{'0' * 16}-01",
        f"ff-{'a' * 32}-{'b' * 16}-01",
        f"00-{'A' * 32}-{'b' * 16}-01",
        f"00-{'a' * 32}-{'b' * 16}-01-more",
        f"00-{'a' * 31}-{'b' * 16}-01",
    ],
)
def test_malformed_traceparent_is_none(value: str | None) -> None:
    assert telemetry.extract(value) is None


def test_later_version_of_traceparent_is_understood() -> None:
    remote = telemetry.extract(f"01-{'a' * 32}-{'b' * 16}-01-more")
    assert remote is not None
    assert remote.traceparent == SAMPLED


@pytest.mark.parametrize(
    ("error", "error_type"),
    [(NotFound("GONE", "gone"), "GONE"), (ValueError("Jane Example"), "ValueError")],
)
def test_failure_is_marked_without_its_text(
    recording: Recording, error: Exception, error_type: str
) -> None:
    with pytest.raises(type(error)), telemetry.span("failing"):
        raise error
    span = recording.spans()["failing"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes["error.type"] == error_type
    assert "Jane" not in span.to_json()


def test_call_of_a_recorded_trace_has_a_span(recording: Recording) -> None:
    span = enter(SAMPLED)
    span.end()
    assert parent_id(recording.spans()["test.Bytes/Echo"]) == "b" * 16


def enter(traceparent: str, *, may_last: bool = False) -> Span:
    span = copy_context().run(
        telemetry.enter_server_call, traceparent, "test.Bytes/Echo", {}, may_last=may_last
    )
    assert span is not None
    return span


@pytest.mark.parametrize("sent", [SAMPLED, UNSAMPLED, "malformed", None])
def test_call_without_exporter_has_a_trace_and_no_span(sent: str | None) -> None:
    telemetry.shutdown()

    def enter_unrecorded() -> str | None:
        assert telemetry.enter_server_call(sent, "test.Bytes/Echo", {}, may_last=False) is None
        return telemetry.inject()

    passed_on = copy_context().run(enter_unrecorded)

    if sent in (SAMPLED, UNSAMPLED):
        assert passed_on == sent
    else:
        assert telemetry.extract(passed_on) is not None
        assert passed_on != copy_context().run(enter_unrecorded)


def test_unsampled_part_that_failed_is_kept_whole(recording: Recording) -> None:
    recording.sample(0.0)
    with telemetry.span("root"):
        with telemetry.span("before"):
            pass
        with suppress(ValueError), telemetry.span("failing"):
            raise ValueError("Jane Example")
    spans = recording.spans()
    assert set(spans) == {"root", "before", "failing"}
    assert {ids(each)[0] for each in spans.values()} == {ids(spans["root"])[0]}
    assert (spans["root"].attributes or {})["dialler.kept_for"] == "error"


def test_unsampled_part_that_was_slow_is_kept_unless_it_may_last(recording: Recording) -> None:
    recording.sample(0.0)
    long_ago = time.time_ns() - 5_000_000_000
    with telemetry.span("quick"):
        pass
    with telemetry.span("slow", start_ns=long_ago):
        pass
    with telemetry.span("stream", start_ns=long_ago, may_last=True):
        pass
    assert set(recording.spans()) == {"slow"}
    assert (recording.spans()["slow"].attributes or {})["dialler.kept_for"] == "slow"


def test_failure_a_caller_can_expect_keeps_nothing(recording: Recording) -> None:
    recording.sample(0.0)
    with suppress(NotFound), telemetry.span("asking"):
        raise NotFound("GONE", "gone")
    with suppress(Unavailable), telemetry.span("asking"):
        raise Unavailable("UNAVAILABLE", "unavailable")
    (kept,) = recording.exporter.get_finished_spans()
    assert (kept.attributes or {})["error.type"] == "UNAVAILABLE"


def test_decision_holds_for_what_ends_after_the_first_span(recording: Recording) -> None:
    recording.sample(0.0)
    with suppress(ValueError), telemetry.span("root"):
        late = telemetry.begin_child("late", Kind.INTERNAL, {})
        raise ValueError
    assert late is not None
    late.end()
    assert set(recording.spans()) == {"root", "late"}


def test_endless_part_does_not_grow_without_end(recording: Recording) -> None:
    recording.sample(0.0)
    with suppress(ValueError), telemetry.span("stream"):
        for _ in range(MOST_HELD + 7):
            with telemetry.span("statement"):
                pass
        raise ValueError
    assert len(recording.exporter.get_finished_spans()) == MOST_HELD + 1
    assert (recording.spans()["stream"].attributes or {})["dialler.spans_dropped"] == 7


def test_shared_work_is_linked_with_every_request_it_is_done_for(recording: Recording) -> None:
    others = [f"00-{digit * 32}-{digit * 16}-01" for digit in "cd"]
    with telemetry.shared("read", [UNSAMPLED, SAMPLED, *others, None]):
        pass
    spans = recording.exporter.get_finished_spans()
    work = next(span for span in spans if parent_id(span) == "b" * 16)
    followers = [span for span in spans if span is not work]
    assert [f"{link.context.trace_id:032x}" for link in work.links] == ["c" * 32, "d" * 32]
    assert {parent_id(span) for span in followers} == {"c" * 16, "d" * 16}
    for follower in followers:
        assert [link.context.span_id for link in follower.links] == [int(ids(work)[1], 16)]


def test_noting_costs_nothing_where_nothing_is_sampled(recording: Recording) -> None:
    assert telemetry.note("send", UNSAMPLED, kind=Kind.PRODUCER) == UNSAMPLED
    assert recording.spans() == {}
    sent = telemetry.note("send", SAMPLED, kind=Kind.PRODUCER)
    assert sent == "00-{}-{}-01".format(*ids(recording.spans()["send"]))
