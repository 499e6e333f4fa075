"""The least that any claim with a check must do, without gRPC or rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import asyncmy
import asyncpg
from sqlalchemy import make_url

from bench.claims import CONNECTIONS, ClaimingAgent, Contender
from devstack.stack import Stack

_PREPARE = """
DROP SCHEMA IF EXISTS bench CASCADE;
CREATE SCHEMA bench;
CREATE TABLE bench.entries (user_id bigint PRIMARY KEY, state text, rank_key float8)
  WITH (fillfactor = 80);
INSERT INTO bench.entries SELECT user_id, 'READY', user_id FROM queue.entries;
CREATE INDEX ON bench.entries (rank_key, user_id DESC) WHERE state = 'READY';
ANALYZE bench.entries;
"""
_TAKE = """
SELECT user_id FROM bench.entries WHERE state = 'READY'
ORDER BY rank_key, user_id DESC LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_HOLD = "UPDATE bench.entries SET state = 'ASSIGNED' WHERE user_id = $1"
_GIVE_BACK = "UPDATE bench.entries SET state = 'READY' WHERE user_id = $1"
_READ = "SELECT id, is_enabled, status, current_signature_file_id FROM users WHERE id = %s"


class BareSql(Contender):
    """`FOR UPDATE SKIP LOCKED`, durable, then the person's row of MySQL by its key."""

    name = f"bare SKIP LOCKED + PK read, {CONNECTIONS} connections"

    def __init__(self, postgres: asyncpg.Pool, mysql: asyncmy.Pool) -> None:
        self._postgres = postgres
        self._mysql = mysql

    @classmethod
    @asynccontextmanager
    async def open(cls, stack: Stack) -> AsyncIterator[Self]:
        """Copy the queue's people into a table of its own; it is dropped afterwards."""
        address = stack.addresses.postgres.replace("+asyncpg", "")
        reader = make_url(stack.addresses.mysql_reader)
        async with (
            asyncpg.create_pool(address, min_size=CONNECTIONS, max_size=CONNECTIONS) as postgres,
            asyncmy.create_pool(
                host=reader.host,
                port=reader.port,
                user=reader.username,
                password=reader.password,
                db=reader.database,
                minsize=CONNECTIONS,
                maxsize=CONNECTIONS,
                autocommit=True,
            ) as mysql,
        ):
            await postgres.execute(_PREPARE)
            yield cls(postgres, mysql)
            await postgres.execute("DROP SCHEMA bench CASCADE")

    async def claim(self, agent: ClaimingAgent) -> int:
        """Take the head; returns once it is durable and checked."""
        async with self._postgres.acquire() as connection, connection.transaction():
            user_id: int = await connection.fetchval(_TAKE)
            await connection.execute(_HOLD, user_id)
        async with self._mysql.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(_READ, (user_id,))
            await cursor.fetchone()
        return user_id

    async def give_back(self, agent: ClaimingAgent, claimed: int) -> None:
        """Put the person back."""
        await self._postgres.execute(_GIVE_BACK, claimed)
