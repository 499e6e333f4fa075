"""The published position never runs ahead of a change that is not published."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from services.binlog_relay.domain.packing import Heartbeat, TransactionEnd
from services.binlog_relay.domain.positions import BinlogPosition
from services.binlog_relay.domain.published_positions import PublishedPositions


def end(offset: int) -> TransactionEnd:
    return TransactionEnd(BinlogPosition("server", "binlog.1", offset))


def test_nothing_is_published_before_what_precedes_it() -> None:
    positions = PublishedPositions()
    first = positions.add()
    positions.mark(end(1))
    second = positions.add()
    positions.mark(end(2))
    positions.close([second])
    assert list(positions.reached()) == []
    positions.close([first])
    assert list(positions.reached()) == [end(1), end(2)]
    assert list(positions.reached()) == []


def test_of_ends_without_changes_between_them_the_last_remains() -> None:
    positions = PublishedPositions()
    for offset in range(3):
        positions.mark(end(offset))
    positions.mark(Heartbeat(1, 1))
    positions.mark(end(9))
    assert list(positions.reached()) == [end(2), Heartbeat(1, 1), end(9)]


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.randoms())
def test_in_whatever_order_sends_end(has_mark: list[bool], order: Random) -> None:
    positions = PublishedPositions()
    numbers = []
    for number, is_marked in enumerate(has_mark):
        numbers.append(positions.add())
        if is_marked:
            positions.mark(end(number + 1))
    unfinished = list(range(len(numbers)))
    order.shuffle(unfinished)
    done: set[int] = set()
    found: list[object] = []
    for number in unfinished:
        positions.close([numbers[number]])
        done.add(number)
        complete = next((n for n in range(len(numbers)) if n not in done), len(numbers))
        found.extend(positions.reached())
        assert found == [end(n + 1) for n in range(complete) if has_mark[n]]
