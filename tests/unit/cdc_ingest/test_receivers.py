"""The messages of one poll are split by size."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from services.cdc_ingest.domain.messages import SMALL_BYTES
from services.cdc_ingest.sqs.receivers import by_lane
from tests.unit.cdc_ingest.bodies import message

SIZES = st.lists(st.sampled_from([10, 500, SMALL_BYTES, SMALL_BYTES + 1, 100_000, 200_000]))


@given(SIZES)
def test_small_messages_are_read_apart_from_large_ones(sizes: list[int]) -> None:
    came = [
        dataclasses.replace(message("x" * size), receipt=str(number))
        for number, size in enumerate(sizes)
    ]
    small, large = by_lane(came)
    assert sorted(it.receipt for it in small + large) == sorted(it.receipt for it in came)
    assert all(it.size_bytes <= SMALL_BYTES for it in small)
    assert all(it.size_bytes > SMALL_BYTES for it in large)
    assert [it.size_bytes for it in large] == sorted(it.size_bytes for it in large)


def test_the_relay_says_which_of_its_messages_hold_bulk_changes() -> None:
    sent = {"source": "binlog_relay"}
    lone = dataclasses.replace(message("x" * 100_000), receipt="lone", text_attributes=sent)
    bulk = dataclasses.replace(
        message("x"), receipt="bulk", text_attributes=sent | {"bulk": "true"}
    )
    assert by_lane([bulk, lone]) == ([lone], [bulk])
