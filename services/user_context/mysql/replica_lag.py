"""How far the server that is read is behind its source, where the server says so."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from servicekit.clock import Clock
from services.user_context import metrics
from services.user_context.mysql.snapshots import main_app_errors

# MySQL from 8.0.22 and MariaDB from 10.5 know the first; the second is for older servers.
_QUESTIONS = ("SHOW REPLICA STATUS", "SHOW SLAVE STATUS")
_SECONDS_BEHIND = ("Seconds_Behind_Source", "Seconds_Behind_Master")
_RUNNING = ("Replica_IO_Running", "Replica_SQL_Running", "Slave_IO_Running", "Slave_SQL_Running")
# Errors for a statement that the server does not know, or does not allow.
_REFUSALS = frozenset({1044, 1064, 1142, 1227})

_ASK_SECONDS = 2.0

_log = logging.getLogger(__name__)


class ReplicaLag:
    """Says whether the replica is too far behind to be given more work.

    Asking needs a privilege (REPLICATION CLIENT; REPLICA MONITOR on MariaDB) that nothing else in
    this service needs: without it, lag is never seen.
    """

    def __init__(self, engine: AsyncEngine, clock: Clock, most_seconds: float) -> None:
        self._engine = engine
        self._clock = clock
        self._most_seconds = most_seconds
        self._questions = list(_QUESTIONS) if most_seconds else []
        self._asked_at: float | None = None
        self._is_too_long = False

    async def run_once(self, now: datetime) -> None:
        """Ask for the lag, so that the metrics are current while no table is read in chunks."""
        await self.is_too_long()

    async def is_too_long(self) -> bool:
        """Return whether the replica is further behind than it may be while it gets more work.

        Asks every two seconds at most. A replica that has stopped following reports no lag: pausing
        would not help it, and a metric shows it. Raises Unavailable (MAIN_APP_UNAVAILABLE).
        """
        now = self._clock.monotonic()
        if self._asked_at is None or now - self._asked_at >= _ASK_SECONDS:
            self._asked_at = now
            seconds = await self._seconds_behind()
            self._is_too_long = seconds is not None and seconds > self._most_seconds
            if seconds is not None:
                metrics.REPLICA_LAG.set(seconds)
        return self._is_too_long

    async def _seconds_behind(self) -> float | None:
        """Return the lag; None when the server is no replica, has stopped or does not say."""
        while self._questions:
            question = self._questions[0]
            with main_app_errors():
                async with self._engine.connect() as connection:
                    try:
                        result = await connection.execute(sa.text(question))
                    except DBAPIError as error:
                        arguments = error.orig.args if error.orig is not None else ()
                        if not arguments or arguments[0] not in _REFUSALS:
                            raise
                        # Another caller may have been refused it meanwhile.
                        if question in self._questions:
                            self._questions.remove(question)
                            _log.info("replica_lag_unknown", extra={"asked": question})
                        continue
                    status: Mapping[Any, Any] = result.mappings().first() or {}
                    running = [str(status[name]) for name in _RUNNING if name in status]
                    metrics.REPLICA_STOPPED.set(any(state != "Yes" for state in running))
                    found = (status.get(name) for name in _SECONDS_BEHIND)
                    return next((float(str(value)) for value in found if value is not None), None)
        return None
