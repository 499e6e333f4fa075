"""Which people a changed row concerns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainapp import description
from services.cdc_ingest.domain.formats.records import (
    ChangeRecord,
    Image,
    Kind,
    LostTrack,
    Operation,
)
from services.cdc_ingest.domain.people import Demand, PersonMap, RowKey, people_of

PEOPLE = PersonMap(description.load())


def demand(*changes: tuple[str, Image | None, Image | None]) -> Demand:
    """The people that changes of (table, before, after) concern."""
    return PEOPLE.demand(
        ChangeRecord(table, Operation.UPDATE, tuple(i for i in (before, after) if i))
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
    users, unknown = people_of([k for k in found.keys if isinstance(k, RowKey)], found.owners)
    assert users == {5, 4}
    assert not unknown


def test_an_unknown_table_is_counted() -> None:
    found = demand(("jobs", None, {"id": 1}))
    assert not found.keys
    assert (found.ignored, found.fault) == (1, None)


@pytest.mark.parametrize(
    ("table", "image"),
    [("users", None), ("users", {"id": None}), ("claims", {"id": ""}), ("claims", {"status": "x"})],
)
def test_a_change_without_a_readable_owner_is_a_fault(table: str, image: Image | None) -> None:
    found = demand((table, None, image), ("users", None, {"id": 5}))
    assert found.fault == "ROW_NOT_IDENTIFIED"
    assert found.keys == {5}


def test_a_claim_with_another_key_concerns_its_person() -> None:
    assert demand(("claims", {"id": 8, "user_id": 5}, {"id": 9, "user_id": 5})).keys == {5}


def test_a_requirement_with_another_key_asks_for_both_when_its_claim_is_not_told() -> None:
    found = demand(("claim_requirements", {"id": "q"}, {"id": "r"}))
    assert found.keys == {RowKey("claim_requirements", "q"), RowKey("claim_requirements", "r")}


def test_a_requirement_that_moves_between_people_by_its_claim() -> None:
    found = demand(
        ("claims", None, {"id": 8, "user_id": 4}),
        ("claims", None, {"id": 9, "user_id": 5}),
        ("claim_requirements", {"id": "r", "claim_id": 8}, {"id": "r", "claim_id": 9}),
    )
    users, unknown = people_of([k for k in found.keys if isinstance(k, RowKey)], found.owners)
    assert (users, unknown) == ({4, 5}, set())


def _deleted(table: str, image: Image) -> Demand:
    return PEOPLE.demand([ChangeRecord(table, Operation.DELETE, (image,))])


def test_a_cascade_shows_in_the_parent_alone() -> None:
    """InnoDB writes no events of the children: the claim's own event must name the person."""
    found = _deleted("claims", {"id": 9, "user_id": 4, "status": "open"})
    assert found.keys == {4}
    assert _deleted("users", {"id": 4}).keys == {4}
    assert _deleted("claim_requirements", {"id": "r", "claim_id": 9}).keys == {
        RowKey("claims", "9")
    }


@pytest.mark.parametrize(
    ("table", "image"),
    [
        ("claims", {"id": 9}),
        ("claims", {"id": 9, "user_id": None, "status": None}),
        ("claim_requirements", {"id": "r"}),
        ("user_addresses", {"id": "a"}),
    ],
)
def test_a_deletion_that_shows_only_its_key_asks_for_a_full_run(table: str, image: Image) -> None:
    found = _deleted(table, image)
    assert found.lost_track == LostTrack(table, "delete-of-key-alone")
    assert not found.keys


def test_a_deleted_row_without_an_owner_is_no_loss() -> None:
    found = _deleted("user_addresses", {"id": "a", "user_id": None, "county": "Kent"})
    assert found.lost_track is None


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        (["claims"], "claims"),
        (["claims", "users", "claims"], "claims, users"),
        (["claims", "jobs"], "claims"),
        ([""], ""),
        (["claims", "", "users"], ""),
        (["", "claims"], ""),
    ],
)
def test_lost_track_names_the_tables(tables: list[str], named: str) -> None:
    """An empty name stands for any table."""
    found = PEOPLE.demand(LostTrack(table, "truncate-table") for table in tables)
    assert found.lost_track == LostTrack(named, "truncate-table")


def test_what_is_absorbed_is_demanded() -> None:
    first = demand(("claims", None, {"id": 8, "user_id": 4}), ("claims", None, {"id": "x"}))
    second = demand(("claims", None, {"id": 9, "user_id": 5}), ("jobs", None, {}))
    third = PEOPLE.demand([LostTrack("claims", "gap")])
    second.absorb(first)
    second.absorb(third)
    assert second.lost_track == LostTrack("claims", "gap")
    assert second.keys == {4, 5}
    assert set(second.owners) == {RowKey("claims", "8"), RowKey("claims", "9")}
    assert second.fault == "KEY_NOT_A_NUMBER"
    assert (second.records, second.ignored) == (4, 1)


def test_a_way_round_in_circles_ends() -> None:
    a, b = RowKey("claims", "1"), RowKey("claims", "2")
    assert people_of([a], {a: {b}, b: {a, 7}}) == ({7}, set())


NO_OWNER = st.integers(-(2**63), 0)


@given(NO_OWNER, NO_OWNER)
def test_a_row_that_names_no_possible_owner_is_counted_and_done(old: int, new: int) -> None:
    changes: list[tuple[str, Image | None, Image | None]] = [
        ("user_addresses", None, {"id": "a", "user_id": new}),
        ("user_addresses", {"id": "a", "user_id": old}, {"id": "a", "user_id": str(new)}),
        ("claims", {"id": 9, "user_id": old}, None),
        ("claim_requirements", None, {"id": "r", "claim_id": new}),
        ("users", None, {"id": new}),
    ]
    for change in changes:
        found = demand(change)
        assert (found.keys, found.fault, found.lost_track) == (set(), None, None)
        assert found.counts == {("", Kind.OWNERLESS): 1}
        assert found.ignored == 1


@given(NO_OWNER)
def test_a_row_that_had_or_gets_an_owner_concerns_that_owner(none: int) -> None:
    row = {"id": "a", "user_id": 5}
    assert demand(("user_addresses", {**row, "user_id": none}, row)).keys == {5}
    assert demand(("user_addresses", row, {**row, "user_id": none})).keys == {5}


@pytest.mark.parametrize("key", [0, -3, "x", 1.5, [1]])
def test_the_key_of_a_row_whose_owner_is_known_does_not_matter(key: object) -> None:
    found = demand(("claims", None, {"id": key, "user_id": 5}))
    assert (found.keys, found.fault) == ({5}, None)
    assert demand(("claims", None, {"id": key, "status": "x"})).fault is not None


def test_an_unreadable_owner_is_a_fault_and_the_other_owner_is_done() -> None:
    found = demand(("claims", {"id": 9, "user_id": "x"}, {"id": 9, "user_id": 5}))
    assert (found.keys, found.fault) == ({5}, "KEY_NOT_A_NUMBER")
