"""The position in PostgreSQL, and the lock that leaves one relay active."""

import asyncio
import contextlib
import logging
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from servicekit.database import database_errors, lock_session
from servicekit.errors import Conflict
from services.binlog_relay.domain.positions import Position
from services.binlog_relay.tables import positions

_log = logging.getLogger(__name__)

_LOCK_FAMILY: Final = zlib.crc32(b"binlog_relay") - 2**31
_CHECK_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Saved:
    """What is stored for a source; `position` is None before the first save."""

    position: Position | None
    saved_at: datetime | None
    records_published: int


class PositionStore:
    """Positions by source name. Every method raises what `database_errors` does."""

    def __init__(self, engine: AsyncEngine, source_name: str) -> None:
        self._engine = engine
        self._source_name = source_name

    async def ping(self) -> None:
        """Raise unless PostgreSQL answers."""
        with database_errors():
            async with self._engine.connect() as connection:
                await connection.execute(select(1))

    async def begin_epoch(self) -> tuple[int, Saved]:
        """Take over the source; whoever held it before can no longer save."""
        with database_errors():
            async with self._engine.begin() as connection:
                statement = insert(positions).values(source=self._source_name, epoch=1)
                statement = statement.on_conflict_do_update(
                    index_elements=[positions.c.source], set_={"epoch": positions.c.epoch + 1}
                )
                found = await connection.execute(statement.returning(positions.c.epoch))
                epoch = int(found.scalar_one())
                return epoch, await self._read(connection)

    async def read(self) -> Saved:
        """Return what is stored."""
        with database_errors():
            async with self._engine.connect() as connection:
                return await self._read(connection)

    async def save(self, epoch: int, position: Position, new_records: int) -> None:
        """Store the position; raises Conflict (RELAY_SUPERSEDED) if another took over."""
        changes = {
            "server": position.server,
            "file": position.file,
            "file_offset": position.offset,
            "gtid": position.gtid,
            "saved_at": func.now(),
            "records_published": positions.c.records_published + new_records,
        }
        statement = (
            update(positions)
            .where(positions.c.source == self._source_name, positions.c.epoch == epoch)
            .values(changes)
        )
        with database_errors():
            async with self._engine.begin() as connection:
                result = await connection.execute(statement)
        if result.rowcount != 1:
            raise Conflict("RELAY_SUPERSEDED", "another relay has taken over this source")

    async def _read(self, connection: Any) -> Saved:
        columns = positions.c
        found = await connection.execute(
            select(
                columns.server,
                columns.file,
                columns.file_offset,
                columns.gtid,
                columns.saved_at,
                columns.records_published,
            ).where(columns.source == self._source_name)
        )
        row = found.one_or_none()
        if row is None or row.saved_at is None:
            return Saved(None, None, 0)
        position = Position(row.server, row.file, row.file_offset, row.gtid)
        return Saved(position, row.saved_at, row.records_published)


class Leadership:
    """Holds the source's advisory lock on a connection of its own."""

    def __init__(self, postgres_url: str, source_name: str) -> None:
        self._dsn = make_url(postgres_url).set(drivername="postgresql")
        self._key = zlib.crc32(source_name.encode()) - 2**31

    @asynccontextmanager
    async def held(self) -> AsyncIterator[asyncio.Event]:
        """Wait until the lock is ours; the event is set the moment it may no longer be.

        Raises OSError or asyncpg's errors when PostgreSQL cannot be asked.
        """
        connection = await asyncpg.connect(
            self._dsn.render_as_string(hide_password=False),
            timeout=_ANSWER_SECONDS,
            command_timeout=_ANSWER_SECONDS,
            server_settings=lock_session("binlog_relay-lock"),
        )
        lost = asyncio.Event()
        watcher: asyncio.Task[None] | None = None
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await self._acquire(connection)
            watcher = asyncio.create_task(self._watch(connection, lost), name="leadership")
            yield lost
        finally:
            if watcher is not None:
                watcher.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watcher
            with contextlib.suppress(Exception):
                await connection.close(timeout=_ANSWER_SECONDS)

    async def _acquire(self, connection: Any) -> None:
        is_waiting = False
        while not await connection.fetchval(
            "SELECT pg_try_advisory_lock($1::int4, $2::int4)", _LOCK_FAMILY, self._key
        ):
            if not is_waiting:
                _log.info("standing_by")
                is_waiting = True
            await asyncio.sleep(_CHECK_SECONDS)

    async def _watch(self, connection: Any, lost: asyncio.Event) -> None:
        # A connection can be dead without an end ever arriving; an unanswered question tells.
        while not lost.is_set():
            try:
                await connection.fetchval("SELECT 1")
            except Exception as error:
                _log.warning("leadership_lost", extra={"error": type(error).__name__})
                lost.set()
                return
            await asyncio.sleep(_CHECK_SECONDS)
