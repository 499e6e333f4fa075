"""Alembic upgrades of one service's own PostgreSQL schema.

Each owning service keeps its history in ``services/<name>/migrations``; the version table lives in
the service's schema, so that services migrate independently in one database.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import zlib
from importlib import resources

from alembic import command, context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from servicekit.database import database_errors
from servicekit.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from servicekit.postgres_hosts import PostgresHosts

LOCK_TIMEOUT_SECONDS = 5

_log = logging.getLogger(__name__)


async def upgrade(url: str, *, package: str, schema: str, revision: str = "head") -> None:
    """Migrate ``schema`` to ``revision``; a second runner waits for the first, then does nothing.

    ``url`` is a ``postgresql://`` address whose user owns the schema, or may create it; of several
    hosts the one that takes writes is migrated.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        connect_args={"async_creator_fn": PostgresHosts(url).connect},
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade, package, schema, revision)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, package: str, schema: str, revision: str) -> None:
    """Run each step in a transaction of its own, so that none holds the locks of those before."""
    # The lock is held until the connection is closed.
    connection.execute(
        # Not the service's name, which is the key of the lock of its leading replica.
        text("SELECT pg_advisory_lock(:key)"),
        {"key": zlib.crc32(f"migrations of {schema}".encode())},
    )
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
    # Even for a schema that is there PostgreSQL would ask for the right to make one.
    if connection.scalar(text("SELECT to_regnamespace(:schema)"), {"schema": schema}) is None:
        connection.execute(text(f'CREATE SCHEMA "{schema}"'))
    connection.commit()
    config = Config()
    config.set_main_option("script_location", str(resources.files(package) / "migrations"))
    config.attributes["connection"] = connection
    config.attributes["schema"] = schema
    script = ScriptDirectory.from_config(config)
    with connection.begin():
        context = MigrationContext.configure(connection, opts={"version_table_schema": schema})
        present = context.get_current_revision()
    steps = list(script.iterate_revisions(revision, present or "base"))
    for step in reversed(steps):
        with connection.begin():
            command.upgrade(config, step.revision)


class SchemaCheck:
    """The readiness check that a service's schema is as new as its code, or newer.

    Old code runs on a newer schema; new code on an older one would fail call by call.
    """

    def __init__(self, engine: AsyncEngine, package: str, schema: str) -> None:
        """`package` has the history, in its folder `migrations`, of `schema`."""
        config = Config()
        config.set_main_option("script_location", str(resources.files(package) / "migrations"))
        script = ScriptDirectory.from_config(config)
        self._engine = engine
        self._package = package
        self._schema = schema
        self._head = script.get_current_head()
        self._earlier = {each.revision for each in script.walk_revisions()} - {self._head}
        self._is_met = False
        self._is_logged = False

    async def __call__(self) -> None:
        """Raise FailedPrecondition (SCHEMA_OLD) until the migrations of this code have been run.

        A PostgreSQL that does not answer is left to the service's own check.
        """
        if self._is_met:
            return
        try:
            found = await self._revision()
        except (Unavailable, DeadlineExceeded):
            return
        if found is None or found in self._earlier:
            if not self._is_logged:
                details = {"schema": self._schema, "revision": found, "needed": self._head}
                _log.error("schema_old", extra=details)
                self._is_logged = True
            raise FailedPrecondition(
                "SCHEMA_OLD",
                f"schema {self._schema} is at {found or 'no revision'}, this code needs "
                f"{self._head}: run python -m servicekit.migrations {self._package}",
            )
        self._is_met = True

    async def _revision(self) -> str | None:
        """Return the schema's revision; an account that may not read it is taken at its word."""
        table = f"{self._schema}.alembic_version"
        with database_errors():
            async with self._engine.connect() as connection:
                readable = await connection.scalar(
                    text("SELECT has_table_privilege(to_regclass(:table), 'SELECT')"),
                    {"table": table},
                )
                if readable is None:
                    return None
                if not readable:
                    return self._head
                # The schema is a name of our own.
                found = await connection.scalar(text(f"SELECT version_num FROM {table}"))  # noqa: S608
                return None if found is None else str(found)


def run_env() -> None:
    """Body of a service's ``migrations/env.py``."""
    attributes = context.config.attributes
    context.configure(
        connection=attributes["connection"],
        version_table_schema=attributes["schema"],
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> int:
    """Migrate the service named on the command line, such as ``services.queue``."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m servicekit.migrations services.NAME\n")
        return 2
    package = sys.argv[1]
    schema = package.rpartition(".")[2]
    variable = f"{schema.upper()}_POSTGRES_URL"
    url = os.environ.get(variable)
    if not url:
        sys.stderr.write(f"{variable} is not set: the address of the PostgreSQL to migrate\n")
        return 2
    asyncio.run(upgrade(url, package=package, schema=schema))
    return 0


if __name__ == "__main__":
    sys.exit(main())
