"""One hand-out in so many goes to the people who have been ready longest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.queue.domain.longest_waiting import LongestWaitingShare
from services.queue.types import Queue

UNSIGNED, OUTSTANDING = Queue.UNSIGNED_USERS, Queue.OUTSTANDING_REQUESTS


def _hand_out(share: LongestWaitingShare, queue: Queue, hand_outs: int, one_in: int) -> int:
    due = share.due(queue, hand_outs, one_in)
    share.count(queue, due, hand_outs - due, one_in)
    return due


@pytest.mark.parametrize(("one_in", "shares"), [(10, 10), (1, 100), (3, 33), (0, 0), (101, 0)])
def test_one_in_so_many_claims_of_one_agent_is_the_share(one_in: int, shares: int) -> None:
    share = LongestWaitingShare()
    assert sum(_hand_out(share, UNSIGNED, 1, one_in) for _ in range(100)) == shares


@given(st.lists(st.integers(1, 70), max_size=30), st.integers(1, 40))
def test_batches_of_any_size_have_the_share_in_the_long_run(
    batches: list[int], one_in: int
) -> None:
    share = LongestWaitingShare()
    dues = [_hand_out(share, UNSIGNED, size, one_in) for size in batches]
    assert sum(dues) == sum(batches) // one_in


def test_each_queue_is_counted_by_itself() -> None:
    share = LongestWaitingShare()
    assert [_hand_out(share, UNSIGNED, 1, 3) for _ in range(2)] == [0, 0]
    assert [_hand_out(share, OUTSTANDING, 1, 3) for _ in range(3)] == [0, 0, 1]
    assert _hand_out(share, UNSIGNED, 1, 3) == 1


def test_a_share_that_no_person_took_is_not_made_up_for_later() -> None:
    share = LongestWaitingShare()
    for _ in range(50):
        share.count(UNSIGNED, 0, 1, 10)
    assert share.due(UNSIGNED, 1, 10) == 1
    assert sum(_hand_out(share, UNSIGNED, 1, 10) for _ in range(20)) <= 3


def test_hand_outs_beyond_the_share_count_towards_it() -> None:
    """Batches that run side by side may each find it due."""
    share = LongestWaitingShare()
    share.count(UNSIGNED, 2, 8, 10)
    assert sum(_hand_out(share, UNSIGNED, 1, 10) for _ in range(19)) == 0
    assert _hand_out(share, UNSIGNED, 1, 10) == 1
