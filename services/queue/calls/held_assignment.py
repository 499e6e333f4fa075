"""An agent's assignment: whose it is, whether it is live, and how its end is written."""

from datetime import datetime

from dialler.model.v1 import event_pb2

from servicekit import telemetry
from servicekit.errors import Conflict, NotFound
from services.queue import metrics
from services.queue.domain.entries import Entry
from services.queue.people.placing import Moved
from services.queue.store import assignments, entries, outbox
from services.queue.store.assignments import Assignment
from services.queue.store.database import Transaction
from services.queue.types import AgentId, Ending, Outcome
from services.queue.wire import messages


async def write_end(
    tx: Transaction,
    held: Assignment,
    ending: Ending,
    moved: Moved | None,
    now: datetime,
    outcome: Outcome | None = None,
    notes: str | None = None,
    state_version: int | None = None,
    report_effects: str | None = None,
) -> None:
    """End a locked assignment and write its user's new entry; None leaves the entry as it is.

    `state_version` is that of the new entry, if one has been drawn.
    """
    await assignments.end(tx, held.assignment_id, ending, now, notes, report_effects)
    metrics.ENDINGS.labels(ending.name.lower()).inc()
    if moved is None:
        return
    await entries.update(tx, [moved.after], state_version)
    kinds = [event_pb2.EVENT_TYPE_ASSIGNMENT_ENDED]
    if outcome is not None:
        kinds.insert(0, event_pb2.EVENT_TYPE_OUTCOME_RECORDED)
    traceparent = telemetry.inject()
    events = [
        messages.event(
            kind,
            moved.before,
            moved.after,
            now,
            traceparent,
            agent_id=held.agent_id,
            assignment_id=held.assignment_id,
            outcome=outcome,
        )
        for kind in kinds
    ]
    await outbox.post(tx, events)


def is_still_with(entry: Entry | None, held: Assignment) -> bool:
    """Return whether the user has not been handed out since that assignment."""
    if entry is None or entry.fence != held.fence:
        return False
    return entry.assignment_id in (None, held.assignment_id)


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
    """Return the error for an unknown assignment."""
    return NotFound("ASSIGNMENT_NOT_FOUND", "there is no such assignment")


def not_live() -> Conflict:
    """Return the error for an assignment that has ended."""
    return Conflict("ASSIGNMENT_NOT_LIVE", "the assignment has ended")
