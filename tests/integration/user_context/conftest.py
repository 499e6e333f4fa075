"""The service beside real servers, and what it says to them."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event

from devstack.mainapp_database import MainAppDatabase
from devstack.postgres_database import PostgresDatabase
from tests.fakes.running_user_context import RunningUserContext, running_user_context

_READS_NAMES = (
    "SELECT users.id, users.first_name, users.last_name, users.previous_name \nFROM users"
)


@pytest.fixture
async def user_context(
    mainapp_database: MainAppDatabase, postgres_database: PostgresDatabase, redis_url: str
) -> AsyncIterator[RunningUserContext]:
    """The service on an empty main app."""
    async with running_user_context(
        mysql_url=mainapp_database.url, postgres_url=postgres_database.url, redis_url=redis_url
    ) as running:
        yield running


@pytest.fixture
async def seeded_user_context(
    seeded_mainapp: MainAppDatabase, postgres_database: PostgresDatabase, redis_url: str
) -> AsyncIterator[RunningUserContext]:
    """The service on a main app with people."""
    async with running_user_context(
        mysql_url=seeded_mainapp.url, postgres_url=postgres_database.url, redis_url=redis_url
    ) as running:
        yield running


@pytest.fixture
def mysql_statements() -> Iterator[list[str]]:
    """Every statement this process sends to a MySQL from here on, arguments apart.

    But for those that take up names in the background, whenever that is.
    """
    statements: list[str] = []

    def sent(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        is_mysql = connection.dialect.name in ("mysql", "mariadb")
        if is_mysql and not statement.startswith(_READS_NAMES):
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", sent)
    yield statements
    event.remove(Engine, "before_cursor_execute", sent)
