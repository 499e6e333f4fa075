"""A database of ours on a local PostgreSQL."""

import uuid
from dataclasses import dataclass

from devstack.servers import PostgreSQL


@dataclass(frozen=True)
class PostgresDatabase:
    """An empty PostgreSQL database owned by the account `dialler`."""

    server: PostgreSQL
    name: str

    @classmethod
    def create(
        cls, server: PostgreSQL, name: str | None = None, *, template: str = "template1"
    ) -> "PostgresDatabase":
        """A new database, under a unique name unless one is given, with what the template has."""
        database = cls(server, name or f"dialler_{uuid.uuid4().hex}")
        server.execute(f'CREATE DATABASE "{database.name}" OWNER dialler TEMPLATE "{template}"')
        return database

    def drop(self) -> None:
        """Also ends whatever connections are left."""
        self.server.execute(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')

    @property
    def url(self) -> str:
        return self.server.url(self.name)
