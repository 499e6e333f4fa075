"""Refreshes one batch: its people, their facts, and the queue that applies them."""

from collections import defaultdict
from collections.abc import Set
from dataclasses import replace

from dialler.model.v1.facts_pb2 import UserFacts

from servicekit import messaging, telemetry
from servicekit.clock import Clock
from servicekit.spans import Kind
from services.cdc_ingest.domain.backlog import MessageTicket, RefreshBatch
from services.cdc_ingest.domain.messages import ChangeTimes, oldest
from services.cdc_ingest.domain.people import Key, RowKey, people_of
from services.cdc_ingest.metrics import PipelineMetrics
from services.cdc_ingest.refresh.readings import FactsReading
from services.cdc_ingest.refresh.upstreams import Upstreams

_QUEUE_IDS_END = 2**63


class Refresher:
    """Finds the people of a batch, has their facts read, and has the queue apply them."""

    def __init__(
        self,
        upstreams: Upstreams,
        pipeline_metrics: PipelineMetrics,
        clock: Clock,
        *,
        batch_users: int,
        destination: str,
    ) -> None:
        self._upstreams = upstreams
        self._metrics = pipeline_metrics
        self._clock = clock
        self._batch_users = batch_users
        self._destination = destination

    async def refresh(self, batch: RefreshBatch) -> FactsReading:
        """Refresh all people of the batch and return their reading.

        After a failure some people may be done, which is harmless.

        Raises:
            ServiceError: the error of another service.
        """
        messages = [ticket.message for ticket in batch.tickets()]
        attributes = messaging.described(
            "aws_sqs", "process", "process", self._destination, len(messages)
        )
        attributes |= {"dialler.lane": batch.lane.value, "dialler.keys": len(batch.waiting)}
        span = telemetry.shared(
            f"process {self._destination}",
            [message.traceparent for message in messages],
            kind=Kind.CONSUMER,
            attributes=attributes,
        )
        # The span continues the trace of one message, and links those of the others.
        with span:
            times, counted = await self._people(batch)
            people = sorted(times)
            facts: list[UserFacts] = []
            executed: set[str] = set()
            for start in range(0, len(people), self._batch_users):
                part = people[start : start + self._batch_users]
                refreshed = await self._upstreams.refresh(part)
                # The queue holds ids of 63 bits. A signed column with -1 for "no owner" leads to a
                # larger one, of no user, where a format writes large numbers as negative.
                applicable = [
                    each for each in refreshed.facts if each.exists or each.user_id < _QUEUE_IDS_END
                ]
                part_times = {each.user_id: times[each.user_id] for each in applicable}
                await self._upstreams.apply(replace(refreshed, facts=applicable), part_times)
                facts.extend(refreshed.facts)
                executed.add(refreshed.executed_gtids)
                applied_at = self._clock.now()
                for user_id, each_times in part_times.items():
                    if user_id in counted:
                        self._metrics.applied(each_times, refreshed.refreshed_at, applied_at)
            # Parts may be read from several servers, or at several moments.
            return FactsReading(facts, executed.pop() if len(executed) == 1 else "")

    async def probe(self) -> None:
        """Raise `ServiceError` unless user_context and the queue are available."""
        await self._upstreams.probe()

    async def ask_full_run(self, ticket: MessageTicket, reason: str) -> bool:
        """Ask for a full run on behalf of a message; False when there is no reconciler."""
        with telemetry.span("full_run", parent=telemetry.extract(ticket.message.traceparent)):
            return await self._upstreams.ask_full_run(reason)

    async def _people(self, batch: RefreshBatch) -> tuple[dict[int, ChangeTimes], Set[int]]:
        """Return the people of a batch, each with the times of the oldest change.

        The second part holds the people whose latency counts: not those that are only read once
        more, as that reading does not show how long the change took.
        """
        causes: defaultdict[int, list[ChangeTimes]] = defaultdict(list)
        rows: list[RowKey] = []
        rechecked: set[int] = set()
        for key, tickets in batch.waiting.items():
            if isinstance(key, RowKey):
                rows.append(key)
                continue
            causes[key].extend(ticket.times for ticket in tickets)
            if all(key in ticket.rechecked for ticket in tickets):
                rechecked.add(key)
        owners: dict[RowKey, set[Key]] = {}
        for ticket in batch.tickets() if rows else ():
            for row, keys in ticket.owners.items():
                owners.setdefault(row, set()).update(keys)
        asked: dict[RowKey, list[ChangeTimes]] = {}
        for row in rows:
            times = [ticket.times for ticket in batch.waiting[row]]
            users, unknown = people_of([row], owners)
            rechecked -= users
            for user_id in users:
                causes[user_id].extend(times)
            for each in unknown:
                asked.setdefault(each, []).extend(times)
        if asked:
            # The answer does not map rows to people: the oldest times count for all of them.
            oldest_times = oldest(each for times in asked.values() for each in times)
            resolved = await self._upstreams.resolve(asked)
            rechecked -= resolved
            for user_id in resolved:
                causes[user_id].append(oldest_times)
        times_of = {user_id: oldest(each) for user_id, each in causes.items()}
        return times_of, times_of.keys() - rechecked
