"""What reports count, a day at a time, against calls that were really made."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from dialler.model.v1 import call_state_pb2, event_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import InvalidArgument
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue, running_queue
from tests.fakes.user_facts import outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables, until

pytestmark = pytest.mark.integration

UNSIGNED = call_state_pb2.QUEUE_UNSIGNED_USERS
CALLBACKS = call_state_pb2.QUEUE_CALLBACKS
NO_ANSWER = call_state_pb2.OUTCOME_NO_ANSWER
GOING = call_state_pb2.OUTCOME_GOING_TO_COMPLETE
SIGNED = event_pb2.CONVERSION_SIGNATURE_OBTAINED
MONDAY = "2025-06-02"


@pytest.fixture
async def queue(queue_url: str, redis_url: str, clock: FakeClock) -> AsyncIterator[RunningQueue]:
    intervals: dict[str, Any] = {
        "promotion_interval_seconds": 0.02,
        "lease_sweep_interval_seconds": 0.02,
        "report_interval_seconds": 0.05,
    }
    async with running_queue(queue_url, redis_url, clock=clock, **intervals) as running:
        yield running


async def _report(
    queue: RunningQueue, clock: FakeClock, report: queue_pb2.Report.ValueType, /, **asked: Any
) -> list[queue_pb2.ReportRow]:
    """Return the rows of a report that was counted after all that has happened."""
    clock.advance(1)
    now = clock.now()
    request = queue_pb2.GetReportRequest(
        report=report,
        **{
            "first_day": MONDAY,
            "last_day": "2025-06-30",
            "period": queue_pb2.REPORT_PERIOD_TOTAL,
            **asked,
        },
    )

    async def ask() -> queue_pb2.GetReportResponse:
        return await queue.stub.GetReport(request)

    def is_counted(answer: queue_pb2.GetReportResponse) -> bool:
        return answer.counted_at.ToDatetime(tzinfo=now.tzinfo) >= now

    return list((await until(ask, is_counted)).rows)


async def _call(desk: Desk, agent_id: str, outcome: call_state_pb2.Outcome.ValueType) -> int:
    held = (await desk.claim(agent_id)).assignment
    await desk.record(held, outcome)
    return int(held.user_id)


async def test_calls_are_counted_by_agent_hour_and_number_of_the_call(
    queue: RunningQueue, desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(*(unsigned(it) for it in range(1, 5)))
    await _call(desk, "anna", NO_ANSWER)
    await _call(desk, "anna", GOING)
    clock.advance(3_600)
    await _call(desk, "ben", NO_ANSWER)
    clock.advance(timedelta(days=1))
    await _call(desk, "ben", GOING)

    async def counts(
        dimension: queue_pb2.ReportDimension.ValueType, field: str, **asked: Any
    ) -> dict[Any, int]:
        rows = await _report(queue, clock, queue_pb2.REPORT_CALLS, dimension=dimension, **asked)
        assert {row.queue for row in rows} <= {UNSIGNED}
        return {(row.since, getattr(row, field), row.result): row.number for row in rows}

    assert await counts(queue_pb2.REPORT_DIMENSION_AGENT, "agent_id") == {
        ("", "anna", NO_ANSWER): 1,
        ("", "anna", GOING): 1,
        ("", "ben", NO_ANSWER): 1,
        ("", "ben", GOING): 1,
    }
    # Of London in summer.
    by_day = queue_pb2.REPORT_PERIOD_DAY
    assert await counts(queue_pb2.REPORT_DIMENSION_HOUR, "hour", period=by_day) == {
        (MONDAY, 10, NO_ANSWER): 1,
        (MONDAY, 10, GOING): 1,
        (MONDAY, 11, NO_ANSWER): 1,
        ("2025-06-03", 11, GOING): 1,
    }
    numbers = await counts(queue_pb2.REPORT_DIMENSION_CALL_NUMBER, "call_number")
    assert sum(numbers.values()) == 4
    assert numbers["", 1, NO_ANSWER] == 2
    by_week, anna = queue_pb2.REPORT_PERIOD_WEEK, "anna"
    assert await counts(
        queue_pb2.REPORT_DIMENSION_UNSPECIFIED, "hour", period=by_week, agent_id=anna
    ) == {(MONDAY, 0, NO_ANSWER): 1, (MONDAY, 0, GOING): 1}
    assert await counts(queue_pb2.REPORT_DIMENSION_AGENT, "hour", queue=CALLBACKS) == {}
    tuesday = {"first_day": "2025-06-03", "last_day": "2025-06-03"}
    assert sum((await counts(queue_pb2.REPORT_DIMENSION_HOUR, "hour", **tuesday)).values()) == 1


async def test_a_late_report_is_counted_on_the_day_of_the_call(
    queue: RunningQueue, desk: Desk, tables: Tables, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    await _call(desk, "anna", NO_ANSWER)
    assert [row.result for row in await _report(queue, clock, queue_pb2.REPORT_CALLS)] == [
        NO_ANSWER
    ]
    clock.advance(timedelta(days=3))
    # The day is over, and has been counted to its end.
    assert len(await _report(queue, clock, queue_pb2.REPORT_CALLS)) == 1
    # As an amendment does.
    await tables.rows(f"UPDATE queue.attempts SET outcome = {GOING}")
    clock.advance(timedelta(days=1))
    rows = await _report(queue, clock, queue_pb2.REPORT_CALLS)
    assert [(row.result, row.number) for row in rows] == [(GOING, 1)]


async def test_conversions_tell_after_which_call_and_how_long_it_took(
    queue: RunningQueue, desk: Desk, clock: FakeClock
) -> None:
    wanted_since = clock.now() - timedelta(days=10)
    await desk.fill(unsigned(1, created_at=wanted_since), unsigned(2, created_at=wanted_since))
    called = await _call(desk, "anna", GOING)
    clock.advance(timedelta(days=2))
    queue.main_app.put(outstanding(1), outstanding(2))
    await desk.apply(1, 2)

    by_agent = await _report(
        queue, clock, queue_pb2.REPORT_CONVERSIONS, dimension=queue_pb2.REPORT_DIMENSION_AGENT
    )
    assert {(row.agent_id, row.result, row.number) for row in by_agent} == {
        ("anna", SIGNED, 1),
        ("", SIGNED, 1),
    }
    assert {row.seconds for row in by_agent} == {timedelta(days=12).total_seconds()}
    by_call = await _report(
        queue, clock, queue_pb2.REPORT_CONVERSIONS, dimension=queue_pb2.REPORT_DIMENSION_CALL_NUMBER
    )
    assert {(row.call_number, row.number, row.timed) for row in by_call} == {(0, 1, 1), (1, 1, 1)}
    assert called in (1, 2)


async def test_callbacks_are_counted_by_how_they_ended(
    queue: RunningQueue, desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    at = clock.now() + timedelta(hours=2)
    await desk.schedule(1, at, preferred="anna")
    called_off = await desk.schedule(2, at)
    await desk.cancel(called_off.callback_id)
    clock.advance(7_200)
    await desk.becomes(1, call_state_pb2.ENTRY_STATE_READY)
    held = (await desk.claim("anna", CALLBACKS)).assignment
    await desk.record(held, GOING)

    rows = await _report(
        queue, clock, queue_pb2.REPORT_CALLBACKS, dimension=queue_pb2.REPORT_DIMENSION_AGENT
    )
    assert {(row.agent_id, row.result, row.number) for row in rows} == {
        ("anna", call_state_pb2.CALLBACK_STATE_DONE, 1),
        ("", call_state_pb2.CALLBACK_STATE_CANCELLED, 1),
    }


async def test_people_are_an_average_of_the_hours_counted(
    queue: RunningQueue, desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    await _report(queue, clock, queue_pb2.REPORT_PEOPLE)
    clock.advance(3_600)
    await desk.fill(unsigned(3), unsigned(4))
    rows = await _report(queue, clock, queue_pb2.REPORT_PEOPLE, queue=UNSIGNED)
    ready = next(row for row in rows if row.result == call_state_pb2.ENTRY_STATE_READY)
    assert (ready.number, ready.timed) == (6, 2)


@pytest.mark.parametrize(
    "asked",
    [
        {"first_day": "2025-06-31"},
        {"first_day": "2025-07-01"},
        {"period": queue_pb2.REPORT_PERIOD_UNSPECIFIED},
        {"report": queue_pb2.REPORT_UNSPECIFIED},
        {"dimension": queue_pb2.REPORT_DIMENSION_HOUR, "agent_id": "anna"},
        {
            "report": queue_pb2.REPORT_PEOPLE,
            "dimension": queue_pb2.REPORT_DIMENSION_AGENT,
        },
    ],
)
async def test_what_is_not_counted_is_refused(queue: RunningQueue, asked: dict[str, Any]) -> None:
    request: dict[str, Any] = {
        "report": queue_pb2.REPORT_CALLS,
        "first_day": MONDAY,
        "last_day": "2025-06-30",
        "period": queue_pb2.REPORT_PERIOD_DAY,
    }
    with pytest.raises(InvalidArgument) as refused:
        await queue.stub.GetReport(queue_pb2.GetReportRequest(**(request | asked)))
    assert refused.value.reason == "REPORT_INVALID"


async def test_a_year_is_read_by_agent_without_every_row_of_it(
    queue: RunningQueue, tables: Tables, clock: FakeClock
) -> None:
    """Rows that nothing asks for are not sent; more than a client can use are refused."""
    await tables.rows(
        """
        INSERT INTO queue.report_figures
            (report, dimension, day, queue, part, result, number, timed, seconds)
        SELECT 1, 1, date '2024-06-01' + day, 1, 'agent-' || agent, outcome, 7, 0, 0
        FROM generate_series(0, 364) AS day, generate_series(1, 50) AS agent,
            generate_series(1, 3) AS outcome
        """
    )
    request = queue_pb2.GetReportRequest(
        report=queue_pb2.REPORT_CALLS,
        first_day="2024-06-01",
        last_day="2025-05-31",
        period=queue_pb2.REPORT_PERIOD_TOTAL,
        dimension=queue_pb2.REPORT_DIMENSION_AGENT,
    )
    answer = await queue.stub.GetReport(request)
    assert len(answer.rows) == 50 * 3
    assert {row.number for row in answer.rows} == {7 * 365}
    request.period = queue_pb2.REPORT_PERIOD_DAY
    with pytest.raises(InvalidArgument) as refused:
        await queue.stub.GetReport(request)
    assert refused.value.reason == "REPORT_TOO_LARGE"
