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
from services.queue.domain.entries import Application, ContactStatus, Entry, Placement
from services.queue.people.placing import Moved, notify_holders
from services.queue.people.rulebook import Rulebook
from services.queue.store import (
    applied_facts,
    assignments,
    contact_status,
    entries,
    outbox,
    person_phones,
    suppressions,
)
from services.queue.store.database import Database, Transaction
from services.queue.store.entries import ConversionRow
from services.queue.types import ContactBlock, UserId
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
        user_ids = sorted(by_id)
        async with self._database.transaction() as tx:
            if first is not None:
                await first(tx)
            await entries.guard_newcomers(tx, user_ids)
            known = await entries.lock(tx, user_ids)
            assigned = [it.user_id for it in known.values() if not it.is_unassigned]
            held = await assignments.held_among(tx, assigned)
            later = [
                by_id[user_id]
                for user_id in user_ids
                if user_id not in known
                or known[user_id].facts_version < by_id[user_id].facts_version
            ]
            altered = await _as_applied(tx, known, later)
            known |= altered
            statuses = await _note_numbers(tx, known, altered, later, placement, now)
            applications = []
            for it in later:
                before, status = known.get(it.user_id), statuses.get(it.user_id)
                application = placement.apply_facts(before, it, now, status)
                after = application.after
                if not after.is_unassigned and after.user_id not in held:
                    # The entry says that an agent holds the person, and there is no assignment.
                    application = replace(application, after=placement.settled(after, now))
                applications.append(application)
            await _write(tx, applications, altered)
            # Objections that were recorded before the person was known stop the person's numbers.
            objecting = [
                it.after.user_id
                for it in applications
                if it.before is None and ContactBlock.DO_NOT_CONTACT in it.after.block
            ]
            if objecting:
                await suppressions.cover_numbers(tx, objecting)
            # A person who is held may have got a number that another person objected to.
            moved = [Moved(it.before, it.after) for it in applications if it.before is not None]
            await notify_holders(tx, moved, now)
            noted = [
                applied_facts.noted(it.before, it.after, by_id[it.after.user_id])
                for it in applications
            ]
            await applied_facts.note(tx, noted, now)
            conversions = await _convert(tx, applications, placement, now)
            await outbox.post(tx, _events(applications, timelines, conversions, now))
        outdated = len(by_id) - len(applications)
        metrics.FACTS.labels("applied").inc(len(applications))
        metrics.FACTS.labels("outdated").inc(outdated)
        return FactsApplied(
            applied=len(applications),
            outdated=outdated,
            moved=sum(it.is_moved for it in applications),
            conversions=len(conversions),
        )


async def _as_applied(
    tx: Transaction, known: Mapping[UserId, Entry], later: Sequence[Assessment]
) -> dict[UserId, Entry]:
    """Return the entries that were altered by hand, each with its case as it was applied.

    Else a case would seem to end that was not open, or to open that was; a case that is not known
    is taken for the present one.
    """
    queues = {it.user_id: it.verdict.open_case_queue for it in later if it.user_id in known}
    cases = await applied_facts.in_doubt(tx, list(queues)) if queues else {}
    restored = {}
    for user_id, case in cases.items():
        _log.warning("entry_altered", extra={"user_id": user_id})
        entry = known[user_id]
        queue, number = (queues[user_id], entry.case_number) if case is None else case
        restored[user_id] = entry._replace(open_case_queue=queue, case_number=number)
    return restored


async def _note_numbers(
    tx: Transaction,
    known: Mapping[UserId, Entry],
    altered: Collection[UserId],
    later: Sequence[Assessment],
    placement: Placement,
    now: datetime,
) -> dict[UserId, ContactStatus]:
    """Note the numbers of people who are new or have other ones; returns their status.

    All numbers of an altered entry are noted: the record of its numbers may be wrong, too.
    """
    removed: set[tuple[UserId, str]] = set()
    added: set[tuple[UserId, str]] = set()
    people: list[tuple[UserId, Sequence[str]]] = []
    for it in later:
        before = known.get(it.user_id)
        is_altered = it.user_id in altered
        if before is not None and before.phones == it.phones and not is_altered:
            continue
        people.append((it.user_id, it.phones))
        had = set() if before is None else {(it.user_id, phone) for phone in before.phones}
        has = {(it.user_id, phone) for phone in it.phones}
        removed |= had - has
        added |= has if is_altered else has - had
    limit = placement.rules.calls.placeholder_people
    await person_phones.change(tx, removed, added, limit)
    return await contact_status.statuses(tx, people, now - placement.calls_kept)


async def _write(
    tx: Transaction, applications: Sequence[Application], altered: Collection[UserId]
) -> None:
    """Write the entries, those with later facts alone without touching their indexes."""
    new: list[Entry] = []
    same: list[Entry] = []
    changed: list[Entry] = []
    for it in applications:
        before, after = it.before, it.after
        if before is None:
            new.append(after)
        elif after.user_id not in altered and entries.differ_in_facts_alone(before, after):
            same.append(after)
        else:
            changed.append(after)
    await entries.insert(tx, new)
    await entries.update_facts(tx, same)
    await entries.update(tx, changed)


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
        rows.append(ConversionRow(*case, it.conversion, agent_id))
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
