"""What desks share: people are placed anew and written, and others are told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dialler.model.v1 import event_pb2

from servicekit import telemetry
from servicekit.errors import Conflict, InvalidArgument, NotFound
from services.queue import messages, metrics
from services.queue.domain.entries import Entry, PhoneStanding, Placement
from services.queue.domain.terms import AgentId, Ending, Outcome
from services.queue.store import assignments, entries, outbox, suppressions
from services.queue.store.answers import Answered, Request
from services.queue.store.assignments import Assignment
from services.queue.store.database import Transaction


@dataclass(frozen=True, slots=True)
class Moved:
    """A person before and after a change."""

    before: Entry
    after: Entry


async def write_end(
    tx: Transaction,
    held: Assignment,
    ending: Ending,
    person: Moved | None,
    now: datetime,
    outcome: Outcome | None = None,
) -> None:
    """End a locked assignment and write where that leaves its person; None leaves them alone."""
    await assignments.end(tx, held.assignment_id, ending, now)
    metrics.ENDINGS.labels(ending.name.lower()).inc()
    if person is None:
        return
    await entries.update(tx, [person.after])
    kinds = [event_pb2.EVENT_TYPE_ASSIGNMENT_ENDED]
    if outcome is not None:
        kinds.insert(0, event_pb2.EVENT_TYPE_OUTCOME_RECORDED)
    traceparent = telemetry.inject()
    events = [
        messages.event(
            kind,
            person.before,
            person.after,
            now,
            traceparent,
            agent_id=held.agent_id,
            assignment_id=held.assignment_id,
            outcome=outcome,
        )
        for kind in kinds
    ]
    await outbox.post(tx, events)


async def write_moved(
    tx: Transaction, people: list[Moved], now: datetime, agent_id: AgentId | None = None
) -> None:
    """Write people who are locked, those who have changed, and tell where they have moved."""
    changed = [it for it in people if it.before != it.after]
    await entries.update(tx, [it.after for it in changed])
    traceparent = telemetry.inject()
    moved = event_pb2.EVENT_TYPE_ENTRY_MOVED
    events = [
        messages.event(moved, it.before, it.after, now, traceparent, agent_id=agent_id)
        for it in changed
        if messages.is_moved(it.before, it.after)
    ]
    await outbox.post(tx, events)


async def place_by_number(
    tx: Transaction, people: Sequence[Entry], placement: Placement, now: datetime
) -> list[Moved]:
    """Place locked people by what now stands for their phone number, and write them."""
    numbers = [(it.user_id, it.phone_e164) for it in people if it.phone_e164 is not None]
    found = await suppressions.standings(tx, numbers, now - placement.shared_phone_rest)
    moved = []
    for before in people:
        standing = found.get(before.user_id, PhoneStanding())
        after = before._replace(
            phone_block=standing.block,
            phone_free_at=placement.phone_free_at(standing.last_call_at),
        )
        moved.append(Moved(before, placement.placed(after, now)))
    await write_moved(tx, moved, now)
    return moved


def is_still_with(entry: Entry | None, held: Assignment) -> bool:
    """Return whether nobody has been handed the person since that assignment."""
    if entry is None or entry.fence != held.fence:
        return False
    return entry.assignment_id in (None, held.assignment_id)


def require_same(answered: Answered, request: Request) -> bytes:
    """Return the first answer; raises InvalidArgument (REQUEST_ID_REUSED) for another request."""
    same = (answered.method, answered.payload_hash) == (request.method, request.payload_hash)
    if not same or answered.response is None:
        raise InvalidArgument(
            "REQUEST_ID_REUSED", "the request id was used for another request before"
        )
    return answered.response


def require_of_agent(held: Assignment | None, agent_id: AgentId) -> Assignment:
    """Return the agent's assignment, live or not; raises NotFound or Conflict."""
    if held is None:
        raise no_such_assignment()
    if held.agent_id != agent_id:
        raise Conflict("ASSIGNMENT_NOT_YOURS", "another agent was given this assignment")
    return held


def require_live(held: Assignment | None, agent_id: AgentId, now: datetime) -> Assignment:
    """Return the agent's live assignment; raises NotFound or Conflict."""
    held = require_of_agent(held, agent_id)
    if not held.is_live(now):
        raise not_live()
    return held


def no_such_assignment() -> NotFound:
    """Return the error for an id that is no assignment's."""
    return NotFound("ASSIGNMENT_NOT_FOUND", "there is no such assignment")


def not_live() -> Conflict:
    """Return the error for an assignment that has ended."""
    return Conflict("ASSIGNMENT_NOT_LIVE", "the assignment has ended")
