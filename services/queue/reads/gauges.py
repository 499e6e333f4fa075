"""Figures of the queue for operators, kept up to date."""

from datetime import datetime, timedelta

from services.queue import metrics
from services.queue.domain.phone_lists import lists_of
from services.queue.people.rulebook import Rulebook
from services.queue.people.time_zones import TimeZones
from services.queue.store import callbacks, outbox, pauses, phone_lists, reading
from services.queue.store.database import Database
from services.queue.types import Queue

# Well after a callback is any agent's, no longer its preferred agent's alone.
_OVERDUE_AFTER = timedelta(minutes=30)


class QueueGauges:
    """Counts users by place, callbacks that are overdue, and what waits in the outboxes."""

    def __init__(self, database: Database, rulebook: Rulebook, time_zones: TimeZones) -> None:
        self._database = database
        self._rulebook = rulebook
        self._time_zones = time_zones

    async def run_once(self, now: datetime) -> None:
        """Count once, and set the gauges."""
        hours = self._rulebook.placement.calling_hours
        open_zones = hours.open_zones(now, await self._time_zones.current())
        async with self._database.statements() as tx:
            events, notifications = await outbox.lengths(tx)
            places = await reading.place_figures(tx)
            oldest_seconds = await reading.oldest_snapshot_seconds(tx)
            editions = await phone_lists.in_force(tx)
            paused = await pauses.in_force(tx, now)
            overdue = await callbacks.overdue(
                tx,
                now - _OVERDUE_AFTER,
                is_usual_zone_open=hours.are_open(now),
                open_zones=open_zones,
            )
        metrics.OLDEST_SNAPSHOT_SECONDS.set(oldest_seconds)
        for queue in Queue:
            is_paused = any(it.covers(queue) for it in paused)
            metrics.PAUSED.labels(queue.name.lower()).set(is_paused)
            if queue is Queue.CALLBACKS and is_paused:
                # No agent is late with callbacks that a supervisor has paused.
                overdue = 0
        metrics.CALLBACKS_OVERDUE.set(overdue)
        oldest_days = self._rulebook.placement.rules.phone_lists.oldest_days
        old = sum(it.is_old for it in lists_of(editions, oldest_days, now))
        metrics.PHONE_LISTS_OLD.set(old)
        metrics.OUTBOX_LENGTH.labels("events").set(events)
        metrics.OUTBOX_LENGTH.labels("notices").set(notifications)
        metrics.PEOPLE.clear()
        for it in places:
            why = it.hold.name.lower() if it.hold is not None else (it.reason or "").lower()
            state = it.state.seen_outside.name.lower()
            metrics.PEOPLE.labels(it.queue.name.lower(), state, why).inc(it.people)
