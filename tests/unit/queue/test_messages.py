"""The contract's numbers are ours."""

from enum import IntEnum

import pytest
from dialler.model.v1 import call_state_pb2, event_pb2
from dialler.queue.v1 import queue_pb2
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from services.queue.types import (
    CallbackState,
    Conversion,
    Hold,
    Outcome,
    Presence,
    Queue,
    State,
)
from services.queue.wire import messages


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (Queue, call_state_pb2.Queue, "QUEUE_"),
        (State, call_state_pb2.EntryState, "ENTRY_STATE_"),
        (Outcome, call_state_pb2.Outcome, "OUTCOME_"),
        (Conversion, event_pb2.Conversion, "CONVERSION_"),
        (Hold, call_state_pb2.Hold, "HOLD_"),
        (CallbackState, call_state_pb2.CallbackState, "CALLBACK_STATE_"),
        (Presence, queue_pb2.Presence, "PRESENCE_"),
    ],
)
def test_our_numbers_are_the_contracts(
    ours: type[IntEnum], theirs: EnumTypeWrapper, prefix: str
) -> None:
    for member in ours:
        if member is not State.RESERVED:
            assert theirs.Name(member) == prefix + member.name
    known = {int(member) for member in ours} | {0}
    assert set(theirs.values()) <= known


def test_reserved_is_ready_in_the_contract() -> None:
    assert messages.state_number(State.RESERVED) == call_state_pb2.ENTRY_STATE_READY
