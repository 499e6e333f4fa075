"""Packing loses, doubles and reorders nothing, and keeps within SQS's limits."""

import json
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from services.binlog_relay.domain.packing import (
    MAX_MESSAGES,
    Gap,
    Heartbeat,
    Item,
    PackedMessage,
    PackedRequest,
    PackingLimits,
    RowChange,
    TransactionEnd,
    pack,
)
from services.binlog_relay.domain.positions import BinlogPosition

LIMITS = PackingLimits(
    max_records_per_message=5, max_message_bytes=150, max_request_bytes=700, attributes_bytes=50
)


def change(number: int, size: int = 10) -> RowChange:
    body = json.dumps({"n": number, "pad": "x" * size}).encode()
    return RowChange(body, captured_at_us=number, committed_at_us=number)


def mark(number: int) -> TransactionEnd:
    return TransactionEnd(BinlogPosition("server", "binlog.1", number))


def items() -> st.SearchStrategy[list[Item]]:
    kinds = st.one_of(
        st.builds(change, st.integers(0, 10**6), st.integers(0, 150)),
        st.builds(mark, st.integers(0, 10**6)),
        st.just(Gap("why")),
        st.just(Heartbeat(1, 1)),
    )
    return st.lists(kinds, max_size=120)


def unpacked(packed: PackedRequest) -> list[RowChange]:
    return [change for message in packed.messages for change in message.changes]


@given(items())
def test_every_item_is_packed_once_and_in_order(given_items: list[Item]) -> None:
    waiting = deque(given_items)
    loads: list[PackedRequest] = []
    while waiting:
        before = len(waiting)
        loads.append(pack(waiting, LIMITS))
        assert len(waiting) < before
    changes = [item for item in given_items if isinstance(item, RowChange)]
    assert [change for packed in loads for change in unpacked(packed)] == changes
    assert sum(len(packed.gaps) for packed in loads) == len(
        [item for item in given_items if isinstance(item, Gap)]
    )


@given(items())
def test_packed_requests_keep_the_limits(given_items: list[Item]) -> None:
    waiting = deque(given_items)
    while waiting:
        packed = pack(waiting, LIMITS)
        assert len(packed.messages) <= MAX_MESSAGES
        sizes = [len(message.body().encode()) for message in packed.messages]
        for message, size in zip(packed.messages, sizes, strict=True):
            assert size <= max(LIMITS.max_message_bytes, len(message.changes[0].body))
            assert len(message.changes) <= LIMITS.max_records_per_message
        total = sum(sizes) + LIMITS.attributes_bytes * len(sizes)
        assert len(packed.messages) <= 1 or total <= LIMITS.max_request_bytes


@given(items())
def test_the_position_of_a_packed_request_has_everything_before_it_in_it_or_in_earlier_ones(
    given_items: list[Item],
) -> None:
    waiting = deque(given_items)
    packed_count = 0
    while waiting:
        packed = pack(waiting, LIMITS)
        packed_count += len(unpacked(packed))
        taken = given_items[: len(given_items) - len(waiting)]
        marks = [item for item in taken if isinstance(item, TransactionEnd)]
        if packed.position is not None:
            assert packed.position == marks[-1].position
            place = len(taken) - 1 - taken[::-1].index(marks[-1])
            assert packed_count >= len(
                [item for item in taken[:place] if isinstance(item, RowChange)]
            )


def test_a_lone_change_is_an_object_and_several_are_an_array() -> None:
    one = pack(deque([change(1)]), LIMITS)
    assert json.loads(one.messages[0].body()) == {"n": 1, "pad": "x" * 10}
    two = pack(deque([change(1), mark(9), change(2)]), LIMITS)
    assert [entry["n"] for entry in json.loads(two.messages[0].body())] == [1, 2]
    assert two.position == mark(9).position


def test_a_message_is_as_old_as_its_oldest_change() -> None:
    changes = [RowChange(b"{}", 10, 5), RowChange(b"{}", 11, 3)]
    [message] = pack(deque(changes), LIMITS).messages
    assert message.captured_at_us == 10
    assert message.committed_at_us == 3


def test_a_heartbeat_ends_its_request() -> None:
    waiting: deque[Item] = deque([change(1), mark(1), Heartbeat(7, 6), change(2)])
    packed = pack(waiting, LIMITS)
    assert (packed.heartbeat, packed.position, len(unpacked(packed))) == (
        Heartbeat(7, 6),
        mark(1).position,
        1,
    )
    after = pack(waiting, LIMITS)
    assert (after.heartbeat, len(unpacked(after))) == (None, 1)


@given(st.integers(1, 60))
def test_the_halves_of_a_message_have_its_records_in_order(count: int) -> None:
    message = PackedMessage()
    for number in range(count):
        message.add(RowChange(f'{{"n":{number}}}'.encode(), number, number))
    halves = message.halves()
    if count == 1:
        assert halves == []
        return
    assert [change for half in halves for change in half.changes] == message.changes
    assert all(half.size_bytes >= len(half.body()) for half in halves)
    assert abs(len(halves[0].changes) - len(halves[1].changes)) <= 1
