"""Everything that happens to one batch between being taken up and being done."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from contextlib import AbstractContextManager

from dialler.model.v1.facts_pb2 import UserFacts

from servicekit import messaging, telemetry
from servicekit.clock import Clock
from servicekit.spans import Kind, Span
from services.cdc_ingest.domain.backlog import Batch, Ticket
from services.cdc_ingest.domain.messages import ChangeTimes, oldest
from services.cdc_ingest.domain.people import Key, RowKey, place
from services.cdc_ingest.metrics import Ledger
from services.cdc_ingest.readings import FactsReading
from services.cdc_ingest.upstreams import Upstreams


class Refresher:
    """Finds the people of a batch, has them read anew, and has the queue apply their facts."""

    def __init__(
        self,
        upstreams: Upstreams,
        ledger: Ledger,
        clock: Clock,
        *,
        batch_users: int,
        destination: str,
    ) -> None:
        self._upstreams = upstreams
        self._ledger = ledger
        self._clock = clock
        self._batch_users = batch_users
        self._destination = destination

    async def refresh(self, batch: Batch) -> FactsReading:
        """Refresh everybody in the batch and return what was read of them.

        A failure may leave some of them done, which is harmless.

        Raises:
            ServiceError: what the other services answer.
        """
        with self._span(batch):
            people, counted = await self._people(batch)
            return await self._refresh(people, counted)

    async def probe(self) -> None:
        """Raise what a call that does nearly nothing raises."""
        await self._upstreams.probe()

    async def ask_full_run(self, ticket: Ticket, reason: str) -> bool:
        """Ask for a full run on behalf of a message; False when there is nobody to ask."""
        with telemetry.span("full_run", parent=telemetry.extract(ticket.message.traceparent)):
            return await self._upstreams.ask_full_run(reason)

    def _span(self, batch: Batch) -> AbstractContextManager[Span]:
        """Continue the trace of a message, linked with those of the others in the batch."""
        messages = [ticket.message for ticket in batch.tickets()]
        attributes = messaging.described(
            "aws_sqs", "process", "process", self._destination, len(messages)
        )
        attributes |= {"dialler.lane": batch.lane.value, "dialler.keys": len(batch.waiting)}
        return telemetry.shared(
            f"process {self._destination}",
            [message.traceparent for message in messages],
            kind=Kind.CONSUMER,
            attributes=attributes,
        )

    async def _refresh(self, times: Mapping[int, ChangeTimes], counted: Set[int]) -> FactsReading:
        people = sorted(times)
        facts: list[UserFacts] = []
        for start in range(0, len(people), self._batch_users):
            part = people[start : start + self._batch_users]
            refreshed = await self._upstreams.refresh(part)
            part_times = {user_id: times[user_id] for user_id in part}
            await self._upstreams.apply(refreshed, part_times)
            facts.extend(refreshed.facts)
            applied_at = self._clock.now()
            for user_id, each in part_times.items():
                if user_id in counted:
                    self._ledger.applied(each, refreshed.refreshed_at, applied_at)
        return FactsReading(facts)

    async def _people(self, batch: Batch) -> tuple[dict[int, ChangeTimes], Set[int]]:
        """Return the people of a batch, each with the times of the oldest change.

        And those whose latency counts: a second reading to be sure is not how long a change took.
        """
        causes: defaultdict[int, list[ChangeTimes]] = defaultdict(list)
        rows: list[RowKey] = []
        sure: set[int] = set()
        for key, tickets in batch.waiting.items():
            if isinstance(key, RowKey):
                rows.append(key)
                continue
            causes[key].extend(ticket.times for ticket in tickets)
            if all(key in ticket.second for ticket in tickets):
                sure.add(key)
        if rows:
            sure -= await self._add_people_of(rows, batch, causes)
        return {user_id: oldest(each) for user_id, each in causes.items()}, causes.keys() - sure

    async def _add_people_of(
        self, rows: Iterable[RowKey], batch: Batch, causes: defaultdict[int, list[ChangeTimes]]
    ) -> set[int]:
        """Add whom the rows lead to, and return them."""
        owners = _owners(batch)
        found: set[int] = set()
        asked: dict[RowKey, list[ChangeTimes]] = {}
        for row in rows:
            times = [ticket.times for ticket in batch.waiting[row]]
            users, unknown = place([row], owners)
            found |= users
            for user_id in users:
                causes[user_id].extend(times)
            for each in unknown:
                asked.setdefault(each, []).extend(times)
        if asked:
            # The answer does not say which row led to whom: the oldest time stands for all.
            stand_in = oldest(each for times in asked.values() for each in times)
            resolved = await self._upstreams.resolve(asked)
            found |= resolved
            for user_id in resolved:
                causes[user_id].append(stand_in)
        return found


def _owners(batch: Batch) -> Mapping[RowKey, set[Key]]:
    owners: dict[RowKey, set[Key]] = {}
    for ticket in batch.tickets():
        for row, keys in ticket.owners.items():
            owners.setdefault(row, set()).update(keys)
    return owners
