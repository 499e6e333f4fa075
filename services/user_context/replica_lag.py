"""How far the server we read is behind the one it copies, as far as it tells us."""

import logging
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from servicekit.clock import Clock
from services.user_context import metrics
from services.user_context.snapshots import main_app_errors

# MySQL from 8.0.22 and MariaDB from 10.5 know the first; the second is for servers of old.
_QUESTIONS = ("SHOW REPLICA STATUS", "SHOW SLAVE STATUS")
_ANSWERS = ("Seconds_Behind_Source", "Seconds_Behind_Master")
# A statement unknown to the server, and the ways to be denied one.
_REFUSALS = frozenset({1044, 1064, 1142, 1227})

_ASK_SECONDS = 2.0

_log = logging.getLogger(__name__)


class ReplicaLag:
    """Tells whether the replica has to be left alone until it has caught up.

    Asking needs a privilege (REPLICATION CLIENT; REPLICA MONITOR on MariaDB) that nothing else
    here does: without it, lag is never seen.
    """

    def __init__(self, engine: AsyncEngine, clock: Clock, most_seconds: float) -> None:
        self._engine = engine
        self._clock = clock
        self._most_seconds = most_seconds
        self._questions = list(_QUESTIONS) if most_seconds else []
        self._asked_at: float | None = None
        self._is_too_long = False

    async def is_too_long(self) -> bool:
        """Return whether the replica is further behind than it may be while we add to its work.

        Asked every other second at most. A replica that has stopped following tells no lag:
        pausing would not help it. Raises Unavailable (MAIN_APP_UNAVAILABLE).
        """
        now = self._clock.monotonic()
        if self._asked_at is None or now - self._asked_at >= _ASK_SECONDS:
            self._asked_at = now
            seconds = await self._seconds()
            self._is_too_long = seconds is not None and seconds > self._most_seconds
            if seconds is not None:
                metrics.REPLICA_LAG.set(seconds)
        return self._is_too_long

    async def _seconds(self) -> float | None:
        while self._questions:
            with main_app_errors():
                async with self._engine.connect() as connection:
                    try:
                        return await _ask(connection, self._questions[0])
                    except DBAPIError as error:
                        if not _is_refused(error):
                            raise
                        _log.info("replica_lag_not_told", extra={"asked": self._questions.pop(0)})
        return None


async def _ask(connection: AsyncConnection, question: str) -> float | None:
    row = (await connection.execute(sa.text(question))).mappings().first()
    return None if row is None else _lag(dict(row))


def _lag(row: Mapping[str, object]) -> float | None:
    found = (row[name] for name in _ANSWERS if row.get(name) is not None)
    return next((float(str(value)) for value in found), None)


def _is_refused(error: DBAPIError) -> bool:
    arguments = error.orig.args if error.orig is not None else ()
    return bool(arguments) and arguments[0] in _REFUSALS
