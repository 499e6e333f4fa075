"""Whether a reading is older than the change in a message."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dialler.model.v1.facts_pb2 import ClaimFacts, RequirementFacts, UserFacts
from hypothesis import given
from hypothesis import strategies as st

from mainapp import description
from services.cdc_ingest.domain.backlog import Lane, MessageTicket
from services.cdc_ingest.domain.formats.records import ChangeRecord, Image, Operation
from services.cdc_ingest.domain.messages import ChangeTimes, Message
from services.cdc_ingest.domain.people import Key, RowKey
from services.cdc_ingest.domain.rereading import Rereadings, StalenessCheck, Step
from services.cdc_ingest.domain.staleness import (
    SHOWN,
    LatestObservations,
    Observations,
    ReadingVerdict,
    RowObserver,
    verdict,
)
from services.cdc_ingest.refresh.readings import FactsReading
from services.cdc_ingest.sqs.message_reader import read_message
from tests.unit.cdc_ingest.bodies import PEOPLE, dms, message

NOW = datetime(2025, 6, 2, 12, tzinfo=UTC)
OBSERVER = RowObserver(description.load())
CLAIM = {"id": 9, "user_id": 5, "status": "open", "lender": "Black Horse", "solicitor": None}
UPDATE, INSERT, DELETE = Operation.UPDATE, Operation.INSERT, Operation.DELETE


def seen(
    operation: Operation,
    *images: Image,
    table: str = "claims",
    at: datetime | None = NOW,
) -> Observations:
    """The observations of one record."""
    return OBSERVER.observe([ChangeRecord(table, operation, images, captured_at=at)])


def reading(**user: Any) -> FactsReading:
    """A reading of person 5."""
    return FactsReading([UserFacts(**({"user_id": 5, "exists": True} | user))])


def claims(**columns: Any) -> FactsReading:
    """A reading of person 5 with claim 9."""
    return reading(claims=[ClaimFacts(claim_id=9, **columns)])


def judged(
    observations: Observations,
    found: FactsReading,
    place: Key = 5,
    latest: LatestObservations | None = None,
) -> ReadingVerdict:
    """The verdict on the observed rows of one person or claim."""
    return verdict(observations.get(place), place, found, latest or LatestObservations())


def test_the_description_names_the_columns_that_are_compared() -> None:
    compared = {name: set(table.compared) for name, table in description.load().tables.items()}
    assert {name: of for name, of in compared.items() if of} == {
        name: set(columns) for name, columns in SHOWN.items()
    }


def test_the_columns_compared_are_facts_of_the_description() -> None:
    tables = description.load().tables
    for table, columns in SHOWN.items():
        assert set(columns) <= set(tables[table].facts)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("ended", ReadingVerdict.SHOWN),
        ("open", ReadingVerdict.STALE),
        ("other", ReadingVerdict.DOUBTFUL),
    ],
)
def test_an_update_is_shown_or_not(status: str, expected: ReadingVerdict) -> None:
    told = seen(UPDATE, CLAIM, CLAIM | {"status": "ended"})
    assert judged(told, claims(status=status, lender="Black Horse")) is expected


def test_a_row_that_is_not_there_is_older_or_newer() -> None:
    told = seen(UPDATE, CLAIM, CLAIM | {"status": "ended"})
    assert judged(told, reading()) is ReadingVerdict.DOUBTFUL


def test_a_column_that_became_null_may_be_left_out() -> None:
    after = {name: value for name, value in CLAIM.items() if name != "status"}
    told = seen(UPDATE, CLAIM, after)
    assert judged(told, claims(lender="Black Horse")) is ReadingVerdict.SHOWN
    assert judged(told, claims(status="open", lender="Black Horse")) is ReadingVerdict.STALE


def test_what_facts_do_not_show_is_untold() -> None:
    told = seen(UPDATE, CLAIM, CLAIM | {"solicitor": "Smith"})
    assert judged(told, claims(status="open", lender="Black Horse")) is ReadingVerdict.UNTOLD


def test_without_an_image_before_a_match_says_nothing_and_a_difference_is_doubted() -> None:
    told = seen(UPDATE, CLAIM)
    assert judged(told, claims(status="open", lender="Black Horse")) is ReadingVerdict.UNTOLD
    assert judged(told, claims(status="ended", lender="Black Horse")) is ReadingVerdict.DOUBTFUL


def test_a_new_row_must_be_there_and_a_deleted_one_must_not() -> None:
    assert judged(seen(INSERT, CLAIM), reading()) is ReadingVerdict.STALE
    assert judged(seen(INSERT, CLAIM), claims()) is ReadingVerdict.SHOWN
    assert judged(seen(DELETE, CLAIM), claims()) is ReadingVerdict.STALE
    assert judged(seen(DELETE, CLAIM), reading()) is ReadingVerdict.SHOWN


def test_a_new_person_must_be_there() -> None:
    told = seen(INSERT, {"id": "5", "status": None}, table="users")
    assert judged(told, reading(exists=False)) is ReadingVerdict.STALE
    assert judged(told, reading()) is ReadingVerdict.SHOWN


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ({"current_signature_file_id": None}, {"current_signature_file_id": "f"}, True),
        ({"current_signature_file_id": "f"}, {"current_signature_file_id": None}, False),
    ],
)
def test_a_signature_shows_as_being_there(before: Image, after: Image, shown: bool) -> None:
    told = seen(UPDATE, {"id": 5, **before}, {"id": 5, **after}, table="users")
    assert judged(told, reading(has_signature=shown)) is ReadingVerdict.SHOWN
    assert judged(told, reading(has_signature=not shown)) is ReadingVerdict.STALE


@pytest.mark.parametrize("value", [0, "0", False, "false"])
def test_a_flag_is_read_in_every_form(value: object) -> None:
    told = seen(UPDATE, {"id": 5, "is_enabled": 1}, {"id": 5, "is_enabled": value}, table="users")
    assert judged(told, reading(is_enabled=False)) is ReadingVerdict.SHOWN
    assert judged(told, reading(is_enabled=True)) is ReadingVerdict.STALE


def test_a_claim_that_moves_must_leave_the_one_and_reach_the_other() -> None:
    told = seen(UPDATE, CLAIM | {"user_id": 4}, CLAIM)
    both = FactsReading(
        [
            UserFacts(user_id=4, exists=True, claims=[ClaimFacts(claim_id=9)]),
            UserFacts(user_id=5, exists=True),
        ]
    )
    assert judged(told, both, place=4) is ReadingVerdict.STALE
    assert judged(told, both, place=5) is ReadingVerdict.STALE
    assert judged(told, claims()) is ReadingVerdict.SHOWN


def test_a_requirement_is_looked_for_in_its_claim() -> None:
    row = {"id": "r", "claim_id": 9, "type": "id", "status": "PENDING"}
    place = RowKey("claims", "9")
    told = seen(UPDATE, row, row | {"status": "DONE"}, table="claim_requirements")
    open_, done = (
        claims(requirements=[RequirementFacts(requirement_id="r", type="id", status=status)])
        for status in ("PENDING", "DONE")
    )
    assert judged(told, open_, place) is ReadingVerdict.STALE
    assert judged(told, done, place) is ReadingVerdict.SHOWN
    assert judged(told, reading(), place) is ReadingVerdict.UNTOLD, "the claim may have gone"
    latest = LatestObservations()
    latest.add(seen(INSERT, CLAIM))
    assert judged(told, reading(), place, latest) is ReadingVerdict.DOUBTFUL, (
        "it is only just there"
    )


def test_a_claim_that_went_with_its_requirements_leaves_nothing_to_wait_for() -> None:
    row = {"id": "r", "claim_id": 9, "type": "id", "status": "PENDING"}
    told = seen(INSERT, row, table="claim_requirements")
    latest = LatestObservations()
    latest.add(seen(DELETE, CLAIM, at=NOW + timedelta(seconds=1)))
    assert judged(told, reading(), RowKey("claims", "9"), latest) is ReadingVerdict.SHOWN


def test_what_went_with_its_person_leaves_nothing_to_wait_for() -> None:
    row = {"id": "r", "claim_id": 9, "type": "id", "status": "PENDING"}
    requirement = seen(INSERT, row, table="claim_requirements")
    claim = seen(UPDATE, CLAIM, CLAIM | {"status": "ended"})
    latest = LatestObservations()
    latest.add(claim)
    no_claims = reading(exists=False)
    assert judged(claim, no_claims, latest=latest) is ReadingVerdict.DOUBTFUL
    latest.add(seen(DELETE, {"id": 5}, table="users", at=NOW + timedelta(seconds=1)))
    assert judged(claim, no_claims, latest=latest) is ReadingVerdict.SHOWN
    assert judged(requirement, no_claims, RowKey("claims", "9"), latest) is ReadingVerdict.SHOWN


def test_a_later_observation_of_a_row_takes_over() -> None:
    early = seen(UPDATE, CLAIM, CLAIM | {"status": "ended"})
    late = seen(
        UPDATE, CLAIM | {"status": "ended"}, CLAIM | {"status": "x"}, at=NOW + timedelta(seconds=1)
    )
    latest = LatestObservations()
    # Messages come in any order.
    for each in (late, early):
        latest.add(each)
    oldest = claims(status="open", lender="Black Horse")
    assert judged(early, oldest, latest=latest) is ReadingVerdict.SHOWN
    assert judged(late, oldest, latest=latest) is ReadingVerdict.DOUBTFUL
    assert (
        judged(late, claims(status="x", lender="Black Horse"), latest=latest)
        is ReadingVerdict.SHOWN
    )


def test_of_two_changes_in_one_message_the_later_counts() -> None:
    changes = [
        ChangeRecord("claims", UPDATE, (CLAIM, CLAIM | {"status": "ended"})),
        ChangeRecord("claims", UPDATE, (CLAIM | {"status": "ended"}, CLAIM | {"status": "x"})),
    ]
    told = OBSERVER.observe(changes)
    assert judged(told, claims(status="x", lender="Black Horse")) is ReadingVerdict.SHOWN
    assert judged(told, claims(status="ended", lender="Black Horse")) is ReadingVerdict.STALE


def test_an_address_beside_a_shown_change_is_still_untold() -> None:
    changes = [
        ChangeRecord("claims", UPDATE, (CLAIM, CLAIM | {"status": "ended"})),
        ChangeRecord("user_addresses", UPDATE, ({"id": "a", "user_id": 5, "street": "x"},)),
    ]
    found = claims(status="ended", lender="Black Horse")
    assert judged(OBSERVER.observe(changes), found) is ReadingVerdict.UNTOLD


def test_a_full_load_has_nothing_to_wait_for() -> None:
    assert judged(seen(Operation.LOAD, CLAIM), reading()) is ReadingVerdict.SHOWN


VALUES = st.sampled_from(["open", "ended", "", None])


@given(VALUES, VALUES, VALUES, st.booleans())
def test_only_a_reading_that_could_be_the_later_one_is_shown(
    before: object, after: object, found: str | None, leaves_nulls_out: bool
) -> None:
    def image(status: object) -> Mapping[str, object]:
        row = {"id": 9, "user_id": 5, "status": status}
        return {n: v for n, v in row.items() if v or not leaves_nulls_out}

    found_status = found or None
    result = judged(seen(UPDATE, image(before), image(after)), claims(status=found_status))
    if result is ReadingVerdict.SHOWN:
        assert (after or None) == found_status
    if result is ReadingVerdict.STALE:
        assert (before or None) == found_status != (after or None)
    if found_status == (after or None):
        assert result in (ReadingVerdict.SHOWN, ReadingVerdict.UNTOLD)


@given(st.lists(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=5))))
def test_no_image_breaks_it(images: list[dict[str, Any]]) -> None:
    for table in (*SHOWN, "user_addresses", "unknown"):
        for operation in Operation:
            seen(operation, *images, table=table)


def ticket(told: Observations, *, age_seconds: float = 0) -> MessageTicket:
    """A message that was first received so long ago."""
    first = NOW - timedelta(seconds=age_seconds)
    return MessageTicket(Message("m", "m", "", 1, NOW, first), ChangeTimes(NOW), {}, told)


def test_an_old_reading_is_repeated_with_growing_pauses_then_put_back_then_dead_lettered() -> None:
    staleness_check = StalenessCheck(settle_seconds=1, retry_seconds=60)
    stale = claims(status="open", lender="Black Horse")
    told = seen(UPDATE, CLAIM, CLAIM | {"status": "ended"})
    waiting = ticket(told)
    decisions = [staleness_check.decide(waiting, 5, stale, NOW, NOW) for _ in range(6)]
    assert [each.step for each in decisions] == [Step.AGAIN] * 5 + [Step.PUT_BACK]
    pauses = [(each.at - NOW).total_seconds() for each in decisions if each.at]
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8]
    assert (
        staleness_check.decide(ticket(told, age_seconds=60), 5, stale, NOW, NOW).step
        is Step.DEAD_LETTER
    )


def test_a_doubt_ends_sooner_and_without_a_dead_letter() -> None:
    staleness_check = StalenessCheck(settle_seconds=1, retry_seconds=60)
    other = claims(status="other", lender="Black Horse")
    told = seen(UPDATE, CLAIM, CLAIM | {"status": "ended"})
    assert (
        staleness_check.decide(ticket(told, age_seconds=5), 5, other, NOW, NOW).step is Step.AGAIN
    )
    assert staleness_check.decide(ticket(told, age_seconds=6), 5, other, NOW, NOW).step is Step.DONE


def test_what_cannot_be_told_is_read_once_more_unless_it_was_late_already() -> None:
    staleness_check = StalenessCheck(settle_seconds=1, retry_seconds=60)
    untold = ticket({})
    decision = staleness_check.decide(untold, 5, reading(), NOW, NOW)
    assert (decision.step, decision.at) == (Step.AGAIN, NOW + timedelta(seconds=1))
    assert staleness_check.decide(untold, 5, reading(), NOW, NOW).step is Step.DONE
    late = NOW + timedelta(seconds=1)
    assert staleness_check.decide(ticket({}), 5, reading(), late, late).step is Step.DONE


def test_what_shows_is_read_once() -> None:
    staleness_check = StalenessCheck(settle_seconds=1, retry_seconds=60)
    told = ticket(seen(UPDATE, CLAIM, CLAIM | {"status": "ended"}))
    found = claims(status="ended", lender="Black Horse")
    assert staleness_check.decide(told, 5, found, NOW, NOW).step is Step.DONE


def test_rereadings_come_when_due_and_not_for_what_went_back() -> None:
    rereadings = Rereadings()
    gone, here = ticket({}), ticket({})
    rereadings.add(NOW + timedelta(seconds=2), Lane.FRESH, 1, here)
    rereadings.add(NOW, Lane.BULK, 2, here)
    rereadings.add(NOW, Lane.BULK, 3, gone)
    gone.is_abandoned = True
    assert list(rereadings.take_due(NOW)) == [(Lane.BULK, 2, here)]
    assert rereadings.next_at == NOW + timedelta(seconds=2)
    assert rereadings.drain() == [here]
    assert rereadings.next_at is None


def test_an_endless_number_costs_its_neighbours_nothing() -> None:
    body = [dms(data={"id": "9" * 5_000}), dms(data={"id": 6})]
    found = read_message(message(json.dumps(body)), PEOPLE, OBSERVER)
    assert (found.demand.keys, found.demand.fault) == ({6}, "KEY_NOT_A_NUMBER")
    assert set(found.observations) == {6}


def test_an_observer_that_breaks_costs_a_second_reading_only() -> None:
    class Broken(RowObserver):
        def observe_change(self, *_: object) -> None:
            raise RuntimeError("a bug of ours")

    found = read_message(
        message(json.dumps(dms(data={"id": 6}))), PEOPLE, Broken(description.load())
    )
    assert (found.demand.keys, found.demand.fault, found.observations) == ({6}, None, {})
