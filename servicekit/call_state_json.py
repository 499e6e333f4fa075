"""The JSON of call states, callbacks and times, as the REST API describes it.

Both user_context, which caches call states as JSON, and the gateway render with these functions, so
that a field has one form wherever it is read: 64-bit ids are strings, times RFC 3339 UTC with
microseconds, enum values lower-case names, absent values null.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from dialler.model.v1.call_state_pb2 import (
    Callback,
    CallbackState,
    CallState,
    EntryState,
    Hold,
    Outcome,
    Queue,
)
from google.protobuf.timestamp_pb2 import Timestamp


def moment(value: Timestamp) -> str:
    """Return the time in RFC 3339, UTC, with microseconds."""
    return f"{_seconds(value.seconds)}.{value.nanos // 1000:06d}Z"


# The same call states are rendered over and over.
@lru_cache(maxsize=8192)
def _seconds(value: int) -> str:
    return datetime.fromtimestamp(value, UTC).isoformat()[:19]


def moment_in(message: Any, field: str) -> str | None:
    """Return the time in a message's field, or None when it is unset."""
    return moment(getattr(message, field)) if message.HasField(field) else None


def name_in(name_of: Callable[[Any], str], prefix: str, value: int) -> str | None:
    """Return an enum value's JSON name; None for unspecified and for values newer than we are."""
    try:
        name = name_of(value)
    except ValueError:
        return None
    short = name.removeprefix(prefix)
    return None if short == "UNSPECIFIED" else short.lower()


def call_state_json(state: CallState) -> dict[str, Any]:
    """Return a call state with the fields of the API's CallState, in its order."""
    has_callback = state.HasField("open_callback")
    return {
        "user_id": str(state.user_id),
        "queue": name_in(Queue.Name, "QUEUE_", state.queue),
        "state": name_in(EntryState.Name, "ENTRY_STATE_", state.state),
        "reason": state.reason,
        "score": state.score,
        "attempts": state.attempts,
        "last_outcome": name_in(Outcome.Name, "OUTCOME_", state.last_outcome),
        "last_contact_at": moment_in(state, "last_contact_at"),
        "next_call_at": moment_in(state, "next_call_at"),
        "assigned_agent_id": state.assigned_agent_id or None,
        "recent_attempts": [
            {
                "agent_id": attempt.agent_id,
                "outcome": name_in(Outcome.Name, "OUTCOME_", attempt.outcome),
                "ended_at": moment_in(attempt, "ended_at"),
                "notes": attempt.notes,
                "disposition": attempt.disposition or None,
            }
            for attempt in state.recent_attempts
        ],
        "version": str(state.version),
        "hold": name_in(Hold.Name, "HOLD_", state.hold),
        "open_callback": callback_json(state.open_callback) if has_callback else None,
    }


def callback_json(callback: Callback) -> dict[str, Any]:
    """Return a callback with the fields of the API's Callback, in its order."""
    return {
        "callback_id": callback.callback_id,
        "user_id": str(callback.user_id),
        "scheduled_for": moment_in(callback, "scheduled_for"),
        "preferred_agent_id": callback.preferred_agent_id or None,
        "state": name_in(CallbackState.Name, "CALLBACK_STATE_", callback.state),
        "misses": callback.misses,
        "created_by": callback.created_by or None,
        "created_at": moment_in(callback, "created_at"),
        "closed_at": moment_in(callback, "closed_at"),
        "closed_reason": callback.closed_reason or None,
        "notes": callback.notes,
    }
