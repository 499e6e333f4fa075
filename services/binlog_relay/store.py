"""The position in PostgreSQL, and the key of the lock that leaves one relay active."""

import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from servicekit.database import database_errors
from servicekit.errors import Conflict
from services.binlog_relay.domain.positions import BinlogPosition
from services.binlog_relay.tables import positions

_LOCK_FAMILY: Final = zlib.crc32(b"binlog_relay") - 2**31


@dataclass(frozen=True, slots=True)
class SavedPosition:
    """What is stored for a source; `position` is None before the first save."""

    position: BinlogPosition | None
    saved_at: datetime | None
    records_published: int


class PositionStore:
    """Positions by source name. Every method raises what `database_errors` does."""

    def __init__(self, engine: AsyncEngine, source_name: str) -> None:
        self._engine = engine
        self._source_name = source_name

    async def ping(self) -> None:
        """Raise unless PostgreSQL has our tables and takes writes."""
        with database_errors():
            async with self._engine.connect() as connection:
                # It locks no row, and fails on a server that takes no writes.
                await connection.execute(select(positions.c.source).limit(0).with_for_update())

    async def begin_epoch(self) -> tuple[int, SavedPosition]:
        """Take over the source; the replica that held it before can no longer save."""
        with database_errors():
            async with self._engine.begin() as connection:
                statement = insert(positions).values(source=self._source_name, epoch=1)
                statement = statement.on_conflict_do_update(
                    index_elements=[positions.c.source], set_={"epoch": positions.c.epoch + 1}
                )
                found = await connection.execute(statement.returning(positions.c.epoch))
                epoch = int(found.scalar_one())
                return epoch, await self._read(connection)

    async def read(self) -> SavedPosition:
        """Return what is stored."""
        with database_errors():
            async with self._engine.connect() as connection:
                return await self._read(connection)

    async def save(self, epoch: int, position: BinlogPosition, new_records: int) -> None:
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

    async def invalidate(self) -> None:
        """Remove the server from the stored position, so that the next start requests a full run.

        For a server whose settings hide changes: no position is behind the hidden changes.
        """
        statement = update(positions).where(positions.c.source == self._source_name)
        with database_errors():
            async with self._engine.begin() as connection:
                await connection.execute(statement.values(server="", gtid=""))

    async def _read(self, connection: Any) -> SavedPosition:
        c = positions.c
        query = select(c.server, c.file, c.file_offset, c.gtid, c.saved_at, c.records_published)
        found = await connection.execute(query.where(c.source == self._source_name))
        row = found.one_or_none()
        if row is None or row.saved_at is None:
            return SavedPosition(None, None, 0)
        position = BinlogPosition(row.server, row.file, row.file_offset, row.gtid)
        return SavedPosition(position, row.saved_at, row.records_published)


def lock_key(source_name: str) -> tuple[int, int]:
    """Return the key of the advisory lock that the active relay of the source holds."""
    return _LOCK_FAMILY, zlib.crc32(source_name.encode()) - 2**31
