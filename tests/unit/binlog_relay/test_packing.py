"""Packing loses, doubles and reorders nothing, and keeps within SQS's limits."""

import json
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from services.binlog_relay.domain.packing import (
    MAX_MESSAGES,
    Beat,
    BlindSpot,
    Change,
    Item,
    Limits,
    Load,
    Mark,
    pack,
)
from services.binlog_relay.domain.positions import Position

LIMITS = Limits(
    max_records_per_message=5, max_message_bytes=150, max_request_bytes=700, attributes_bytes=50
)


def change(number: int, size: int = 10) -> Change:
    body = json.dumps({"n": number, "pad": "x" * size}).encode()
    return Change(body, captured_at_us=number, committed_at_us=number)


def mark(number: int) -> Mark:
    return Mark(Position("server", "binlog.1", number))


def items() -> st.SearchStrategy[list[Item]]:
    kinds = st.one_of(
        st.builds(change, st.integers(0, 10**6), st.integers(0, 150)),
        st.builds(mark, st.integers(0, 10**6)),
        st.just(BlindSpot("why")),
        st.just(Beat(1, 1)),
    )
    return st.lists(kinds, max_size=120)


def unpacked(load: Load) -> list[Change]:
    return [change for message in load.messages for change in message.changes]


@given(items())
def test_every_item_is_packed_once_and_in_order(given_items: list[Item]) -> None:
    waiting = deque(given_items)
    loads: list[Load] = []
    while waiting:
        before = len(waiting)
        loads.append(pack(waiting, LIMITS))
        assert len(waiting) < before
    changes = [item for item in given_items if isinstance(item, Change)]
    assert [change for load in loads for change in unpacked(load)] == changes
    assert sum(len(load.blind_spots) for load in loads) == len(
        [item for item in given_items if isinstance(item, BlindSpot)]
    )


@given(items())
def test_loads_keep_the_limits(given_items: list[Item]) -> None:
    waiting = deque(given_items)
    while waiting:
        load = pack(waiting, LIMITS)
        assert len(load.messages) <= MAX_MESSAGES
        sizes = [len(message.body().encode()) for message in load.messages]
        for message, size in zip(load.messages, sizes, strict=True):
            assert size <= max(LIMITS.max_message_bytes, len(message.changes[0].body))
            assert len(message.changes) <= LIMITS.max_records_per_message
        total = sum(sizes) + LIMITS.attributes_bytes * len(sizes)
        assert len(load.messages) <= 1 or total <= LIMITS.max_request_bytes


@given(items())
def test_a_loads_position_has_everything_before_it_in_it_or_in_earlier_ones(
    given_items: list[Item],
) -> None:
    waiting = deque(given_items)
    packed = 0
    while waiting:
        load = pack(waiting, LIMITS)
        packed += len(unpacked(load))
        taken = given_items[: len(given_items) - len(waiting)]
        marks = [item for item in taken if isinstance(item, Mark)]
        if load.position is not None:
            assert load.position == marks[-1].position
            place = len(taken) - 1 - taken[::-1].index(marks[-1])
            assert packed >= len([item for item in taken[:place] if isinstance(item, Change)])


def test_a_lone_change_is_an_object_and_several_are_an_array() -> None:
    one = pack(deque([change(1)]), LIMITS)
    assert json.loads(one.messages[0].body()) == {"n": 1, "pad": "x" * 10}
    two = pack(deque([change(1), mark(9), change(2)]), LIMITS)
    assert [entry["n"] for entry in json.loads(two.messages[0].body())] == [1, 2]
    assert two.position == mark(9).position


def test_a_message_is_as_old_as_its_oldest_change() -> None:
    changes = [Change(b"{}", 10, 5), Change(b"{}", 11, 3)]
    [message] = pack(deque(changes), LIMITS).messages
    assert message.captured_at_us == 10
    assert message.committed_at_us == 3


def test_a_beat_ends_its_load() -> None:
    waiting: deque[Item] = deque([change(1), mark(1), Beat(7, 6), change(2)])
    load = pack(waiting, LIMITS)
    assert (load.beat, load.position, len(unpacked(load))) == (Beat(7, 6), mark(1).position, 1)
    after = pack(waiting, LIMITS)
    assert (after.beat, len(unpacked(after))) == (None, 1)
