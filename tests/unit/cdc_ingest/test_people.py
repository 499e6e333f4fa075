"""Whom a changed row concerns."""

from mainapp import description
from services.cdc_ingest.domain.people import Demand, PersonMap, RowKey, place
from services.cdc_ingest.domain.records import Image, Operation, RowChange

PEOPLE = PersonMap(description.load())


def demand(*changes: tuple[str, Image | None, Image | None]) -> Demand:
    """Whom changes of (table, before, after) concern."""
    return PEOPLE.demand(
        RowChange(table, Operation.UPDATE, tuple(i for i in (before, after) if i))
        for table, before, after in changes
    )


def test_a_user_concerns_himself() -> None:
    assert demand(("users", None, {"id": 5})).keys == {5}


def test_a_changed_key_concerns_both() -> None:
    assert demand(("users", {"id": 4}, {"id": 5})).keys == {4, 5}


def test_a_claim_that_moves_concerns_both() -> None:
    assert demand(("claims", {"user_id": 4}, {"id": 9, "user_id": "5"})).keys == {4, 5}


def test_a_deleted_claim_concerns_whom_it_was_of() -> None:
    assert demand(("claims", {"id": 9, "user_id": 4}, None)).keys == {4}


def test_an_address_concerns_its_user() -> None:
    assert demand(("user_addresses", None, {"id": "a", "user_id": 3})).keys == {3}


def test_a_requirement_is_found_through_its_claim() -> None:
    found = demand(("claim_requirements", {"claim_id": 8}, {"id": "r", "claim_id": 9}))
    assert found.keys == {RowKey("claims", "8"), RowKey("claims", "9")}


def test_a_row_that_does_not_show_its_parent_is_asked_for_itself() -> None:
    assert demand(("claims", None, {"id": 9, "status": "x"})).keys == {RowKey("claims", "9")}
    assert demand(("claim_requirements", None, {"id": "r"})).keys == {
        RowKey("claim_requirements", "r")
    }


def test_a_before_image_of_the_key_alone_asks_for_nothing_more() -> None:
    assert demand(("claims", {"id": 9}, {"id": 9, "user_id": 5})).keys == {5}


def test_a_claim_in_the_same_message_serves_its_requirements() -> None:
    found = demand(
        ("claim_requirements", None, {"id": "r", "claim_id": 9}),
        ("claims", {"user_id": 4}, {"id": 9, "user_id": 5}),
    )
    users, unknown = place([k for k in found.keys if isinstance(k, RowKey)], found.owners)
    assert users == {5, 4}
    assert not unknown


def test_unknown_tables_and_rows_without_anything_are_counted() -> None:
    found = demand(("jobs", None, {"id": 1}), ("users", None, None), ("claims", None, {"id": None}))
    assert not found.keys
    assert found.ignored == 3


def test_a_way_round_in_circles_ends() -> None:
    a, b = RowKey("claims", "1"), RowKey("claims", "2")
    assert place([a], {a: {b}, b: {a, 7}}) == ({7}, set())
