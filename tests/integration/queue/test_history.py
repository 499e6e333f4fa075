"""Notes of a person, and all that is kept of a person in one order."""

from datetime import timedelta
from uuid import uuid4

import pytest
from dialler.model.v1 import call_state_pb2
from dialler.queue.v1 import queue_pb2

from servicekit.errors import InvalidArgument, NotFound
from tests.fakes.clock import FakeClock
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import outstanding, unsigned
from tests.integration.queue.bench import Desk

pytestmark = pytest.mark.integration

KIND = queue_pb2.HistoryKind.Name


async def _note(queue: RunningQueue, user_id: int, text: str, key: str = "") -> str:
    request = queue_pb2.AddNoteRequest(
        user_id=user_id, text=text, actor_id="anna", request_id=key or str(uuid4())
    )
    return (await queue.stub.AddNote(request)).note_id


async def _history(
    queue: RunningQueue, user_id: int, page_size: int = 50
) -> list[queue_pb2.HistoryEntry]:
    """Return all entries, page by page."""
    found: list[queue_pb2.HistoryEntry] = []
    token = ""
    while True:
        request = queue_pb2.ListHistoryRequest(
            user_id=user_id, page_size=page_size, page_token=token
        )
        answer = await queue.stub.ListHistory(request)
        found += answer.entries
        token = answer.next_page_token
        if not token:
            return found


async def test_a_note_is_kept_once(queue: RunningQueue, desk: Desk) -> None:
    await desk.fill(unsigned(1), unsigned(2))
    key = str(uuid4())
    first = await _note(queue, 1, "moves in May", key)
    assert await _note(queue, 1, "moves in May", key) == first
    (noted,) = await _history(queue, 1)
    assert (KIND(noted.kind), noted.actor_id, noted.notes) == (
        "HISTORY_KIND_NOTE",
        "anna",
        "moves in May",
    )
    assert dict(noted.details) == {"note_id": first}
    assert await _history(queue, 2) == []
    assert [(it.action, it.user_id) for it in await desk.audit(action="NOTED")] == [("NOTED", 1)]
    with pytest.raises(NotFound) as unknown:
        await _note(queue, 99, "of a stranger")
    assert unknown.value.reason == "USER_UNKNOWN"
    with pytest.raises(InvalidArgument):
        await _note(queue, 1, "  ")


async def test_everything_is_in_one_order(
    queue: RunningQueue, desk: Desk, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    held = (await desk.claim("anna")).assignment
    at = clock.now() + timedelta(hours=2)
    call_back = call_state_pb2.OUTCOME_CALL_BACK
    await desk.record(held, call_back, notes="at work", callback_at=at)
    clock.advance(60)
    await _note(queue, 1, "asks for a letter")
    clock.advance(60)
    await queue.stub.AmendOutcome(
        queue_pb2.AmendOutcomeRequest(
            assignment_id=held.assignment_id,
            actor_id="boss",
            outcome=call_state_pb2.OUTCOME_HUNG_UP,
            reason="chose the wrong one",
            request_id=str(uuid4()),
        )
    )
    clock.advance(60)
    await desk.complain(1)
    clock.advance(60)
    await desk.suppress(1, "wrote to us")
    clock.advance(60)
    await desk.lift(1)
    clock.advance(60)
    queue.main_app.put(outstanding(1))
    await desk.apply(1)

    found = await _history(queue, 1)
    assert [KIND(it.kind).removeprefix("HISTORY_KIND_") for it in found][:4] == [
        *("CONVERSION", "OBJECTION_LIFTED", "OBJECTION", "COMPLAINT_OPENED"),
    ]
    by_kind = {KIND(it.kind).removeprefix("HISTORY_KIND_"): it for it in found}
    assert set(by_kind) == {
        *("CONVERSION", "OBJECTION_LIFTED", "OBJECTION", "COMPLAINT_OPENED", "AMENDMENT"),
        *("CALLBACK_ENDED", "CALLBACK_AGREED", "NOTE", "CALL"),
    }
    assert by_kind["CALL"].details["outcome"] == "hung_up"
    assert by_kind["AMENDMENT"].details["former_outcome"] == "call_back"
    assert by_kind["AMENDMENT"].notes == "chose the wrong one"
    assert by_kind["OBJECTION"].details["objection"] == "do_not_contact"
    assert by_kind["CALLBACK_AGREED"].details["scheduled_for"].startswith("2025-06-02T11:00:00")
    assert by_kind["CONVERSION"].details["conversion"] == "signature_obtained"
    moments = [it.at.ToDatetime() for it in found]
    assert moments == sorted(moments, reverse=True)
    # Pages hold the same, entries of one moment included.
    assert await _history(queue, 1, page_size=1) == found
