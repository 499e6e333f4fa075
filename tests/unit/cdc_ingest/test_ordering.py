"""Which of two changes of a row is later, and the verdict on a reading of either."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from itertools import combinations, permutations
from typing import Any

import pytest
from dialler.model.v1.facts_pb2 import ClaimFacts, UserFacts
from hypothesis import given
from hypothesis import strategies as st

from mainapp import description
from services.cdc_ingest.domain.backlog import MessageTicket
from services.cdc_ingest.domain.messages import Arrival
from services.cdc_ingest.domain.ordering import (
    Delivery,
    LogPosition,
    Order,
    Precedence,
    file_position,
    gtid_position,
    place_position,
    precedence,
)
from services.cdc_ingest.domain.rereading import Decision, StalenessCheck, Step
from services.cdc_ingest.domain.staleness import ReadingVerdict, RowObserver
from services.cdc_ingest.refresh.readings import FactsReading
from services.cdc_ingest.sqs.message_reader import read_message
from tests.unit.cdc_ingest.bodies import PEOPLE, message

NOW = datetime(2026, 6, 2, 12, tzinfo=UTC)
ROW = {"id": 9, "user_id": 5, "lender": "x"}
RETRY_SECONDS = 600.0


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def maxwell(kind: str, old: Any, new: Any, n: int, **more: object) -> dict[str, Any]:
    made = {"database": "mainapp", "table": "claims", "type": kind, "ts": 1_780_401_500}
    made |= {"xid": 100 + n, "commit": True, "data": new if new is not None else old}
    return made | ({"old": {"status": old["status"]}} if old and new else {}) | more


def debezium(kind: str, old: Any, new: Any, n: int, **more: object) -> dict[str, Any]:
    source = {"table": "claims", "db": "mainapp", "ts_ms": 1_780_401_500_000, "server_id": 1}
    source |= {"file": "mysql-bin.000003", "pos": 1_000 + n, "row": 0, **more}
    op = {"insert": "c", "update": "u", "delete": "d"}[kind]
    return {"before": old, "after": new, "op": op, "ts_ms": 1_780_401_500_123, "source": source}


def dms(kind: str, old: Any, new: Any, n: int, **more: object) -> dict[str, Any]:
    metadata: dict[str, object] = {"operation": kind, "record-type": "data", "table-name": "claims"}
    metadata |= {"timestamp": "2026-06-02T11:58:20.000000Z", "transaction-id": 12_884_901_888 + n}
    made = {"data": new if new is not None else old, "metadata": metadata | more}
    return made | ({"before-image": old} if old and new else {})


MAKERS = [maxwell, debezium, dms]


def status(name: str) -> dict[str, Any]:
    return {**ROW, "status": name}


def showing(*statuses: str, executed: str = "") -> FactsReading:
    """A reading of person 5 with claim 9, or without it, of a server that had executed so much."""
    claims = [ClaimFacts(claim_id=9, status=name, lender="x") for name in statuses]
    facts = UserFacts(user_id=5, exists=True, is_enabled=True, claims=claims)
    return FactsReading([facts], executed)


class Replica:
    """One replica of the ingest, which receives messages and judges readings."""

    def __init__(self) -> None:
        self.staleness_check = StalenessCheck(settle_seconds=1, retry_seconds=RETRY_SECONDS)
        self.observer = RowObserver(description.load())

    def received(self, body: object, name: str, sent: float = 0, came: float = 1) -> MessageTicket:
        """The ticket of a message just received."""
        delivery = dataclasses.replace(
            message(json.dumps(body)),
            message_id=name,
            sent_at=at(sent),
            received_at=at(came),
            first_received_at=at(came),
        )
        found: Arrival = read_message(delivery, PEOPLE, self.observer)
        assert found.demand.fault is None
        assert found.demand.keys == {5}
        self.staleness_check.note(found.observations)
        return MessageTicket(delivery, found.times, found.demand.owners, found.observations)

    def decide(self, ticket: MessageTicket, reading: FactsReading, after: float = 1) -> Decision:
        """The decision on person 5 for a reading at this time after noon."""
        return self.staleness_check.decide(ticket, 5, reading, at(after), at(after))

    def last(self, ticket: MessageTicket, reading: FactsReading) -> Decision:
        """The decision once readings are retried no longer."""
        return self.decide(ticket, reading, RETRY_SECONDS + 2)


@pytest.mark.parametrize("make", MAKERS)
def test_there_and_back_at_one_moment_is_settled(make: Any) -> None:
    replica = Replica()
    out = replica.received(make("update", status("open"), status("checking"), 1), "1")
    back = replica.received(make("update", status("checking"), status("open"), 2), "2")
    assert replica.decide(back, showing("open")).step is Step.DONE
    assert replica.decide(out, showing("open"), 2.5).step is Step.DONE, "one more reading at most"
    assert replica.last(back, showing("checking")).step is Step.DEAD_LETTER, (
        "that would be the past"
    )


@pytest.mark.parametrize("make", MAKERS)
def test_put_in_and_taken_out_at_one_moment_is_settled(make: Any) -> None:
    replica = Replica()
    put_in = replica.received(make("insert", None, status("open"), 1), "1")
    taken_out = replica.received(make("delete", status("open"), None, 2), "2")
    assert replica.decide(taken_out, showing()).step is Step.DONE
    assert replica.decide(put_in, showing(), 2.5).step is Step.DONE
    assert replica.last(taken_out, showing("open")).step is Step.DEAD_LETTER


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_positions_order_messages_that_come_in_any_order(order: tuple[int, ...]) -> None:
    steps = ["open", "checking", "open", "checking"]
    bodies = [debezium("update", status(steps[n]), status(steps[n + 1]), n) for n in range(3)]
    replica = Replica()
    tickets = {n: replica.received(bodies[n], str(n), sent=place) for place, n in enumerate(order)}
    assert [replica.decide(tickets[n], showing("checking")).step for n in range(3)] == [
        Step.DONE
    ] * 3
    # The last change is not there yet: only those before it may be done with.
    assert replica.last(tickets[2], showing("open")).step is Step.DEAD_LETTER
    assert replica.decide(tickets[1], showing("open")).verdict is ReadingVerdict.SHOWN


def test_of_two_changes_that_came_the_wrong_way_round_neither_is_dead_lettered() -> None:
    replica = Replica()
    back = replica.received(
        maxwell("update", status("checking"), status("open"), 0, xid=None), "2", 5
    )
    out = replica.received(
        maxwell("update", status("open"), status("checking"), 0, xid=None), "1", 5
    )
    assert replica.decide(back, showing("open"), 3).step is Step.DONE
    # It may as well be that the reading is too old for it.
    assert replica.decide(out, showing("open"), 3).step is Step.AGAIN
    assert replica.last(out, showing("open")).step is Step.DONE


def test_arrival_is_not_believed_against_what_the_images_tell() -> None:
    replica = Replica()
    late = replica.received(maxwell("update", status("b"), status("c"), 0, xid=None), "2", 5)
    replica.received(maxwell("update", status("a"), status("b"), 0, xid=None), "1", 6)
    assert replica.decide(late, showing("b"), 3).step is Step.AGAIN
    assert replica.last(late, showing("b")).step is Step.DEAD_LETTER


def test_the_same_message_delivered_again_is_no_later_change() -> None:
    replica = Replica()
    replica.received(maxwell("update", status("open"), status("checking"), 1), "1")
    again = replica.received(maxwell("update", status("open"), status("checking"), 1), "1")
    assert replica.decide(again, showing("open")).step is Step.AGAIN
    assert replica.last(again, showing("open")).step is Step.DEAD_LETTER


@pytest.mark.parametrize("ahead_seconds", [2, 3_600, 2_300_000_000])
def test_a_clock_that_was_ahead_does_not_let_a_stale_reading_pass(ahead_seconds: int) -> None:
    ahead = (at(ahead_seconds)).isoformat()
    orders: list[tuple[dict[str, object], dict[str, object]]] = [
        ({}, {}),
        ({"transaction-id": None}, {"transaction-id": None}),
        ({"stream-position": "bin.000001:500:0"}, {"stream-position": "bin.000001:600:0"}),
    ]
    for first, second in orders:
        replica = Replica()
        replica.received(
            dms("update", status("a"), status("b"), 1, timestamp=ahead, **first), "1", 0
        )
        late = replica.received(
            dms("update", status("b"), status("inactive"), 2, **second), "2", 0.5
        )
        assert replica.decide(late, showing("b")).step is Step.AGAIN
        assert replica.last(late, showing("b")).step is Step.DEAD_LETTER


def test_a_clock_that_went_back_does_not_matter_where_positions_are_told() -> None:
    replica = Replica()
    early = debezium("update", status("a"), status("b"), 1) | {"ts_ms": 1_780_401_505_000}
    replica.received(early, "1")
    late = replica.received(debezium("update", status("b"), status("c"), 2), "2")
    assert replica.last(late, showing("b")).step is Step.DEAD_LETTER


def test_positions_of_a_log_begun_anew_prove_nothing() -> None:
    old = Order(at(0), LogPosition("1/bin", (900, 4)), committed_at=at(0))
    new = Order(at(3_600), LogPosition("1/bin", (1, 4)), committed_at=at(3_600))
    assert precedence(old, new) is Precedence.UNKNOWN
    assert precedence(new._replace(committed_at=at(2)), old) is Precedence.UNKNOWN
    assert precedence(new._replace(committed_at=at(1)), old) is Precedence.EARLIER, "whole seconds"


def moved(first_server: str | None, second_server: str | None, apart: int) -> tuple[Any, Any]:
    """A change and its reverse seconds later, on a server whose log has lower numbers."""
    made = []
    steps = [("x", "y", "mysql-bin.000100:500:0", first_server, at(-60)),
             ("y", "x", "mysql-bin.000007:4:0", second_server, at(-60 + apart))]  # fmt: skip
    for n, (old, new, place, server, moment) in enumerate(steps):
        told: dict[str, object] = {"timestamp": moment.isoformat(), "stream-position": place}
        told |= {"commit-timestamp": moment.isoformat(), "transaction-id": 900 - n}
        told |= {} if server is None else {"source-server": server}
        made.append(dms("update", status(old), status(new), n, **told))
    return made[0], made[1]


@pytest.mark.parametrize("apart", [2, 40, 60])
@pytest.mark.parametrize("arrivals", [(0, 1), (1, 0)])
def test_a_fail_over_to_a_log_with_lower_numbers_proves_nothing(
    apart: int, arrivals: tuple[int, int]
) -> None:
    bodies, replica = moved(None, None, apart), Replica()
    tickets = {n: replica.received(bodies[n], str(n), sent=n) for n in arrivals}
    out, back = tickets[0], tickets[1]
    assert replica.decide(back, showing("y")).step is Step.AGAIN, "that reading may be stale"
    assert replica.last(out, showing("x")).step is Step.DONE, "that one is right"


@pytest.mark.parametrize("apart", [1, 2, 40])
def test_positions_of_two_servers_that_are_named_do_not_compare(apart: int) -> None:
    bodies, replica = moved("a1", "b2", apart), Replica()
    out, back = (replica.received(body, str(n)) for n, body in enumerate(bodies))
    assert replica.decide(out, showing("x")).step is Step.DONE
    assert replica.decide(back, showing("y")).step is Step.AGAIN
    assert replica.last(back, showing("y")).step is Step.DEAD_LETTER


def test_positions_of_a_server_that_is_named_compare() -> None:
    replica = Replica()
    first = {"stream-position": "bin.000001:500:0", "source-server": "a1"}
    later = replica.received(
        dms("update", status("b"), status("c"), 1, **{**first, "stream-position": "bin.2:4"}), "2"
    )
    early = replica.received(dms("update", status("a"), status("b"), 2, **first), "1")
    assert replica.decide(early, showing("c")).step is Step.DONE
    assert replica.last(later, showing("b")).step is Step.DEAD_LETTER


def test_what_is_captured_once_more_is_no_later_for_it() -> None:
    read_again = Order(at(3_600), LogPosition("1/bin", (2, 4)), committed_at=at(0))
    known = Order(at(60), LogPosition("1/bin", (3, 4)), committed_at=at(59))
    assert precedence(read_again, known) is Precedence.EARLIER
    no_place = [order._replace(position=None, sequence=()) for order in (read_again, known)]
    assert precedence(*no_place) is Precedence.UNKNOWN, "a clock may have gone back"
    numbered = [order._replace(sequence=(n,)) for n, order in enumerate(no_place)]
    assert precedence(*numbered) is Precedence.LIKELY_EARLIER


def test_what_another_replica_saw_undone_is_not_dead_lettered_once_later_rows_show() -> None:
    replica = Replica()
    put_in = replica.received(debezium("insert", None, status("open"), 1), "1", came=0)
    body = debezium("insert", None, {**status("open"), "id": 10}, 2) | {"ts_ms": 1_780_401_600_000}
    other = replica.received(body, "2", came=90)
    assert replica.last(put_in, showing()).step is Step.DEAD_LETTER, (
        "the MySQL replica may be that late"
    )
    claims = [ClaimFacts(claim_id=10, status="open", lender="x")]
    later = FactsReading([UserFacts(user_id=5, exists=True, is_enabled=True, claims=claims)])
    assert replica.decide(other, later, 91).step is Step.DONE
    assert replica.decide(put_in, later, 30).step is Step.AGAIN
    assert replica.decide(put_in, later, RETRY_SECONDS / 10 + 1).step is Step.DONE


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("server", ["0-1-", f"{'a' * 36}:"])
def test_what_was_set_back_for_another_replica_is_settled_by_what_the_server_has_executed(
    make: Any, server: str
) -> None:
    replica, name = Replica(), "source-gtid" if make is dms else "gtid"
    body = make("update", status("open"), status("checking"), 1, **{name: f"{server}7"})
    out = replica.received(body, "1")
    last = f"{server}1-" if ":" in server else server
    late, named = (showing("open", executed=f"{last}{number}") for number in (6, 9))
    for lagging in (late, showing("open"), showing("open", executed="5-5-9")):
        assert replica.last(out, lagging).step is Step.DEAD_LETTER, "the MySQL replica is late"
    # XA, and MariaDB, name a transaction before it can be read.
    assert replica.decide(out, named).step is Step.AGAIN
    assert replica.decide(out, late, RETRY_SECONDS / 10 + 2).step is Step.AGAIN
    assert replica.decide(out, named, RETRY_SECONDS / 10 + 2).step is Step.DONE


@pytest.mark.parametrize("kind", ["insert", "delete"])
def test_a_row_that_went_or_came_again_is_settled_by_what_the_server_has_executed(
    kind: str,
) -> None:
    replica, gtid = Replica(), f"{'a' * 36}:7"
    old, new = (None, status("open")) if kind == "insert" else (status("open"), None)
    changed = replica.received(debezium(kind, old, new, 1, gtid=gtid), "1")
    opposite = [] if kind == "insert" else ["open"]
    assert replica.last(changed, showing(*opposite)).step is Step.DEAD_LETTER
    assert replica.last(changed, showing(*opposite, executed=gtid)).step is Step.DONE


def test_a_time_after_the_message_came_is_not_believed() -> None:
    delivery = Delivery(Order(), came_at=NOW)
    assert delivery.order_of(at(0.001), at(0.001)) == Order()
    assert delivery.order_of(at(-1), at(-2)) == Order(at(-1), committed_at=at(-2))
    assert delivery.order_of(at(1), at(-2)) == Order(None, committed_at=at(-2))
    assert delivery.order_of(None, at(-2)).at == at(-2)
    assert Delivery().order_of(at(1), None).at == at(1), "nothing to compare with"


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (file_position(1, "bin.000009", 5_000), file_position(1, "bin.000010", 4)),
        (file_position(1, "bin.000009", "99"), file_position(1, "bin.000009", "100", 0)),
        (place_position(1, "bin.000009:99"), place_position(1, "bin.000009:100:0:x")),
        (place_position(1, "bin.9:5", 1), place_position(1, "bin.9:5", 2)),
        (gtid_position(f"{'a' * 36}:9"), gtid_position(f"{'a' * 36}:10")),
        (gtid_position(f"{'a' * 36}:tag:9"), gtid_position(f"{'a' * 36}:tag:10")),
        (gtid_position("0-1-9"), gtid_position("0-2-10")),
    ],
)
def test_positions_of_one_log_compare(earlier: LogPosition, later: LogPosition) -> None:
    one, other = Order(position=earlier), Order(position=later)
    assert precedence(one, other) is Precedence.EARLIER
    assert precedence(other, one) is Precedence.LATER


@pytest.mark.parametrize(
    "written",
    [None, "", "bin", "bin.x:5", "bin.000001", 7, ["bin.1:5"], "1" * 5_000, "x:" + "9" * 5_000],
)
def test_what_is_no_position_tells_none(written: object) -> None:
    assert place_position("", written) is None
    assert gtid_position(written) is None
    assert file_position("", written) is None


SMALL = st.integers(0, 3)
POSITIONS = st.none() | st.builds(
    LogPosition, st.sampled_from(["1/a", "2/a"]), st.tuples(SMALL, SMALL)
)
ORDERS = st.builds(
    Order,
    at=st.none() | SMALL.map(at),
    position=POSITIONS,
    sequence=st.just(()) | st.tuples(SMALL),
    sent_at=st.none() | SMALL.map(at),
    arrival=SMALL,
    committed_at=st.none() | SMALL.map(at),
)


@given(ORDERS, ORDERS)
def test_either_way_round_says_the_same(one: Order, other: Order) -> None:
    assert precedence(one, other) == -precedence(other, one)
    assert precedence(one, one) is Precedence.UNKNOWN
    if one.position and other.position and one.position.log == other.position.log:
        there = one.position.numbers > other.position.numbers
        back = one.position.numbers < other.position.numbers
        if there or back:
            expected = Precedence.LATER if there else Precedence.EARLIER
            if one.committed_at and other.committed_at:
                ahead = (one.committed_at - other.committed_at).total_seconds()
                if (-ahead if there else ahead) >= 2:
                    expected = Precedence.UNKNOWN
            assert precedence(one, other) is expected


@given(
    st.lists(
        st.tuples(st.integers(2, 90), st.integers(1, 200), st.integers(4, 900)),
        min_size=2,
        max_size=6,
    )
)
def test_no_server_makes_an_earlier_change_the_later(steps: list[tuple[int, int, int]]) -> None:
    """Changes that are seconds apart, with any numbers in the logs of unnamed servers."""
    orders, moment = [], 0
    for apart, file, offset in steps:
        moment += apart
        position = place_position("", f"mysql-bin.{file:06}:{offset}:0")
        orders.append(Order(at(moment), position, committed_at=at(moment)))
    for earlier, later in combinations(orders, 2):
        assert precedence(earlier, later) in (Precedence.EARLIER, Precedence.UNKNOWN)
