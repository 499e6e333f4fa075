"""Enters again what the log has of the time that a restore of PostgreSQL has lost."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from servicekit.clock import Clock
from servicekit.errors import NotFound, ServiceError
from services.queue.calls.leases import Leases
from services.queue.calls.outcomes import Outcomes
from services.queue.calls.suppressions import Suppressions
from services.queue.domain.outcomes import CallReport
from services.queue.people.refreshing import Refreshing
from services.queue.store import assignments, audit
from services.queue.store.database import Database
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.types import Action, AgentId, ContactBlock, Outcome, UserId

NOTES = "Entered again from the log after a restore; the agent's own notes are lost."
# A callback whose time has come meanwhile is agreed for as soon as may be.
_SOON = timedelta(minutes=1)
_PEOPLE_AT_ONCE = 200
# Assignments that ended like this were no calls.
_NO_CALL = (Action.RELEASED, Action.SKIPPED)


@dataclass(frozen=True, slots=True)
class Deed:
    """What an actor did, as `audit.log` has written it."""

    at: datetime
    actor_id: AgentId
    action: Action
    user_id: UserId | None
    details: Mapping[str, str]

    @property
    def assignment_id(self) -> UUID | None:
        """The assignment in question, if there is one."""
        given = self.details.get("assignment_id")
        return None if given is None else UUID(given)


@dataclass(slots=True)
class Recovered:
    """How many deeds the database had, what was entered again, and what people have to enter."""

    known: int = 0
    calls: int = 0
    outcomes: int = 0
    objections: int = 0
    no_calls: int = 0
    by_hand: list[tuple[Deed, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ExportedObjection:
    """An objection of an export: of a person, with the numbers of then, or of a bare number."""

    suppression_id: str
    user_id: UserId | None
    phones: Sequence[str]
    actor_id: AgentId
    notes: str
    kind: ContactBlock = ContactBlock.DO_NOT_CONTACT


def objections_in(lines: Iterable[str]) -> list[ExportedObjection]:
    """Return the objections of an export's lines; raises ValueError when they are no export."""
    rows: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(lines):
        rows.setdefault(row.get("suppression_id") or "", []).append(row)
    try:
        return [
            ExportedObjection(
                suppression_id,
                UserId(int(its[0]["user_id"])) if its[0]["user_id"] else None,
                [it["phone"] for it in its if it["phone"]],
                AgentId(its[0]["created_by"]),
                its[0]["notes"],
                _kind_of(its[0].get("kind")),
            )
            for suppression_id, its in rows.items()
        ]
    except (KeyError, TypeError, ValueError):
        raise ValueError("not an export of objections") from None


def deeds_in(lines: Iterable[str]) -> Iterator[Deed]:
    """Yield the deeds in a log's lines, whatever a collector has put before each; skips others."""
    for line in lines:
        start = line.find("{")
        if start < 0 or '"event":"audit"' not in line:
            continue
        try:
            read = json.loads(line[start:])
            yield Deed(
                at=datetime.fromisoformat(read["at"]),
                actor_id=AgentId(read["actor_id"]),
                action=Action(read["action"]),
                user_id=None if read["user_id"] is None else UserId(read["user_id"]),
                details=read["details"],
            )
        except (ValueError, KeyError, TypeError):
            continue


class Recovery:
    """Enters deeds again before any queue serves; a repeat changes nothing.

    A call is entered as one without a report that ends now, so that the person rests and it counts
    for all caps; then its report, if the log has it, as of now.
    """

    def __init__(
        self,
        database: Database,
        leases: Leases,
        outcomes: Outcomes,
        suppressions: Suppressions,
        refreshing: Refreshing,
        clock: Clock,
    ) -> None:
        self._database = database
        self._refreshing = refreshing
        self._leases = leases
        self._outcomes = outcomes
        self._suppressions = suppressions
        self._clock = clock

    async def run(self, deeds: Iterable[Deed]) -> Recovered:
        """Enter all that the database lacks, in the order of time.

        The people's facts are brought up to date before: a case that was opened in the lost time
        would begin afresh after the call that belongs to it, and the person be called again.
        Raises Unavailable when user_context or the main app cannot be asked.
        """
        ordered = sorted(deeds, key=lambda it: it.at)
        user_ids = sorted({it.user_id for it in ordered if it.user_id is not None})
        for start in range(0, len(user_ids), _PEOPLE_AT_ONCE):
            await self._refreshing.refresh(user_ids[start : start + _PEOPLE_AT_ONCE])
        no_calls = {it.assignment_id for it in ordered if it.action in _NO_CALL}
        recovered = Recovered()
        for deed in ordered:
            try:
                await self._enter(deed, recovered, is_no_call=deed.assignment_id in no_calls)
            except ServiceError as error:
                recovered.by_hand.append((deed, error.reason))
        return recovered

    async def enter_objections(
        self, objections: Iterable[ExportedObjection]
    ) -> list[tuple[ExportedObjection, str]]:
        """Enter those that are not in force; returns those that failed, with the reason."""
        failed = []
        for it in objections:
            try:
                await self._object(it)
            except ServiceError as error:
                failed.append((it, error.reason))
        return failed

    async def _object(self, it: ExportedObjection) -> None:
        bare: Sequence[str] = it.phones
        if it.user_id is not None:
            # The main app may have lost the person; the numbers are not to be called even so.
            with suppress(NotFound):
                request = _request(it.actor_id)
                await self._suppressions.suppress(request, it.user_id, it.notes, it.phones, it.kind)
                bare = ()
        for phone in bare:
            await self._suppressions.suppress_number(_request(it.actor_id), phone, it.notes)

    async def _enter(self, deed: Deed, recovered: Recovered, *, is_no_call: bool) -> None:
        if await self._is_known(deed):
            recovered.known += 1
        elif deed.action is Action.HANDED_OUT and deed.user_id and deed.assignment_id:
            if is_no_call:
                recovered.no_calls += 1
            else:
                recovered.calls += await self._leases.enter_lost_call(
                    deed.assignment_id, deed.actor_id, deed.user_id, deed.at
                )
        elif deed.action is Action.OUTCOME_RECORDED and deed.assignment_id:
            await self._outcomes.record(
                deed.assignment_id, _request(deed.actor_id), self._report(deed)
            )
            recovered.outcomes += 1
        elif deed.action is Action.SUPPRESSED and deed.user_id:
            kind = _kind_of(deed.details.get("kind"))
            await self._suppressions.suppress(
                _request(deed.actor_id), deed.user_id, NOTES, kind=kind
            )
            recovered.objections += 1
        elif deed.action in _NO_CALL:
            recovered.no_calls += 1
        else:
            recovered.by_hand.append((deed, "ENTER_BY_HAND"))

    async def _is_known(self, deed: Deed) -> bool:
        async with self._database.statements() as tx:
            if deed.action is Action.OUTCOME_RECORDED and deed.assignment_id:
                attempt = await assignments.attempt_of(tx, deed.assignment_id)
                return attempt is not None and attempt.report is not None
            return await audit.is_noted(tx, deed.actor_id, deed.action, deed.user_id, deed.at)

    def _report(self, deed: Deed) -> CallReport:
        agreed = deed.details.get("callback_at")
        callback_at = None
        if agreed is not None:
            callback_at = max(datetime.fromisoformat(agreed), self._clock.now() + _SOON)
        outcome, disposition = Outcome[deed.details["outcome"].upper()], "disposition"
        return CallReport(outcome, NOTES, callback_at, deed.details.get(disposition))


def _kind_of(name: str | None) -> ContactBlock:
    """Return the kind of an objection by its name; an ordinary one has none."""
    return ContactBlock.DECEASED if name == "deceased" else ContactBlock.DO_NOT_CONTACT


def _request(actor_id: AgentId) -> IdempotentRequest:
    return IdempotentRequest(actor_id, uuid4(), "recover", b"")
