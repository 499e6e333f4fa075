"""Statements as spans, and the pool as figures, on a real PostgreSQL."""

from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from devstack.postgres_database import PostgresDatabase
from servicekit import telemetry
from servicekit.database import database_errors, postgres_engine
from servicekit.errors import Unavailable

pytestmark = pytest.mark.integration

POOL = {"pool": "telemetry-test"}


@pytest.fixture
async def engine(postgres_database: PostgresDatabase) -> AsyncIterator[AsyncEngine]:
    made = postgres_engine(
        postgres_database.url,
        pool_size=1,
        application_name="test",
        statement_timeout_seconds=5.0,
        pool_timeout_seconds=0.05,
        pool_name=POOL["pool"],
    )
    yield made
    await made.dispose()


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    made = InMemorySpanExporter()
    telemetry.record_to("test", 1.0, made)
    yield made
    telemetry.shutdown()


async def run(engine: AsyncEngine, sql: str, **values: object) -> None:
    async with engine.connect() as connection:
        await connection.execute(text(sql), values)


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("SELECT 1", "SELECT"),
        (
            "SELECT relname FROM pg_catalog.pg_class LIMIT 1 FOR UPDATE",
            "SELECT pg_catalog.pg_class",
        ),
        (
            "WITH some AS (SELECT 1 AS a FROM pg_catalog.pg_class FOR UPDATE) SELECT a FROM some",
            "SELECT pg_catalog.pg_class",
        ),
        ("WITH t AS (SELECT 1) DELETE FROM seen.things", "DELETE seen.things"),
    ],
)
async def test_a_statement_is_a_span_named_by_what_it_does(
    engine: AsyncEngine, exporter: InMemorySpanExporter, sql: str, name: str
) -> None:
    with telemetry.span("work"):
        try:
            await run(engine, sql)
        except DBAPIError:
            assert "UPDATE" in sql or "DELETE" in sql
    statement, work = exporter.get_finished_spans()
    assert statement.name == name
    assert statement.parent is not None
    assert work.context is not None
    assert statement.parent.span_id == work.context.span_id
    assert attributes(statement)["db.system.name"] == "postgresql"
    assert attributes(statement)["db.operation.name"] == name.split()[0]


async def test_neither_text_nor_values_are_in_a_span(
    engine: AsyncEngine, exporter: InMemorySpanExporter
) -> None:
    with telemetry.span("work"):
        await run(engine, "SELECT CAST(:name AS text) AS jane", name="Jane Example")
        with pytest.raises(DBAPIError):
            await run(engine, "SELECT CAST(:name AS text)::int", name="Jane Example")
    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "error.type" in told
    assert "jane" not in told.lower()


async def test_nothing_is_recorded_outside_a_trace(
    engine: AsyncEngine, exporter: InMemorySpanExporter
) -> None:
    await run(engine, "SELECT 1")
    assert exporter.get_finished_spans() == ()


async def test_the_pool_tells_its_size_its_use_and_waits_in_vain(engine: AsyncEngine) -> None:
    before = REGISTRY.get_sample_value("dialler_database_pool_timeouts_total") or 0.0
    assert REGISTRY.get_sample_value("dialler_database_pool_size", POOL) == 1
    async with engine.connect():
        assert REGISTRY.get_sample_value("dialler_database_pool_in_use", POOL) == 1
        with pytest.raises(Unavailable), database_errors():
            await run(engine, "SELECT 1")
    assert REGISTRY.get_sample_value("dialler_database_pool_in_use", POOL) == 0
    assert REGISTRY.get_sample_value("dialler_database_pool_timeouts_total") == before + 1
