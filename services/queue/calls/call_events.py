"""What happens to calls: events of an assignment's call, and calls that we missed."""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import InvalidArgument
from services.queue import metrics
from services.queue.calls.held_assignment import no_such_assignment, require_of_agent
from services.queue.calls.once import once
from services.queue.domain import outcomes
from services.queue.domain.call_events import CallEvent, lease_after
from services.queue.domain.callbacks import Callback
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.outcomes import CallReport
from services.queue.people.placing import Moved, contact_statuses, write_moved
from services.queue.people.rulebook import Rulebook
from services.queue.store import (
    assignments,
    audit,
    call_events,
    callbacks,
    entries,
    person_phones,
    suppressions,
)
from services.queue.store.database import Database, Transaction
from services.queue.store.idempotency_records import IdempotentRequest
from services.queue.types import Action, AgentId, Outcome
from services.queue.wire import messages

# Missed calls are noted once, whichever bridge reports them: their request ids are of no actor.
_MISSED_CALLS = AgentId("missed-calls")


class CallEvents:
    """Notes events of calls, and makes the callbacks of missed ones; durable when answered."""

    def __init__(self, database: Database, rulebook: Rulebook, clock: Clock) -> None:
        self._database = database
        self._rulebook = rulebook
        self._clock = clock

    async def record(
        self, assignment_id: UUID, event: CallEvent, actor_id: AgentId, *, own_only: bool
    ) -> queue_pb2.RecordCallEventResponse:
        """Note an event, and set the lease of a live assignment by all that are known.

        Raises NotFound (ASSIGNMENT_NOT_FOUND), and with `own_only` Conflict (ASSIGNMENT_NOT_YOURS).
        """
        now, rules = self._clock.now(), self._rulebook.rules
        async with self._database.transaction() as tx:
            held = await assignments.lock(tx, assignment_id)
            if held is None:
                raise no_such_assignment()
            if own_only:
                require_of_agent(held, actor_id)
            await call_events.note(tx, assignment_id, event, actor_id)
            if held.is_live(now):
                events = (await call_events.of_assignments(tx, [assignment_id]))[assignment_id]
                until = lease_after(
                    events, event, held.lease_expires_at, held.started_at, rules, now
                )
                await call_events.set_lease(tx, assignment_id, until, now)
                held = replace(held, lease_expires_at=until)
        return queue_pb2.RecordCallEventResponse(
            assignment=messages.assignment_message(held), is_live=held.is_live(now)
        )

    async def missed(
        self, phone: str, missed_at: datetime, actor_id: AgentId
    ) -> queue_pb2.RecordMissedCallResponse:
        """Make the callbacks that the outcome `missed_call` makes, for the people of a number.

        The same number and time again changes nothing. Raises InvalidArgument
        (MISSED_CALL_TOO_OLD) for a call so old that it could be noted twice.
        """
        now, placement = self._clock.now(), self._rulebook.placement
        hours = placement.rules.retention.request_hours
        if missed_at < now - timedelta(hours=hours):
            raise InvalidArgument(
                "MISSED_CALL_TOO_OLD", f"missed calls are noted within {hours:g} hours"
            )
        call_id = uuid5(NAMESPACE_OID, f"{phone} {missed_at.isoformat()}")
        request = IdempotentRequest(_MISSED_CALLS, call_id, "RecordMissedCall", b"")
        made: list[Callback] = []

        async def call_back(tx: Transaction) -> queue_pb2.RecordMissedCallResponse:
            # A number of more people counts as a placeholder, and is no line of any of them.
            most = placement.rules.calls.placeholder_people
            found = await person_phones.people_with(tx, phone, most)
            people = await entries.lock(tx, sorted(found))
            statuses = await contact_statuses(tx, list(people.values()), placement, now)
            open_ = await callbacks.open_of(tx, list(people))
            moved = []
            for user_id, before in people.items():
                entry = placement.with_status(before, statuses[user_id], now)
                callback = open_.get(user_id)
                if not _is_to_be_called(entry, phone, missed_at, callback, placement, now):
                    continue
                after, new = await _called_back(tx, entry, callback, actor_id, placement, now)
                moved.append(Moved(before, placement.placed(after, now)))
                made.extend(new)
            await write_moved(tx, moved, now)
            return queue_pb2.RecordMissedCallResponse(
                callbacks=[messages.callback_message(it) for it in made]
            )

        return await once(
            self._database,
            request,
            now,
            queue_pb2.RecordMissedCallResponse,
            call_back,
            lambda: metrics.CALLBACKS.labels("scheduled").inc(len(made)),
            suppressions.guard_shared,
        )


def _is_to_be_called(
    entry: Entry,
    phone: str,
    missed_at: datetime,
    callback: Callback | None,
    placement: Placement,
    now: datetime,
) -> bool:
    """Return whether the missed call asks for a callback that there is not yet."""
    is_due = callback is not None and callback.is_due(now)
    is_called_since = entry.last_contact_at is not None and entry.last_contact_at >= missed_at
    is_barred = placement.contact_block(entry) is not None
    return phone in entry.lines and not (is_due or is_called_since or is_barred)


async def _called_back(
    tx: Transaction,
    entry: Entry,
    callback: Callback | None,
    actor_id: AgentId,
    placement: Placement,
    now: datetime,
) -> tuple[Entry, list[Callback]]:
    """Return the entry after the outcome `missed_call`, without an attempt, and its callback.

    The callback is written; it prefers the agent of the one before, else the last to have spoken
    with the person.
    """
    report = CallReport(Outcome.MISSED_CALL)
    result = outcomes.applied(
        report, entry, entry.last_agent_id, callback, placement, now, is_counted=True
    )
    if result.callback is not None and result.callback is not callback:
        await callbacks.update(tx, result.callback)
        metrics.CALLBACKS.labels(result.callback.state.name.lower()).inc()
    if result.new_callback is None:
        return result.entry, []
    made = result.new_callback.made(uuid4(), entry.user_id, actor_id, now)
    await callbacks.insert(tx, made)
    details = {
        "callback_id": str(made.callback_id),
        "scheduled_for": made.scheduled_for.isoformat(),
        "cause": report.outcome.name.lower(),
    }
    await audit.note(tx, actor_id, Action.CALLBACK_SCHEDULED, [entry.user_id], now, **details)
    return result.entry.with_callback(made), [made]
