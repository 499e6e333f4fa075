"""Alembic upgrades of one service's own PostgreSQL schema.

Each owning service keeps its history in ``services/<name>/migrations``; the version table lives in
the service's schema, so that services migrate independently in one database.
"""

from __future__ import annotations

import asyncio
import os
import sys
import zlib
from importlib import resources

from alembic import command, context
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from servicekit.database import with_driver

LOCK_TIMEOUT_SECONDS = 5


async def upgrade(url: str, *, package: str, schema: str, revision: str = "head") -> None:
    """Bring ``schema`` to ``revision``; a second runner waits for the first and then does nothing.

    ``url`` is a ``postgresql://`` address whose user may create the schema.
    """
    engine = create_async_engine(with_driver(url, "postgresql+asyncpg"), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, package, schema, revision)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, package: str, schema: str, revision: str) -> None:
    # Held to the end of the transaction that every step of the upgrade runs in.
    connection.execute(
        # A name of its own: services elect their active copy by locks called like themselves.
        text("SELECT pg_advisory_xact_lock(:key)"),
        {"key": zlib.crc32(f"migrations of {schema}".encode())},
    )
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
    config = Config()
    config.set_main_option("script_location", str(resources.files(package) / "migrations"))
    config.attributes["connection"] = connection
    config.attributes["schema"] = schema
    command.upgrade(config, revision)


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
