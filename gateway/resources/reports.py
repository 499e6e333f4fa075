"""Reports for supervisors, as JSON and as CSV."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from dialler.queue.v1 import queue_pb2
from fastapi import Path, Query, Response
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from gateway.resources.callbacks import CALLBACK_STATES, CallbackState
from gateway.resources.fields import (
    CONVERSIONS,
    ENTRY_STATES,
    OUTCOMES,
    QUEUES,
    AgentIdQuery,
    Conversion,
    EntryState,
    EnumNames,
    Moment,
    Outcome,
    QueueName,
)
from gateway.resources.spreadsheets import CSV, csv_line
from servicekit.call_state_json import moment_in

if TYPE_CHECKING:
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

SECONDS_PER_DAY = 86_400


class ReportName(StrEnum):
    """The reports."""

    CALLS = "calls"
    OUTCOMES = "outcomes"
    CONVERSIONS = "conversions"
    AGENTS = "agents"
    CALLBACKS = "callbacks"
    QUEUES = "queues"


class ReportPeriod(StrEnum):
    """The days that one row adds up; a week begins on a Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"


class ReportDimension(StrEnum):
    """By what rows are told apart, besides period and queue."""

    AGENT = "agent"
    HOUR = "hour"
    CALL_NUMBER = "call_number"


class ReportFormat(StrEnum):
    """How the report is written."""

    JSON = "json"
    CSV = "csv"


_PERIODS = EnumNames(ReportPeriod, queue_pb2.ReportPeriod)
_DIMENSIONS = EnumNames(ReportDimension, queue_pb2.ReportDimension)


class ReportRow(BaseModel):
    """The figures of one period and queue, and of what else rows are told apart by.

    What a report does not tell is null.
    """

    since: date | None = Field(description="The period's first day; null for all days asked for.")
    queue: QueueName | None
    agent_id: str | None = Field(
        default=None, description="Empty: no agent, such as of a conversion credited to none."
    )
    hour: int | None = Field(default=None, description="In the company's time zone.", ge=0, le=23)
    call_number: int | None = Field(
        default=None,
        description="The number of the person's call, 10 for the tenth and later ones; of "
        "conversions, the number of calls before.",
    )
    outcome: Outcome | None = None
    conversion: Conversion | None = None
    callback_state: CallbackState | None = None
    state: EntryState | None = None
    calls: int | None = Field(default=None, description="Calls that were reported.")
    unreported_calls: int | None = None
    conversations: int | None = Field(
        default=None, description="Calls in which the agent spoke with the person."
    )
    contact_rate: float | None = Field(
        default=None, description="`conversations` per call, 0 to 1; null without calls."
    )
    conversions: int | None = None
    average_days: float | None = Field(
        default=None,
        description="How long what the conversions brought had been wanted: from the oldest open "
        "claim to the conversion.",
    )
    callbacks: int | None = Field(default=None, description="Callbacks that ended so.")
    people: float | None = Field(
        default=None, description="People in this state: the average of the hours counted."
    )


class Report(BaseModel):
    """A report; its days are those of the company's time zone."""

    report: ReportName
    counted_at: Moment | None = Field(
        description="When one of the days was last counted: the day under way every few minutes, "
        "days that are over once more a day; null when none has been."
    )
    rows: list[ReportRow]


_Key = tuple[str, int, str, int, int]


class ReportRoutes:
    """Reports, for supervisors."""

    def __init__(self, queue: "QueueServiceAsyncStub") -> None:
        self._queue = queue

    async def report(
        self,
        report: Annotated[ReportName, Path(description="Which report.")],
        first_day: Annotated[
            date, Query(alias="from", description="The first day.", examples=["2026-11-01"])
        ],
        last_day: Annotated[
            date, Query(alias="until", description="The last day.", examples=["2026-11-30"])
        ],
        period: Annotated[ReportPeriod, Query(description="The days of a row.")] = ReportPeriod.DAY,
        by: Annotated[
            ReportDimension | SkipJsonSchema[None],
            Query(description="Tells rows apart by this; `agents` always does by agent."),
        ] = None,
        queue: Annotated[
            QueueName | SkipJsonSchema[None], Query(description="Only this queue.")
        ] = None,
        agent_id: AgentIdQuery = None,
        format: Annotated[ReportFormat, Query(description="JSON, or CSV for a spreadsheet.")] = (
            ReportFormat.JSON
        ),
    ) -> Report | Response:
        """Counts of days: 400 `REPORT_TOO_LARGE` for more than 50,000 rows."""
        if report is ReportName.AGENTS:
            by = ReportDimension.AGENT

        async def ask(what: queue_pb2.Report.ValueType) -> queue_pb2.GetReportResponse:
            return await self._queue.GetReport(
                queue_pb2.GetReportRequest(
                    report=what,
                    first_day=first_day.isoformat(),
                    last_day=last_day.isoformat(),
                    period=_PERIODS.number(period),
                    dimension=_DIMENSIONS.number(by),
                    queue=QUEUES.number(queue),
                    agent_id=agent_id or "",
                )
            )

        counts, columns, rows_of = _REPORTS[report]
        answer = await ask(counts)
        rows = list(rows_of(answer, by))
        if report is ReportName.AGENTS:
            rows = _with_conversions(rows, await ask(queue_pb2.REPORT_CONVERSIONS), by)
        if format is ReportFormat.CSV:
            return _spreadsheet(
                report, rows, ["since", "queue", *([_FIELDS[by]] if by else []), *columns]
            )
        return Report(report=report, counted_at=moment_in(answer, "counted_at"), rows=rows)


def _key(row: queue_pb2.ReportRow) -> _Key:
    return row.since, row.queue, row.agent_id, row.hour, row.call_number


_FIELDS = {
    ReportDimension.AGENT: "agent_id",
    ReportDimension.HOUR: "hour",
    ReportDimension.CALL_NUMBER: "call_number",
}


def _empty(key: _Key, by: ReportDimension | None) -> ReportRow:
    since, queue, *parts = key
    row = ReportRow(since=date.fromisoformat(since) if since else None, queue=QUEUES.name(queue))
    for (dimension, field), part in zip(_FIELDS.items(), parts, strict=True):
        if dimension is by:
            setattr(row, field, part)
    return row


def _calls(answer: queue_pb2.GetReportResponse, by: ReportDimension | None) -> Iterable[ReportRow]:
    by_key: Mapping[_Key, list[queue_pb2.ReportRow]] = defaultdict(list)
    for each in answer.rows:
        by_key[_key(each)].append(each)
    spoken = set(answer.conversations)
    for key, results in by_key.items():
        row = _empty(key, by)
        row.calls = sum(it.number for it in results if it.result)
        row.unreported_calls = sum(it.number for it in results if not it.result)
        row.conversations = sum(it.number for it in results if it.result in spoken)
        row.contact_rate = round(row.conversations / row.calls, 4) if row.calls else None
        yield row


def _outcomes(
    answer: queue_pb2.GetReportResponse, by: ReportDimension | None
) -> Iterable[ReportRow]:
    for each in answer.rows:
        if each.result:
            row = _empty(_key(each), by)
            row.outcome, row.calls = OUTCOMES.name(each.result), each.number
            yield row


def _conversions(
    answer: queue_pb2.GetReportResponse, by: ReportDimension | None
) -> Iterable[ReportRow]:
    for each in answer.rows:
        row = _empty(_key(each), by)
        row.conversion, row.conversions = CONVERSIONS.name(each.result), each.number
        if each.timed:
            row.average_days = round(each.seconds / each.timed / SECONDS_PER_DAY, 2)
        yield row


def _callbacks(
    answer: queue_pb2.GetReportResponse, by: ReportDimension | None
) -> Iterable[ReportRow]:
    for each in answer.rows:
        row = _empty(_key(each), by)
        row.callback_state, row.callbacks = CALLBACK_STATES.name(each.result), each.number
        yield row


def _people(answer: queue_pb2.GetReportResponse, by: ReportDimension | None) -> Iterable[ReportRow]:
    for each in answer.rows:
        row = _empty(_key(each), by)
        row.state, row.people = ENTRY_STATES.name(each.result), round(each.number / each.timed, 1)
        yield row


_RowsOf = Callable[[queue_pb2.GetReportResponse, ReportDimension | None], Iterable[ReportRow]]
_CALL_COLUMNS = ("calls", "unreported_calls", "conversations", "contact_rate")
_REPORTS: Mapping[ReportName, tuple[queue_pb2.Report.ValueType, tuple[str, ...], _RowsOf]] = {
    ReportName.CALLS: (queue_pb2.REPORT_CALLS, _CALL_COLUMNS, _calls),
    ReportName.OUTCOMES: (queue_pb2.REPORT_CALLS, ("outcome", "calls"), _outcomes),
    ReportName.CONVERSIONS: (
        queue_pb2.REPORT_CONVERSIONS,
        ("conversion", "conversions", "average_days"),
        _conversions,
    ),
    ReportName.AGENTS: (queue_pb2.REPORT_CALLS, (*_CALL_COLUMNS, "conversions"), _calls),
    ReportName.CALLBACKS: (
        queue_pb2.REPORT_CALLBACKS,
        ("callback_state", "callbacks"),
        _callbacks,
    ),
    ReportName.QUEUES: (queue_pb2.REPORT_PEOPLE, ("state", "people"), _people),
}


def _with_conversions(
    rows: list[ReportRow], answer: queue_pb2.GetReportResponse, by: ReportDimension | None
) -> list[ReportRow]:
    """Return the rows with the conversions of each agent; agents without a call get a row."""
    merged = {(it.since, it.queue, it.agent_id): it for it in rows}
    for row in merged.values():
        row.conversions = 0
    for each in answer.rows:
        found = _empty(_key(each), by)
        row = merged.setdefault((found.since, found.queue, found.agent_id), found)
        row.conversions = (row.conversions or 0) + each.number
    return sorted(
        merged.values(), key=lambda it: (it.since or date.min, it.queue or "", it.agent_id or "")
    )


def _spreadsheet(name: ReportName, rows: Iterable[ReportRow], columns: list[str]) -> Response:
    lines = [csv_line(columns)]
    for row in rows:
        values = (getattr(row, column) for column in columns)
        lines.append(csv_line(["" if it is None else str(it) for it in values]))
    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return Response("".join(lines), media_type=CSV, headers=headers)
