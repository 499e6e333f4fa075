"""Applies facts to the entries of many people at a time."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dialler.model.v1 import change_pb2, event_pb2

from servicekit import telemetry
from servicekit.clock import Clock
from services.queue import metrics
from services.queue.domain.assessment import Assessment
from services.queue.domain.entries import Application, Entry, Placement
from services.queue.people.placing import Moved, notify_holders
from services.queue.people.rulebook import Rulebook
from services.queue.store import (
    applied_facts,
    applying,
    entries,
    outbox,
    suppressions,
)
from services.queue.store.applying import Reading
from services.queue.store.database import Database, Transaction
from services.queue.store.entries import ConversionRow
from services.queue.store.writing import Write, together
from services.queue.types import OBJECTIONS, UserId
from services.queue.wire import messages
from services.queue.wire.requests import FactsUpdate

_log = logging.getLogger(__name__)

# The change that led to each person's facts; None when a sweep read them.
Timelines = Mapping[UserId, change_pb2.ChangeTimeline | None]
First = Callable[[Transaction], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class FactsApplied:
    """How many people facts were applied to, had newer facts, moved, converted."""

    applied: int
    outdated: int
    moved: int
    conversions: int


class FactsApplication:
    """Applies facts; of two readings of a person the later wins, in whatever order they come."""

    def __init__(self, database: Database, rulebook: Rulebook, clock: Clock) -> None:
        self._database = database
        self._rulebook = rulebook
        self._clock = clock

    async def apply(self, updates: Sequence[FactsUpdate]) -> FactsApplied:
        """Apply facts of different people in one transaction.

        The number of statements does not depend on the number of people.
        """
        placement, now = self._rulebook.placement, self._clock.now()
        assessments = [placement.assessor.assess(it.facts, now) for it in updates]
        timelines = {it.facts.user_id: it.timeline for it in updates}
        return await self.apply_assessed(assessments, timelines, placement, now)

    async def apply_assessed(
        self,
        assessments: Sequence[Assessment],
        timelines: Timelines,
        placement: Placement,
        now: datetime,
        first: First | None = None,
    ) -> FactsApplied:
        """Apply assessments of different people in one transaction.

        `first` is awaited at its beginning, and what it raises leaves everything as it was.
        """
        if not assessments:
            return FactsApplied(0, 0, 0, 0)
        by_id = {it.user_id: it for it in assessments}
        async with self._database.transaction() as tx:
            if first is not None:
                await first(tx)
            known = await applying.lock(tx, sorted(by_id))
            later = [
                assessed
                for user_id, assessed in sorted(by_id.items())
                if user_id not in known or known[user_id].facts_version < assessed.facts_version
            ]
            reading = await _read(tx, known, later, placement, now)
            altered = _as_applied(reading, known, later)
            applications = _applications(known | altered, later, reading, placement, now)
            conversions = await _convert(tx, applications, placement, now)
            async with together(tx):
                await _write(tx, applications, altered, by_id, now)
                # A person who is held may have got a number that another person objected to.
                moved = [Moved(it.before, it.after) for it in applications if it.before is not None]
                await notify_holders(tx, moved, now)
                await outbox.post(tx, _events(applications, timelines, conversions, now))
            # Objections that were recorded before the person was known stop the person's numbers.
            objecting = [
                it.after.user_id
                for it in applications
                if it.before is None and it.after.block & OBJECTIONS
            ]
            if objecting:
                await suppressions.cover_numbers(tx, objecting)
        outdated = len(by_id) - len(applications)
        metrics.FACTS.labels("applied").inc(len(applications))
        metrics.FACTS.labels("outdated").inc(outdated)
        return FactsApplied(
            applied=len(applications),
            outdated=outdated,
            moved=sum(it.is_moved for it in applications),
            conversions=len(conversions),
        )


async def _read(
    tx: Transaction,
    known: Mapping[UserId, Entry],
    later: Sequence[Assessment],
    placement: Placement,
    now: datetime,
) -> Reading:
    """Read what the facts are judged by, and note the numbers of people who have other ones.

    All numbers of an altered entry are noted: the record of its numbers may be wrong, too.
    """
    if not later:
        return Reading({}, frozenset(), {})
    user_ids = [it.user_id for it in later if it.user_id in known]
    renumbered = [it for it in later if _phones_of(known.get(it.user_id)) != it.phones]

    async def renumber(user_ids: Sequence[UserId], people: Sequence[Assessment]) -> Reading:
        return await applying.read_and_renumber(
            tx,
            user_ids,
            [
                (it.user_id, phone)
                for it in people
                for phone in set(_phones_of(known.get(it.user_id)) or ()).difference(it.phones)
            ],
            [(it.user_id, it.phones) for it in people],
            placeholder_people=placement.rules.calls.placeholder_people,
            calls_since=now - placement.calls_kept,
        )

    if not renumbered:
        reading = await applying.read(tx, user_ids)
    else:
        reading = await renumber(user_ids, renumbered)
    if reading.in_doubt:
        await renumber([], [it for it in later if it.user_id in reading.in_doubt])
    return reading


def _phones_of(entry: Entry | None) -> tuple[str, ...] | None:
    return None if entry is None else entry.phones


def _as_applied(
    reading: Reading, known: Mapping[UserId, Entry], later: Sequence[Assessment]
) -> dict[UserId, Entry]:
    """Return the entries that were altered by hand, each with its case as it was applied.

    Else a case would seem to end that was not open, or to open that was; a case that is not known
    is taken for the present one.
    """
    restored = {}
    for it in later:
        if it.user_id not in reading.in_doubt:
            continue
        _log.warning("entry_altered", extra={"user_id": it.user_id})
        entry, case = known[it.user_id], reading.in_doubt[it.user_id]
        queue, number = case or (it.verdict.open_case_queue, entry.case_number)
        restored[it.user_id] = entry._replace(open_case_queue=queue, case_number=number)
    return restored


def _applications(
    known: Mapping[UserId, Entry],
    later: Sequence[Assessment],
    reading: Reading,
    placement: Placement,
    now: datetime,
) -> list[Application]:
    applications = []
    for it in later:
        before, status = known.get(it.user_id), reading.statuses.get(it.user_id)
        application = placement.apply_facts(before, it, now, status)
        after = application.after
        if not after.is_unassigned and after.user_id not in reading.held:
            # The entry says that an agent holds the person, and there is no assignment.
            application = replace(application, after=placement.settled(after, now))
        applications.append(application)
    return applications


async def _write(
    tx: Transaction,
    applications: Sequence[Application],
    altered: Collection[UserId],
    assessments: Mapping[UserId, Assessment],
    now: datetime,
) -> None:
    """Write the entries, those with later facts alone without touching their indexes.

    What was applied is noted with each.
    """
    written: dict[Write, list[Application]] = {}
    for it in applications:
        before, after = it.before, it.after
        what = entries.UPDATE
        if before is None:
            what = entries.INSERT
        elif after.user_id not in altered and entries.differ_in_facts_alone(before, after):
            what = entries.UPDATE_FACTS
        written.setdefault(what, []).append(it)
    for what, some in written.items():
        await _WRITES[what](tx, [it.after for it in some])
        noted = [
            applied_facts.noted(it.before, it.after, assessments[it.after.user_id]) for it in some
        ]
        await applied_facts.note(tx, what, noted, now)


_WRITES = {
    entries.INSERT: entries.insert,
    entries.UPDATE: entries.update,
    entries.UPDATE_FACTS: entries.update_facts,
}


async def _convert(
    tx: Transaction, applications: Sequence[Application], placement: Placement, now: datetime
) -> dict[UserId, ConversionRow]:
    """Record conversions; returns those that had not been recorded before.

    A conversion is credited to the agent who has spoken with the person of late. An agent who holds
    the person now is credited once the outcome says that they spoke.
    """
    credited_since = now - timedelta(days=placement.rules.calls.conversion_credit_days)
    rows = []
    for it in applications:
        before = it.before
        if it.conversion is None or before is None or before.open_case_queue is None:
            continue
        spoken_at = before.last_spoken_at
        is_credited = spoken_at is not None and spoken_at > credited_since
        agent_id = before.last_agent_id if is_credited else None
        case = before.user_id, before.case_number, before.open_case_queue
        rows.append(ConversionRow(*case, it.conversion, agent_id, before.claimed_at))
    recorded = await entries.insert_conversions(tx, rows, now)
    new = {row.user_id: row for row in rows if row.user_id in recorded}
    for row in new.values():
        metrics.CONVERSIONS.labels(row.conversion.name.lower()).inc()
    return new


def _events(
    applications: Sequence[Application],
    timelines: Timelines,
    conversions: Mapping[UserId, ConversionRow],
    now: datetime,
) -> list[bytes]:
    """Return the events of facts applied.

    The event of a conversion names the agent who holds the person, whose report decides the credit.
    """
    traceparent = telemetry.inject()
    events: list[bytes] = []
    for it in applications:
        timeline = timelines.get(it.after.user_id)
        events += messages.fact_events(it, timeline, traceparent, now)
        converted = conversions.get(it.after.user_id)
        if converted is not None and it.before is not None:
            events.append(
                messages.event(
                    event_pb2.EVENT_TYPE_CONVERSION_RECORDED,
                    it.before,
                    it.after,
                    now,
                    traceparent,
                    timeline,
                    agent_id=it.before.agent_id or converted.agent_id,
                    conversion=converted.conversion,
                )
            )
    return events
