"""In which order what one poll brings is read."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from services.cdc_ingest.receivers import portions
from tests.unit.cdc_ingest.bodies import message

SIZES = st.lists(st.sampled_from([10, 500, 16 * 1024, 16 * 1024 + 1, 100_000, 200_000]))


@given(SIZES)
def test_small_messages_wait_for_no_large_one(sizes: list[int]) -> None:
    came = [
        dataclasses.replace(message("x" * size), receipt=str(number))
        for number, size in enumerate(sizes)
    ]
    found = portions(came)
    everything = [each for portion in found for each in portion]
    assert sorted(each.receipt for each in everything) == sorted(each.receipt for each in came)
    assert all(found)
    largest_of_small = max((e.size_bytes for e in everything if e.size_bytes <= 16_384), default=0)
    assert [len(p) for p in found if p[0].size_bytes > largest_of_small] == [
        1 for size in sizes if size > 16_384
    ]
    if any(size <= 16_384 for size in sizes):
        assert all(each.size_bytes <= 16_384 for each in found[0])
