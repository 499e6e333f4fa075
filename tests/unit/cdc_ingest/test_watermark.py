"""The low watermark of applied changes."""

import dataclasses
import itertools
import time
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.cdc_ingest.domain.formats.records import ChangeFile
from services.cdc_ingest.domain.messages import Arrival, ChangeTimes
from services.cdc_ingest.domain.people import Demand
from services.cdc_ingest.domain.watermark import Watermark
from tests.unit.cdc_ingest.bodies import arrival, debezium, dms, message

NOW = datetime(2025, 6, 2, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
GRACE = 60.0
_RECEIPTS = itertools.count()


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def came(name: str, captured: float | None, *, files: tuple[ChangeFile, ...] = ()) -> Arrival:
    """One delivery of a message."""
    receipt = f"{name}-{next(_RECEIPTS)}"
    delivery = dataclasses.replace(message("x"), message_id=name, receipt=receipt)
    captured_at = None if captured is None else at(captured)
    return Arrival(delivery, Demand(), ChangeTimes(LATER, None, captured_at), files)


def test_before_the_first_message_nothing_is_known() -> None:
    watermark = Watermark(GRACE)
    assert (watermark.alive_at, watermark.applied_through) == (None, None)


def test_the_oldest_message_held_is_as_far_as_it_goes() -> None:
    watermark = Watermark(GRACE)
    old, new = came("old", 1), came("new", 2)
    watermark.hold(new)
    watermark.hold(old)
    assert (watermark.alive_at, watermark.applied_through) == (at(2), at(1))
    watermark.finish(old.message)
    watermark.finish(new.message)
    assert watermark.applied_through == at(2)


def test_a_capture_that_lags_promises_no_more_than_it_has_read() -> None:
    watermark = Watermark(GRACE)
    late = came("late", 100)
    late = dataclasses.replace(late, times=ChangeTimes(LATER, at(5), at(100)))
    watermark.hold(late)
    assert (watermark.alive_at, watermark.applied_through) == (at(100), at(5))
    watermark.finish(late.message)
    assert watermark.applied_through == at(5)


def test_what_went_back_is_not_applied_until_it_came_again() -> None:
    watermark = Watermark(GRACE)
    first = came("old", 1)
    watermark.hold(first)
    watermark.hold(beat := came("beat", 5))
    watermark.finish(beat.message)
    watermark.release(first.message, visible_at=10)
    watermark.forget_expired(20, is_receiving=True)
    assert watermark.applied_through == at(1)
    again = came("old", 1)
    watermark.hold(again)
    watermark.finish(again.message)
    assert watermark.applied_through == at(5)


def test_what_went_back_and_came_to_another_copy_is_that_copys_to_tell() -> None:
    watermark = Watermark(GRACE)
    first = came("old", 1)
    watermark.hold(first)
    watermark.release(first.message, visible_at=10)
    watermark.forget_expired(10_000, is_receiving=False)
    assert watermark.applied_through == at(1), "no replica has received it meanwhile"
    watermark.forget_expired(10_000 + GRACE - 1, is_receiving=True)
    assert watermark.applied_through == at(1)
    watermark.forget_expired(10_000 + GRACE + 1, is_receiving=True)
    assert watermark.applied_through == at(1), "the newest that was seen"


def test_a_message_without_a_time_stops_the_watermark() -> None:
    watermark = Watermark(GRACE)
    watermark.hold(beat := came("beat", 1))
    watermark.finish(beat.message)
    silent = came("silent", None)
    watermark.hold(silent)
    watermark.hold(beat := came("beat", 9))
    watermark.finish(beat.message)
    assert (watermark.alive_at, watermark.applied_through) == (at(9), at(1))
    watermark.finish(silent.message)
    assert watermark.applied_through == at(9)


def test_many_messages_that_tell_no_time_are_not_compared_each_with_all() -> None:
    watermark = Watermark(GRACE)
    watermark.hold(came("first", 1))
    watermark.hold(came("silent", None))
    watermark.forget_expired(0, is_receiving=True)
    began = time.process_time()
    for number in range(10_000):
        watermark.hold(came(str(number), None))
    assert time.process_time() - began < 2.0
    assert watermark.applied_through == at(1)


def test_a_message_that_tells_no_time_before_any_other_leaves_it_unknown() -> None:
    watermark = Watermark(GRACE)
    watermark.hold(came("silent", None))
    watermark.hold(came("new", 1))
    assert (watermark.alive_at, watermark.applied_through) == (at(1), None)


def test_a_file_counts_from_when_it_was_written() -> None:
    file = ChangeFile("changes", "mainapp/users/1.csv", "users", written_at=at(3))
    watermark = Watermark(GRACE)
    watermark.hold(came("file", None, files=(file,)))
    assert watermark.applied_through == at(3)


def test_heartbeats_and_control_records_tell_when_they_were_captured() -> None:
    moment = "2025-06-02T12:00:00.000000Z"
    control = {"record-type": "control", "timestamp": moment}
    for operation in ("heartbeat", "create-table", "truncate-table"):
        assert arrival(dms("claims", operation, **control)).captured_from == NOW
    assert arrival({"ts_ms": 1_748_865_600_000}).captured_from == NOW
    assert arrival(debezium(after={"id": 5})).captured_from == at(-10_798.5)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["hold", "finish", "give back", "tidy"]),
        st.integers(0, 5),
        st.integers(0, 100),
    ),
    max_size=40,
)


@given(STEPS)
def test_it_never_promises_what_is_held(steps: list[tuple[str, int, int]]) -> None:
    watermark = Watermark(GRACE)
    held: dict[int, Arrival] = {}
    for number, (step, which, captured) in enumerate(steps):
        if step == "hold" and which not in held:
            held[which] = came(str(which), captured)
            watermark.hold(held[which])
        elif step == "finish" and which in held:
            watermark.finish(held.pop(which).message)
        elif step == "give back" and which in held:
            watermark.release(held.pop(which).message, visible_at=number)
        elif step == "tidy":
            watermark.forget_expired(number, is_receiving=captured % 2 == 0)
        known = [each.captured_from for each in held.values() if each.captured_from]
        through = watermark.applied_through
        assert all(through is not None and through <= each for each in known)
        assert through is None or watermark.alive_at is None or through <= watermark.alive_at


def test_it_does_not_pass_what_the_capture_has_still_to_send() -> None:
    watermark = Watermark(GRACE)
    lone = came("lone", 100)
    overtaking = dataclasses.replace(lone.message, unsent_since=at(40))
    watermark.hold(dataclasses.replace(lone, message=overtaking))
    watermark.finish(overtaking)
    assert watermark.applied_through == at(40)
    bulk = came("bulk", 40)
    watermark.hold(bulk)
    watermark.hold(came("next", 120))
    assert watermark.applied_through == at(40)
