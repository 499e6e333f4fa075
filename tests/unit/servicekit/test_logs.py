"""JSON log lines, and what they must not hold."""

import json
import logging
import sys
from datetime import UTC, datetime
from uuid import UUID

import pytest
from pydantic import BaseModel, ValidationError

from servicekit.errors import NotFound
from servicekit.logs import JsonFormatter, describe

SECRET = " ".join(("Jane", "Example"))


def line(
    message: str, *arguments: object, error: Exception | None = None, **extra: object
) -> dict[str, object]:
    record = logging.LogRecord(
        "services.queue", logging.INFO, __file__, 1, message, arguments, None
    )
    vars(record).update(extra)
    if error is not None:
        try:
            raise error
        except type(error):
            record.exc_info = sys.exc_info()
    formatted = JsonFormatter("queue", lambda: "f" * 32).format(record)
    assert "\n" not in formatted
    fields: dict[str, object] = json.loads(formatted)
    return fields


def test_fields() -> None:
    fields = line("claimed", entry_id=7, at=datetime(2025, 1, 1, tzinfo=UTC))
    ts = fields.pop("ts")
    assert str(ts).endswith("Z")
    assert fields == {
        "level": "INFO",
        "service": "queue",
        "logger": "services.queue",
        "event": "claimed",
        "trace_id": "f" * 32,
        "entry_id": 7,
        "at": "2025-01-01T00:00:00Z",
    }


def test_arguments_are_filled_in() -> None:
    assert line("took %d ms", 5)["event"] == "took 5 ms"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (ValueError, "<class 'ValueError'>"),
        ({1: "a"}, {"1": "a"}),
    ],
)
def test_extras_that_json_does_not_know(value: object, written: object) -> None:
    assert line("x", value=value)["value"] == written


def test_line_that_json_cannot_hold_is_not_lost() -> None:
    assert "\\udc00" in str(line("x", value="\udc00")["value"])
    assert line("x", value=2**80)["event"] == "'x'"


def test_traceback_has_places_and_kinds_but_not_the_text_of_foreign_errors() -> None:
    fields = line("failed", error=ValueError(SECRET))
    assert "test_logs.py" in str(fields["exception"])
    assert str(fields["exception"]).endswith("ValueError")
    assert SECRET not in json.dumps(fields)


def test_text_of_errors_about_code_and_of_ours_is_kept() -> None:
    assert "no attribute" in describe(AttributeError("no attribute 'x'"))
    assert "USER_NOT_FOUND" in describe(NotFound("USER_NOT_FOUND", "no such user"))


def test_causes_and_groups_are_told_as_quietly() -> None:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise ExceptionGroup("several", [ValueError(SECRET)]) from error
    except ExceptionGroup as group:
        told = describe(group)
    assert "KeyError" in told
    assert "ValueError" in told
    assert SECRET not in told


def test_what_a_validator_disliked_is_not_told() -> None:
    class Person(BaseModel):
        age: int

    with pytest.raises(ValidationError) as caught:
        Person.model_validate({"age": SECRET})
    assert SECRET in str(caught.value)
    assert SECRET not in describe(caught.value)


def test_error_that_is_its_own_cause_is_told_once() -> None:
    error = RuntimeError("loop")
    other = RuntimeError("other")
    error.__cause__ = other
    other.__cause__ = error
    assert describe(error).count("loop") == 1
