"""Reports: calls, conversions, callbacks and people, by period, queue, agent, hour or call."""

from datetime import date

from dialler.queue.v1 import queue_pb2

from servicekit.errors import InvalidArgument
from services.queue.people.rulebook import Rulebook
from services.queue.store import reports
from services.queue.store.database import Database
from services.queue.store.reports import ReportFigures, ReportQuery
from services.queue.types import Counted, Dimension, Period, Queue

MOST_ROWS = 50_000


class Reports:
    """Reads what `maintenance.report_counts` has counted."""

    def __init__(self, database: Database, rulebook: Rulebook) -> None:
        self._database = database
        self._rulebook = rulebook

    async def get(self, request: queue_pb2.GetReportRequest) -> queue_pb2.GetReportResponse:
        """Return the figures; raises InvalidArgument (REPORT_INVALID, REPORT_TOO_LARGE)."""
        query = _query_of(request)
        async with self._database.statements() as tx:
            found = await reports.read(tx, query, MOST_ROWS + 1)
            counted = await reports.counted_days(tx, query.first_day)
        if len(found) > MOST_ROWS:
            raise InvalidArgument(
                "REPORT_TOO_LARGE",
                f"more than {MOST_ROWS} rows: ask for longer periods, fewer days or one queue",
            )
        answer = queue_pb2.GetReportResponse(rows=[_row(it, query) for it in found])
        for outcome, rule in self._rulebook.rules.outcomes.items():
            if rule.is_conversation:
                answer.conversations.append(outcome)  # type: ignore[arg-type]
        within = [at for day, at in counted.items() if day <= query.last_day]
        if within:
            answer.counted_at.FromDatetime(max(within))
        return answer


def _query_of(request: queue_pb2.GetReportRequest) -> ReportQuery:
    try:
        query = ReportQuery(
            report=Counted(request.report),
            first_day=date.fromisoformat(request.first_day),
            last_day=date.fromisoformat(request.last_day),
            period=Period(request.period),
            dimension=Dimension(request.dimension) if request.dimension else None,
            queue=Queue(request.queue) if request.queue else None,
            agent_id=request.agent_id,
        )
    except ValueError as error:
        raise InvalidArgument("REPORT_INVALID", str(error)) from None
    if query.last_day < query.first_day:
        raise InvalidArgument("REPORT_INVALID", "the last day is before the first")
    if query.agent_id and query.dimension not in (None, Dimension.AGENT):
        raise InvalidArgument("REPORT_INVALID", "hours and calls are not counted for each agent")
    without = {
        Counted.CALLBACKS: (Dimension.CALL_NUMBER,),
        Counted.PEOPLE: (Dimension.AGENT, Dimension.CALL_NUMBER),
    }
    if query.dimension in without.get(query.report, ()):
        raise InvalidArgument("REPORT_INVALID", "this is not counted by that")
    if query.report is Counted.PEOPLE and query.agent_id:
        raise InvalidArgument("REPORT_INVALID", "people are not counted by agent")
    return query


def _row(figures: ReportFigures, query: ReportQuery) -> queue_pb2.ReportRow:
    row = queue_pb2.ReportRow(
        since="" if figures.since is None else figures.since.isoformat(),
        queue=figures.queue,  # type: ignore[arg-type]
        number=figures.number,
        timed=figures.timed,
        seconds=figures.seconds,
        result=figures.result,
    )
    if query.dimension is Dimension.AGENT:
        row.agent_id = figures.part
    elif query.dimension is Dimension.HOUR:
        row.hour = int(figures.part)
    elif query.dimension is Dimension.CALL_NUMBER:
        row.call_number = int(figures.part)
    return row
