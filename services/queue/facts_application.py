"""Bringing people in line with their facts, many at a time."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dialler.model.v1 import change_pb2, event_pb2

from servicekit import telemetry
from servicekit.clock import Clock
from services.queue import messages, metrics
from services.queue.domain.assessment import Assessment
from services.queue.domain.entries import Application, Entry, PhoneStanding, Placement, phone_after
from services.queue.domain.terms import Conversion, UserId
from services.queue.requests import FactsUpdate
from services.queue.rulebook import Rulebook
from services.queue.store import applied_facts, assignments, entries, outbox, suppressions
from services.queue.store.database import Database, Transaction
from services.queue.store.entries import ConversionRow

_log = logging.getLogger(__name__)

# The change that led to each person's facts; none for those swept.
Timelines = Mapping[UserId, change_pb2.ChangeTimeline | None]


@dataclass(frozen=True, slots=True)
class FactsApplied:
    """How many people were brought in line, had newer facts, moved, converted."""

    applied: int
    outdated: int
    moved: int
    conversions: int


class FactsApplication:
    """Applies facts; of two readings of a person the later wins, in whatever order they come."""

    def __init__(
        self, database: Database, rulebook: Rulebook, clock: Clock, posted: Callable[[], None]
    ) -> None:
        """`posted` is called after every commit that leaves something in an outbox."""
        self._database = database
        self._rulebook = rulebook
        self._clock = clock
        self._posted = posted

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
    ) -> FactsApplied:
        """Apply what the facts of different people come to, in one transaction."""
        if not assessments:
            return FactsApplied(0, 0, 0, 0)
        by_id = {it.user_id: it for it in assessments}
        result = await self._in_transaction(by_id, timelines, placement, now)
        self._posted()
        metrics.FACTS.labels("applied").inc(result.applied)
        metrics.FACTS.labels("outdated").inc(result.outdated)
        return result

    async def _in_transaction(
        self,
        by_id: dict[UserId, Assessment],
        timelines: Timelines,
        placement: Placement,
        now: datetime,
    ) -> FactsApplied:
        user_ids = sorted(by_id)
        async with self._database.transaction() as tx:
            await entries.guard_newcomers(tx, user_ids)
            known = await entries.lock(tx, user_ids)
            held = await assignments.held_among(tx, _handed_out(known))
            later = [
                by_id[user_id]
                for user_id in user_ids
                if user_id not in known
                or known[user_id].facts_version < by_id[user_id].facts_version
            ]
            altered = await _as_applied(tx, known, later)
            known |= altered
            phones = await _other_numbers(tx, known, later, placement, now)
            applications = [
                placement.apply_facts(known.get(it.user_id), it, now, phones.get(it.user_id))
                for it in later
            ]
            applications = [_freed(it, held, placement, now) for it in applications]
            await self._write(tx, applications, altered)
            await applied_facts.note(
                tx,
                [
                    applied_facts.noted(
                        it.before, it.after, by_id[it.after.user_id].row_fingerprints
                    )
                    for it in applications
                ],
                now,
            )
            conversions = await self._convert(tx, applications, now)
            await outbox.post(tx, _events(applications, timelines, conversions, now))
        return FactsApplied(
            applied=len(applications),
            outdated=len(by_id) - len(applications),
            moved=sum(it.is_moved for it in applications),
            conversions=len(conversions),
        )

    async def _write(
        self, tx: Transaction, applications: Sequence[Application], altered: Collection[UserId]
    ) -> None:
        new: list[Entry] = []
        same: list[Entry] = []
        changed: list[Entry] = []
        for it in applications:
            if it.before is None:
                new.append(it.after)
            elif it.after.user_id not in altered and entries.differ_in_facts_alone(
                it.before, it.after
            ):
                same.append(it.after)
            else:
                changed.append(it.after)
        await entries.insert(tx, new)
        await entries.update_facts(tx, same)
        await entries.update(tx, changed)

    async def _convert(
        self, tx: Transaction, applications: Sequence[Application], now: datetime
    ) -> dict[UserId, Conversion]:
        rows = [row for it in applications if (row := _conversion_row(it)) is not None]
        recorded = await entries.insert_conversions(tx, rows, now)
        for row in rows:
            if row.user_id in recorded:
                metrics.CONVERSIONS.labels(row.conversion.name.lower()).inc()
        return {row.user_id: row.conversion for row in rows if row.user_id in recorded}


async def _as_applied(
    tx: Transaction, known: Mapping[UserId, Entry], later: Sequence[Assessment]
) -> dict[UserId, Entry]:
    """Return those whose record was altered behind our back, with their matter as it was applied.

    Else a matter would seem to end that was not open, or to open that was; one that is not known
    is taken for the one there is now.
    """
    owed = {it.user_id: it.verdict.owes for it in later if it.user_id in known}
    matters = await applied_facts.in_doubt(tx, list(owed)) if owed else {}
    restored = {}
    for user_id, matter in matters.items():
        _log.warning("entry_altered", extra={"user_id": user_id})
        entry = known[user_id]
        owes, stay = (owed[user_id], entry.stay) if matter is None else matter
        restored[user_id] = entry._replace(owes=owes, stay=stay)
    return restored


def _handed_out(known: Mapping[UserId, Entry]) -> list[UserId]:
    return [it.user_id for it in known.values() if not it.is_ours_to_place]


def _freed(
    application: Application, held: Collection[UserId], placement: Placement, now: datetime
) -> Application:
    """Let go of somebody whom nobody holds, though their entry says so."""
    after = application.after
    if after.is_ours_to_place or after.user_id in held:
        return application
    return replace(application, after=placement.settled(after, now))


async def _other_numbers(
    tx: Transaction,
    known: Mapping[UserId, Entry],
    later: Sequence[Assessment],
    placement: Placement,
    now: datetime,
) -> dict[UserId, PhoneStanding]:
    """Return the standing of each number that is new to its person."""
    people: list[tuple[UserId, str]] = []
    for it in later:
        before = known.get(it.user_id)
        phone = phone_after(before, it)
        if phone is not None and (before is None or before.phone_e164 != phone):
            people.append((it.user_id, phone))
    return await suppressions.standings(tx, people, now - placement.shared_phone_rest)


def _conversion_row(application: Application) -> ConversionRow | None:
    before = application.before
    if application.conversion is None or before is None or before.owes is None:
        return None
    # Whoever holds the person is speaking to them.
    agent_id = before.agent_id or before.last_agent_id
    return ConversionRow(before.user_id, before.stay, before.owes, application.conversion, agent_id)


def _events(
    applications: Sequence[Application],
    timelines: Timelines,
    conversions: dict[UserId, Conversion],
    now: datetime,
) -> list[bytes]:
    traceparent = telemetry.inject()
    events: list[bytes] = []
    for it in applications:
        user_id = it.after.user_id
        timeline = timelines.get(user_id)
        events += messages.fact_events(it, timeline, traceparent, now)
        if user_id in conversions and it.before is not None:
            events.append(
                messages.event(
                    event_pb2.EVENT_TYPE_CONVERSION_RECORDED,
                    it.before,
                    it.after,
                    now,
                    traceparent,
                    timeline,
                    agent_id=it.before.agent_id or it.before.last_agent_id,
                    conversion=conversions[user_id],
                )
            )
    return events
