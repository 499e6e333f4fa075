"""What differs about a person, and what of it is drift."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reconciler.domain.drift import (
    Applied,
    Cached,
    Difference,
    DriftKind,
    Look,
    is_suspect,
    lasting,
)
from services.reconciler.testing import packed, person_rows

A, B = packed(person_rows(5)), packed(person_rows(5, seed=1))
RIGHT = Applied(version=3, context=77, rows=A, is_absent=False, is_altered=False)
GONE = Applied(version=3, context=0, rows=b"", is_absent=True, is_altered=False)
KEPT = Cached(77, is_intact=True)


@pytest.mark.parametrize(
    "look",
    [
        Look(A, RIGHT, None),
        Look(A, RIGHT, KEPT),
        Look(None, GONE, None),
        Look(None, None, None),
        Look(None, GONE, Cached(0, is_intact=True)),
        Look(None, None, Cached(0, is_intact=True)),
    ],
)
def test_agreement(look: Look) -> None:
    assert not look.differences()
    assert not is_suspect(look)


@pytest.mark.parametrize(
    ("look", "kinds"),
    [
        (Look(A, None, None), {DriftKind.MISSING}),
        (Look(A, GONE, None), {DriftKind.MISSING}),
        (Look(None, RIGHT, None), {DriftKind.ORPHANED}),
        (Look(B, RIGHT, None), {DriftKind.OUTDATED}),
        (Look(A, RIGHT._replace(is_altered=True), None), {DriftKind.ALTERED}),
        (Look(A, RIGHT, Cached(78, is_intact=True)), {DriftKind.CACHED_OUTDATED}),
        (Look(A, RIGHT, Cached(0, is_intact=True)), {DriftKind.CACHED_OUTDATED}),
        (Look(None, GONE, KEPT), {DriftKind.CACHED_OUTDATED}),
        (Look(None, None, KEPT), {DriftKind.CACHED_OUTDATED}),
        (Look(A, RIGHT, Cached(77, is_intact=False)), {DriftKind.CACHED_ALTERED}),
    ],
)
def test_differences(look: Look, kinds: set[DriftKind]) -> None:
    assert {it.kind for it in look.differences()} == kinds
    assert is_suspect(look)


def test_outdated_rows_name_their_table() -> None:
    rows = person_rows(5)
    other = packed(rows._replace(claims=rows.claims ^ 1))
    assert Look(other, RIGHT, None).differences() == {Difference(DriftKind.OUTDATED, "claims")}


def test_facts_of_unknown_rows_are_refreshed_without_an_accusation() -> None:
    look = Look(A, RIGHT._replace(rows=b"", context=0), KEPT)
    assert is_suspect(look)
    assert not look.differences()


def test_under_another_description_nothing_is_outdated() -> None:
    """The same rows come to something else, and so do contexts."""
    held = RIGHT._replace(rows=packed(person_rows(5, seed=1), edition=2))
    look = Look(A, held, Cached(78, is_intact=True))
    assert is_suspect(look)
    assert not look.differences()
    assert Look(None, held, None).differences() == {Difference(DriftKind.ORPHANED)}
    altered = Look(A, held._replace(is_altered=True), Cached(78, is_intact=False))
    assert {it.kind for it in altered.differences()} == {
        DriftKind.ALTERED,
        DriftKind.CACHED_ALTERED,
    }


def test_records_that_tell_no_edition_are_compared_as_they_are() -> None:
    held = RIGHT._replace(rows=packed(person_rows(5, seed=1), edition=0))
    assert {it.kind for it in Look(A, held, None).differences()} == {DriftKind.OUTDATED}


def test_a_difference_that_stays_is_drift() -> None:
    look = Look(B, RIGHT, None)
    assert {it.kind for it in lasting(look, look)} == {DriftKind.OUTDATED}


@pytest.mark.parametrize(
    "second",
    [
        Look(A, RIGHT, None),
        Look(B, RIGHT._replace(version=4), None),
        Look(packed(person_rows(5, seed=2)), RIGHT, None),
        Look(None, RIGHT, None),
    ],
)
def test_what_moves_between_two_looks_is_under_way(second: Look) -> None:
    assert not lasting(Look(B, RIGHT, None), second)


def test_a_cache_filled_between_two_looks_is_no_drift() -> None:
    first = Look(A, RIGHT, Cached(78, is_intact=True))
    assert lasting(first, first)
    assert not lasting(first, first._replace(cached=Cached(79, is_intact=True)))
    assert not lasting(first, first._replace(cached=None))


_LOOKS = st.builds(
    Look,
    st.sampled_from([None, A, B]),
    st.one_of(
        st.none(),
        st.builds(
            Applied,
            st.integers(1, 3),
            st.sampled_from([0, 77, 78]),
            st.sampled_from([b"", A, B]),
            st.booleans(),
            st.booleans(),
        ),
    ),
    st.one_of(st.none(), st.builds(Cached, st.sampled_from([0, 77, 78]), st.booleans())),
)


@given(_LOOKS, _LOOKS)
def test_drift_was_seen_both_times(first: Look, second: Look) -> None:
    found = lasting(first, second)
    assert found <= first.differences()
    assert found <= second.differences()
    assert lasting(first, first) == first.differences()
