"""Snapshots of the main app, for readings of several statements, and the errors of readings."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from servicekit.backoff import UNAVAILABLE
from servicekit.database import database_errors
from servicekit.database_failures import RETRY_AFTER_SECONDS
from servicekit.errors import Unavailable
from services.user_context.mysql.rows import Values

# The execution option under which `read_at_once` gets the rows of each of its statements.
_RESULT_SETS = "result_sets"
_BEGIN_SNAPSHOT = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
# MariaDB leaves out the second variable, MySQL the first.
_EXECUTED = "SELECT /*M! @@global.gtid_current_pos */ /*!50700 @@global.gtid_executed */"


def main_app_unavailable() -> Unavailable:
    """Return the error for a main app that does not answer."""
    return Unavailable(
        "MAIN_APP_UNAVAILABLE",
        "the main app's database cannot be read now",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


@contextmanager
def main_app_errors() -> Iterator[None]:
    """Raise Unavailable (MAIN_APP_UNAVAILABLE) when MySQL cannot answer or does not in time."""
    try:
        with database_errors():
            yield
    except UNAVAILABLE as error:
        raise main_app_unavailable() from error


def keep_snapshots_repeatable(engine: AsyncEngine) -> None:
    """Make snapshots work whatever the server's default isolation level is.

    A server whose default is READ COMMITTED ignores CONSISTENT SNAPSHOT without an error.
    """

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        finally:
            cursor.close()


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Yield a connection whose statements see the database as it is when the block begins."""
    with main_app_errors():
        async with engine.connect() as connection:
            try:
                await connection.exec_driver_sql(_BEGIN_SNAPSHOT)
                yield connection
                await connection.exec_driver_sql("COMMIT")
            except BaseException:
                # It must not return to the pool with its snapshot open.
                await connection.invalidate()
                raise


def answer_at_once(engine: AsyncEngine) -> None:
    """Let `read_at_once` read from the engine."""

    @event.listens_for(engine.sync_engine, "do_execute")
    def execute(cursor: Any, statement: str, parameters: object, context: Any) -> bool:
        sets: list[Sequence[Values]] | None = context.execution_options.get(_RESULT_SETS)
        if sets is None:
            return False
        cursor.execute(statement)
        sets[0] = cursor.fetchall()
        # Then comes the answer to the beginning of the snapshot, which has no rows.
        cursor.nextset()
        for place in range(1, len(sets)):
            cursor.nextset()
            sets[place] = cursor.fetchall()
        cursor.nextset()
        return True


class AtOnce(NamedTuple):
    """The rows of each query, and the GTIDs that the server had executed before the snapshot."""

    sets: Sequence[Sequence[Values]]
    executed_gtids: str


async def read_at_once(engine: AsyncEngine, queries: Sequence[str]) -> AtOnce:
    """Return the rows of each query, all as of one moment after the call, by one round trip.

    The queries are texts without parameters. Of a lone person, sending statements one by one costs
    more than reading the rows.
    """
    sets: list[Sequence[Values]] = [()] * (1 + len(queries))
    text = "; ".join((_EXECUTED, _BEGIN_SNAPSHOT, *queries, "COMMIT"))
    with main_app_errors():
        async with engine.connect() as connection:
            try:
                await connection.exec_driver_sql(text, execution_options={_RESULT_SETS: sets})
            except BaseException:
                # It must not return to the pool with its snapshot open, or with results unread.
                await connection.invalidate()
                raise
    ((executed,),) = sets[0]
    # MySQL breaks lines.
    return AtOnce(sets[1:], "".join(str(executed or "").split()))
