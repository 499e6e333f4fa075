"""Figures of the queue for operators, kept up to date."""

from datetime import datetime

from services.queue import metrics
from services.queue.store import outbox, reading
from services.queue.store.database import Database


class Gauges:
    """Counts who stands where, and what waits to be delivered."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run_once(self, now: datetime) -> None:
        """Count once."""
        async with self._database.statements() as tx:
            events, notices = await outbox.lengths(tx)
            places = await reading.place_figures(tx)
            oldest_seconds = await reading.oldest_snapshot_seconds(tx)
        metrics.OLDEST_SNAPSHOT_SECONDS.set(oldest_seconds)
        metrics.OUTBOX_LENGTH.labels("events").set(events)
        metrics.OUTBOX_LENGTH.labels("notices").set(notices)
        metrics.PEOPLE.clear()
        for it in places:
            why = it.hold.name.lower() if it.hold is not None else (it.reason or "").lower()
            state = it.state.seen_outside.name.lower()
            metrics.PEOPLE.labels(it.queue.name.lower(), state, why).inc(it.people)
