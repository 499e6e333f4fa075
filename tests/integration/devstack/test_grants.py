"""What deploy/sql grants is what the suite needs.

`MainAppDatabase.create` grants the readers' accounts what the files say, so every other test reads
with that too; here is what happens with less, and PostgreSQL's part.
"""

from __future__ import annotations

from collections.abc import Iterator

import pymysql
import pytest

from devstack import sql_grants
from devstack.mainapp_database import MainAppDatabase, statements_of
from devstack.postgres_database import PostgresDatabase
from devstack.processes import HOST
from devstack.servers import ServerError
from mainapp.description import load
from servicekit.database import mysql_engine
from servicekit.errors import Internal
from servicekit.migrations import upgrade
from services.user_context.domain import UserId
from services.user_context.mysql.reader import MainAppStore

pytestmark = pytest.mark.integration

DESCRIPTION = load()
SCHEMAS = sql_grants.postgres_schemas()
PASSWORD = "for-this-test"


async def test_every_granted_column_is_needed_and_no_other(
    mainapp_database: MainAppDatabase,
) -> None:
    engine = mysql_engine(mainapp_database.url, pool_size=1, statement_timeout_seconds=10.0)
    store = MainAppStore(engine, DESCRIPTION)
    columns = [
        (f"`{column}`", f"`{mainapp_database.name}`.`{name}` TO 'dialler'@'%'")
        for name, table in DESCRIPTION.tables.items()
        for column in table.columns
    ]
    readable: list[str] = []
    try:
        assert (await store.read_people([UserId(1)], fingerprinted=True)).people == {}
        with mainapp_database.server.connect() as admin, admin.cursor() as cursor:
            for column, of in columns:
                cursor.execute(f"REVOKE SELECT ({column}) ON {of.replace(' TO ', ' FROM ')}")
                try:
                    await store.read_people([UserId(1)], fingerprinted=True)
                    readable.append(f"{of} {column}")
                except Internal:
                    pass
                cursor.execute(f"GRANT SELECT ({column}) ON {of}")
        assert (await store.read_people([UserId(1)], fingerprinted=True)).people == {}
    finally:
        await engine.dispose()
    assert readable == []


def test_the_files_are_valid_on_this_server_and_say_how_replication_stands(
    mainapp_database: MainAppDatabase,
) -> None:
    files = sql_grants.reader(DESCRIPTION) + sql_grants.relay(DESCRIPTION)
    server = mainapp_database.server
    with server.connect(database=mainapp_database.name) as admin, admin.cursor() as cursor:
        for name in ("reader", "relay"):
            cursor.execute(f"CREATE USER '{name}'@'%' IDENTIFIED BY '{PASSWORD}'")
        named = files.replace("'dialler'", "'reader'").replace("'dialler_relay'", "'relay'")
        try:
            for statement in statements_of(named):
                cursor.execute(statement)
            for name in ("reader", "relay"):
                with (
                    pymysql.connect(
                        host=HOST, port=server.port, user=name, password=PASSWORD
                    ) as connection,
                    connection.cursor() as asking,
                ):
                    assert asking.execute("SHOW REPLICA STATUS") == 0
                    assert asking.execute(f"SHOW TABLES FROM `{mainapp_database.name}`") == 5
        finally:
            cursor.execute("DROP USER 'reader'@'%', 'relay'@'%'")


@pytest.fixture
def granted(postgres_database: PostgresDatabase) -> Iterator[PostgresDatabase]:
    """A database in which the file has been run twice, by its owner, who may make roles."""
    server = postgres_database.server
    for name in SCHEMAS:
        server.execute(f"CREATE ROLE dialler_{name} LOGIN PASSWORD '{PASSWORD}'")
    server.execute("ALTER ROLE dialler CREATEROLE")
    for _ in range(2):
        server.execute(sql_grants.postgres(), database=postgres_database.name, user="dialler")
    yield postgres_database
    server.execute("ALTER ROLE dialler NOCREATEROLE")
    for name in SCHEMAS:
        of_role = f"DROP OWNED BY dialler_{name} CASCADE; DROP ROLE dialler_{name}"
        server.execute(of_role, database=postgres_database.name)


def _url(database: PostgresDatabase, name: str) -> str:
    address = f"{HOST}:{database.server.port}/{database.name}"
    return f"postgresql://dialler_{name}:{PASSWORD}@{address}"


async def test_each_service_migrates_its_own_schema_and_no_other(
    granted: PostgresDatabase,
) -> None:
    for name in SCHEMAS:
        await upgrade(_url(granted, name), package=f"services.{name}", schema=name)
    for name in SCHEMAS:
        for other in set(SCHEMAS) - {name}:
            with pytest.raises(ServerError, match="permission denied for schema"):
                granted.server.execute(
                    f"SET SESSION AUTHORIZATION dialler_{name};"
                    f" SELECT version_num FROM {other}.alembic_version",
                    database=granted.name,
                )
    with pytest.raises(ServerError, match="permission denied for database"):
        granted.server.execute(
            "SET SESSION AUTHORIZATION dialler_queue; CREATE SCHEMA more", database=granted.name
        )
