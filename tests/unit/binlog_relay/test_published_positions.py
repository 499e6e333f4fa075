"""The published position never runs ahead of a send that is under way."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from services.binlog_relay.domain.positions import BinlogPosition
from services.binlog_relay.domain.published_positions import PublishedPositions

START = BinlogPosition("server", "binlog.1", 0)


def at(offset: int) -> BinlogPosition:
    return BinlogPosition("server", "binlog.1", offset)


def test_nothing_is_published_before_what_precedes_it() -> None:
    positions = PublishedPositions(START)
    first, second = positions.open(at(1)), positions.open(at(2))
    positions.close(second)
    assert positions.published == START
    positions.close(first)
    assert positions.published == at(2)
    assert positions.is_settled


def test_sends_inside_a_transaction_publish_no_position() -> None:
    positions = PublishedPositions(START)
    for position in (None, None):
        positions.close(positions.open(position))
    assert positions.published == START
    positions.close(positions.open(at(3)))
    assert positions.published == at(3)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.randoms())
def test_in_whatever_order_sends_end(has_mark: list[bool], order: Random) -> None:
    positions = PublishedPositions(START)
    entries = [positions.open(at(n + 1) if mark else None) for n, mark in enumerate(has_mark)]
    unfinished = list(range(len(entries)))
    order.shuffle(unfinished)
    done: set[int] = set()
    for number in unfinished:
        positions.close(entries[number])
        done.add(number)
        complete = next((n for n in range(len(entries)) if n not in done), len(entries))
        marks = [n + 1 for n in range(complete) if has_mark[n]]
        assert positions.published == (at(marks[-1]) if marks else START)
