"""Which people are refreshed when, and for which messages."""

from collections import Counter
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from servicekit.backoff import Backoff
from services.cdc_ingest.domain.backlog import (
    Backlog,
    Lane,
    MessageTicket,
    TransactionSizes,
    lane_to_serve,
)
from services.cdc_ingest.domain.messages import ChangeTimes, Message
from services.cdc_ingest.sqs.in_flight import visibility_seconds

NOW = datetime(2025, 6, 2, tzinfo=UTC)


def ticket(name: str = "m") -> MessageTicket:
    """A message in the pipeline."""
    return MessageTicket(Message(name, name, "", 1, NOW), ChangeTimes(NOW), {})


def test_a_person_asked_for_twice_is_refreshed_once() -> None:
    backlog = Backlog(bulk_above=10)
    first, second = ticket(), ticket()
    backlog.add(first, {"": {1, 2}})
    backlog.add(second, {"": {2, 3}})
    batch = backlog.take(Lane.FRESH, 500)
    assert set(batch.waiting) == {1, 2, 3}
    assert batch.waiting[2] == [first, second]
    assert first.outstanding == second.outstanding == 2


def test_a_small_message_lifts_a_person_out_of_the_bulk() -> None:
    backlog = Backlog(bulk_above=2)
    bulk, small = ticket("bulk"), ticket("small")
    backlog.add(bulk, {"": {1, 2, 3}})
    backlog.add(small, {"": {2}})
    assert backlog.take(Lane.FRESH, 500).waiting == {2: [bulk, small]}
    assert set(backlog.take(Lane.BULK, 500).waiting) == {1, 3}


def test_a_bulk_message_joins_the_people_who_wait_in_front() -> None:
    backlog = Backlog(bulk_above=2)
    small, bulk = ticket("small"), ticket("bulk")
    backlog.add(small, {"": {2}})
    backlog.add(bulk, {"": {1, 2, 3}})
    assert backlog.take(Lane.FRESH, 500).waiting == {2: [small, bulk]}


def test_a_lone_change_packed_with_bulk_is_not_bulk() -> None:
    backlog = Backlog(bulk_above=2)
    mixed = ticket()
    backlog.add(mixed, {"bulk": {1, 2, 3, 4}, "a": {4}, "b": {5}})
    assert set(backlog.take(Lane.FRESH, 500).waiting) == {4, 5}
    assert set(backlog.take(Lane.BULK, 500).waiting) == {1, 2, 3}
    assert mixed.outstanding == 5


def test_bulk_is_known_by_all_its_messages() -> None:
    backlog = Backlog(bulk_above=2)
    for user_id in range(1, 6):
        backlog.add(ticket(), {"bulk": {user_id}})
    backlog.add(ticket(), {"other": {9}})
    assert set(backlog.take(Lane.FRESH, 500).waiting) == {1, 2, 9}
    assert set(backlog.take(Lane.BULK, 500).waiting) == {3, 4, 5}


def test_old_transactions_are_forgotten() -> None:
    sizes = TransactionSizes(remembered=2)
    assert [sizes.count(name, 5) for name in ("a", "b", "a", "c", "a", "b")] == [5, 5, 10, 5, 15, 5]


def test_what_went_back_to_sqs_is_not_refreshed_for() -> None:
    backlog = Backlog(bulk_above=10)
    gone, here = ticket("gone"), ticket("here")
    backlog.add(gone, {"": {1, 2}})
    backlog.add(here, {"": {2}})
    gone.is_abandoned = True
    assert backlog.take(Lane.FRESH, 500).waiting == {2: [here]}
    assert backlog.drain() == []


@given(
    st.lists(st.sets(st.integers(1, 30), max_size=12), max_size=12), st.integers(1, 7), st.data()
)
def test_no_key_is_forgotten(wanted: list[set[int]], limit: int, data: st.DataObject) -> None:
    backlog = Backlog(bulk_above=4)
    tickets = [ticket(str(n)) for n in range(len(wanted))]
    for each, users in zip(tickets, wanted, strict=True):
        backlog.add(each, {"": users})
    refreshed: Counter[tuple[MessageTicket, object]] = Counter()
    while len(backlog):
        lane = data.draw(st.sampled_from(list(Lane)))
        batch = backlog.take(lane, limit)
        assert len(batch.waiting) <= limit
        for key, waiting in batch.waiting.items():
            refreshed.update((each, key) for each in waiting)
    expected = Counter(
        (each, user) for each, users in zip(tickets, wanted, strict=True) for user in users
    )
    assert refreshed == expected


def test_neither_lane_takes_the_last_place() -> None:
    small, bulk, both = Backlog(1), Backlog(1), Backlog(1)
    for backlog in (small, both):
        backlog.add(ticket(), {"": {3}})
    for backlog in (bulk, both):
        backlog.add(ticket(), {"": {1, 2}})
    assert lane_to_serve(Backlog(1), Counter(), 3, {}) is None
    assert lane_to_serve(both, Counter(), 3, {}) is Lane.FRESH
    assert lane_to_serve(both, Counter({Lane.BULK: 2}), 3, {}) is Lane.FRESH
    assert lane_to_serve(both, Counter({Lane.FRESH: 2}), 3, {}) is Lane.BULK
    assert lane_to_serve(bulk, Counter({Lane.BULK: 2}), 3, {}) is None
    assert lane_to_serve(small, Counter({Lane.FRESH: 2}), 3, {}) is None
    assert lane_to_serve(both, Counter({Lane.FRESH: 1, Lane.BULK: 2}), 3, {}) is None
    assert lane_to_serve(both, Counter(), 1, {}) is Lane.FRESH


def test_a_second_batch_of_a_lane_waits_until_enough_have_gathered() -> None:
    backlog = Backlog(bulk_above=50)
    backlog.add(ticket(), {"": {1, 2, 3}})
    gather = {Lane.FRESH: 4, Lane.BULK: 1}
    assert lane_to_serve(backlog, Counter(), 3, gather) is Lane.FRESH
    assert lane_to_serve(backlog, Counter({Lane.BULK: 1}), 3, gather) is Lane.FRESH
    assert lane_to_serve(backlog, Counter({Lane.FRESH: 1}), 3, gather) is None
    backlog.add(ticket(), {"": {4}})
    assert lane_to_serve(backlog, Counter({Lane.FRESH: 1}), 3, gather) is Lane.FRESH


@given(st.integers(0, 100))
def test_visibility_timeout_is_the_backoff_in_whole_seconds(attempt: int) -> None:
    full = min(300.0, 2.0 ** max(0, attempt - 1))
    assert max(1, full / 2) <= visibility_seconds(Backoff(1.0, 300.0), attempt) <= full
