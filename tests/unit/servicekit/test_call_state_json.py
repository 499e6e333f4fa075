"""Call states, callbacks and times as JSON are what the API's description says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dialler.model.v1 import call_state_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp
from openapi_schema_validator import OAS31Validator

from servicekit.call_state_json import call_state_json, callback_json, moment

_DESCRIPTION = Path(__file__).parents[3] / "clients/typescript/openapi.json"


@pytest.fixture(scope="module")
def validate() -> Callable[[str, Any], None]:
    """Return what checks a value against a schema of the API's description."""
    components = json.loads(_DESCRIPTION.read_text())["components"]

    def validate(schema: str, value: Any) -> None:
        described = components["schemas"][schema]
        assert set(value) == set(described["properties"])
        OAS31Validator({**described, "components": components}).validate(value)

    return validate


def a_callback(state: "pb.CallbackState.ValueType" = pb.CALLBACK_STATE_OPEN) -> pb.Callback:
    at = Timestamp(seconds=1_748_855_000, nanos=1_000)
    return pb.Callback(
        callback_id="c-1",
        user_id=2**64 - 1,
        scheduled_for=at,
        preferred_agent_id="agent-1",
        state=state,
        misses=1,
        created_by="agent-2",
        created_at=at,
        closed_at=at,
        closed_reason="DONE",
        notes="after work",
    )


@pytest.mark.parametrize("state", pb.CallbackState.values())
def test_a_callback_is_as_described(
    state: "pb.CallbackState.ValueType", validate: Callable[[str, Any], None]
) -> None:
    validate("Callback", callback_json(a_callback(state)))
    validate("Callback", callback_json(pb.Callback()))


@pytest.mark.parametrize("queue", pb.Queue.values())
@pytest.mark.parametrize("state", pb.EntryState.values())
def test_a_call_state_is_as_described(
    queue: "pb.Queue.ValueType",
    state: "pb.EntryState.ValueType",
    validate: Callable[[str, Any], None],
) -> None:
    at = Timestamp(seconds=1_748_855_000)
    whole = pb.CallState(
        user_id=7,
        queue=queue,
        state=state,
        last_outcome=pb.OUTCOME_NO_ANSWER,
        last_contact_at=at,
        next_call_at=at,
        recent_attempts=[pb.Attempt(agent_id="a", outcome=pb.OUTCOME_CALL_BACK, ended_at=at)],
        hold=pb.HOLD_COOLING,
        open_callback=a_callback(),
    )

    validate("CallState", call_state_json(whole))
    validate("CallState", call_state_json(pb.CallState()))


@pytest.mark.parametrize(
    ("nanos", "shown"),
    [
        (0, "2025-06-02T09:03:20.000000Z"),
        (120_000_000, "2025-06-02T09:03:20.120000Z"),
        (999_999_999, "2025-06-02T09:03:20.999999Z"),
    ],
)
def test_a_time_has_microseconds_whatever_they_are(nanos: int, shown: str) -> None:
    assert moment(Timestamp(seconds=1_748_855_000, nanos=nanos)) == shown
