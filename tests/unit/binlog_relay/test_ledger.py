"""The published position never runs ahead of a send that is under way."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from services.binlog_relay.domain.ledger import Ledger
from services.binlog_relay.domain.positions import Position

START = Position("server", "binlog.1", 0)


def at(offset: int) -> Position:
    return Position("server", "binlog.1", offset)


def test_nothing_is_published_before_what_precedes_it() -> None:
    ledger = Ledger(START)
    first, second = ledger.open(at(1)), ledger.open(at(2))
    ledger.close(second)
    assert ledger.published == START
    ledger.close(first)
    assert ledger.published == at(2)
    assert ledger.is_settled


def test_loads_inside_a_transaction_publish_nothing_by_themselves() -> None:
    ledger = Ledger(START)
    for position in (None, None):
        ledger.close(ledger.open(position))
    assert ledger.published == START
    ledger.close(ledger.open(at(3)))
    assert ledger.published == at(3)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.randoms())
def test_in_whatever_order_sends_end(has_mark: list[bool], order: Random) -> None:
    ledger = Ledger(START)
    entries = [ledger.open(at(n + 1) if mark else None) for n, mark in enumerate(has_mark)]
    unfinished = list(range(len(entries)))
    order.shuffle(unfinished)
    done: set[int] = set()
    for number in unfinished:
        ledger.close(entries[number])
        done.add(number)
        complete = next((n for n in range(len(entries)) if n not in done), len(entries))
        marks = [n + 1 for n in range(complete) if has_mark[n]]
        assert ledger.published == (at(marks[-1]) if marks else START)
