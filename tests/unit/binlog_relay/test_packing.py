"""Packing loses, doubles and reorders nothing, and keeps within SQS's limits."""

import json
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from services.binlog_relay.domain.packing import (
    MAX_MESSAGES,
    PackedMessage,
    PackingLimits,
    RowChange,
    pack,
)

LIMITS = PackingLimits(
    max_records_per_message=5, max_message_bytes=150, max_request_bytes=700, attributes_bytes=50
)


def change(number: int, size: int = 10) -> RowChange:
    body = json.dumps({"n": number, "pad": "x" * size}).encode()
    return RowChange(body, captured_at_us=number, committed_at_us=number)


def changes() -> st.SearchStrategy[list[RowChange]]:
    return st.lists(st.builds(change, st.integers(0, 10**6), st.integers(0, 150)), max_size=120)


def packed_all(given_changes: list[RowChange]) -> list[list[PackedMessage]]:
    waiting = deque(given_changes)
    requests: list[list[PackedMessage]] = []
    while waiting:
        before = len(waiting)
        requests.append(pack(waiting, LIMITS))
        assert len(waiting) < before
    return requests


@given(changes())
def test_every_change_is_packed_once_and_in_order(given_changes: list[RowChange]) -> None:
    requests = packed_all(given_changes)
    packed = [each for request in requests for message in request for each in message.changes]
    assert packed == given_changes


@given(changes())
def test_packed_requests_keep_the_limits(given_changes: list[RowChange]) -> None:
    for messages in packed_all(given_changes):
        assert len(messages) <= MAX_MESSAGES
        sizes = [len(message.body().encode()) for message in messages]
        for message, size in zip(messages, sizes, strict=True):
            assert size <= max(LIMITS.max_message_bytes, len(message.changes[0].body))
            assert message.rows <= LIMITS.max_records_per_message
        total = sum(sizes) + LIMITS.attributes_bytes * len(sizes)
        assert len(messages) <= 1 or total <= LIMITS.max_request_bytes


def test_the_rows_of_a_record_count_each() -> None:
    three = RowChange(b"{}", 1, 1, rows=3)
    more_than_a_message = RowChange(b"{}", 1, 1, rows=9)
    messages = pack(deque([three, three, change(1), more_than_a_message]), LIMITS)
    assert [message.rows for message in messages] == [3, 4, 9]


def test_a_lone_change_is_an_object_and_several_are_an_array() -> None:
    [one] = pack(deque([change(1)]), LIMITS)
    assert json.loads(one.body()) == {"n": 1, "pad": "x" * 10}
    [two] = pack(deque([change(1), change(2)]), LIMITS)
    assert [entry["n"] for entry in json.loads(two.body())] == [1, 2]


def test_a_message_is_as_old_as_its_oldest_change() -> None:
    [message] = pack(deque([RowChange(b"{}", 10, 5), RowChange(b"{}", 11, 3)]), LIMITS)
    assert message.captured_at_us == 10
    assert message.committed_at_us == 3


@given(st.integers(1, 60))
def test_the_halves_of_a_message_have_its_records_in_order(count: int) -> None:
    message = PackedMessage(is_bulk=True, unsent_since_us=7)
    for number in range(count):
        message.add(RowChange(f'{{"n":{number}}}'.encode(), number, number))
    halves = message.halves()
    if count == 1:
        assert halves == []
        return
    assert [change for half in halves for change in half.changes] == message.changes
    assert all(half.size_bytes >= len(half.body()) for half in halves)
    assert all(half.is_bulk and half.unsent_since_us == 7 for half in halves)
    assert abs(len(halves[0].changes) - len(halves[1].changes)) <= 1
