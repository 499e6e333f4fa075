"""Telemetry of an engine: a span for each statement made within a trace, and the pool's use.

It has a few listeners instead of OpenTelemetry's instrumentation: they are cheap where nothing is
recorded, and put neither a statement's text nor its values into a span.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from prometheus_client import Counter, Gauge
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from servicekit import telemetry
from servicekit.spans import Attribute, Kind, Span

_SIZE = Gauge("dialler_database_pool_size", "Connections a pool may have.", ("pool",))
_IN_USE = Gauge("dialler_database_pool_in_use", "Connections in use.", ("pool",))
_TIMEOUTS = Counter(
    "dialler_database_pool_timeouts", "Times no connection became free in time, in any pool."
)
_FAILURES = Counter(
    "dialler_database_failures",
    "Failures of databases, by the reason that callers are told.",
    ("reason",),
)
# Exported as 0 from the start, so that an alert sees the first failure.
_FAILURES.labels("DATABASE_READ_ONLY")

_SPAN = "dialler_span"
# Not the UPDATE of FOR UPDATE.
_WRITE = re.compile(r"(?<!for )\b(?:insert|update|delete)\b", re.I)
_BEGIN = re.compile(r"start transaction[^;]*;\s*", re.I)
_TARGET = re.compile(r'\b(?:from|into|update|join|only)\s+([a-z_][\w.]*|"[^"]+"|`[^`]+`)', re.I)


def observe(engine: AsyncEngine, system: str, pool: str) -> None:
    """Trace the engine's statements by the conventions for `db`, and export the use of its pool.

    Of several engines whose pools have one name the last is exported.
    """
    if isinstance(engine.pool, QueuePool):
        _SIZE.labels(pool).set(engine.pool.size())
        _IN_USE.labels(pool).set_function(engine.pool.checkedout)

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def begin(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        summary, described = _described(statement, system, pool)
        span = telemetry.begin_child(summary, Kind.CLIENT, described)
        if span is not None and context is not None:
            setattr(context, _SPAN, span)

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def end(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> None:
        span: Span | None = getattr(context, _SPAN, None)
        if span is not None:
            span.end()

    @event.listens_for(engine.sync_engine, "handle_error")
    def fail(failure: Any) -> None:
        span: Span | None = getattr(failure.execution_context, _SPAN, None)
        if span is not None:
            # Many failures are expected: the caller decides which have the trace exported.
            span.fail(type(failure.original_exception).__name__, keeps=False)
            span.end()


def failed(reason: str) -> None:
    """Count a failure."""
    _FAILURES.labels(reason).inc()


def pool_timed_out() -> None:
    """Count a wait for a connection that ended without one."""
    _TIMEOUTS.inc()


# The stores hold a fixed set of statements; only the number of values of an IN varies them.
@lru_cache(maxsize=1024)
def _described(statement: str, system: str, pool: str) -> tuple[str, Mapping[str, Attribute]]:
    """Return `SELECT queue.entries`, and the attributes every span of the statement has."""
    # Of several statements in one text the first does not tell what is read.
    text = _BEGIN.sub("", statement.lstrip())
    operation = text.split(None, 1)[0].upper() if text else "UNKNOWN"
    if operation == "WITH":
        written = _WRITE.search(text)
        operation = written[0].upper() if written else "SELECT"
    targets = [target.strip('"`') for target in _TARGET.findall(text)]
    # Our tables are written with their schema, names of a statement's own parts without one.
    collection = next((each for each in targets if "." in each), targets[0] if targets else "")
    summary = f"{operation} {collection}".strip()
    described: dict[str, Attribute] = {
        "db.system.name": system,
        "db.operation.name": operation,
        "db.query.summary": summary,
        "db.client.connection.pool.name": pool,
    }
    if collection:
        described["db.collection.name"] = collection
    return summary, described
