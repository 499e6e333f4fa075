"""What differs about a user, and which differences are drift."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reconciler.domain.drift import (
    AppliedUser,
    CachedUser,
    Difference,
    DriftKind,
    UserSnapshot,
    lasting_differences,
    needs_recheck,
)
from tests.fakes.user_context_rows import packed, person_rows

A, B = packed(person_rows(5)), packed(person_rows(5, seed=1))
RIGHT = AppliedUser(version=3, context=77, rows=A, is_absent=False, is_altered=False)
GONE = AppliedUser(version=3, context=0, rows=b"", is_absent=True, is_altered=False)
KEPT = CachedUser(77, is_intact=True)


@pytest.mark.parametrize(
    "snapshot",
    [
        UserSnapshot(A, RIGHT, None),
        UserSnapshot(A, RIGHT, KEPT),
        UserSnapshot(None, GONE, None),
        UserSnapshot(None, None, None),
        UserSnapshot(None, GONE, CachedUser(0, is_intact=True)),
        UserSnapshot(None, None, CachedUser(0, is_intact=True)),
    ],
)
def test_agreement(snapshot: UserSnapshot) -> None:
    assert not snapshot.differences()
    assert not needs_recheck(snapshot)


@pytest.mark.parametrize(
    ("snapshot", "kinds"),
    [
        (UserSnapshot(A, None, None), {DriftKind.MISSING}),
        (UserSnapshot(A, GONE, None), {DriftKind.MISSING}),
        (UserSnapshot(None, RIGHT, None), {DriftKind.ORPHANED}),
        (UserSnapshot(B, RIGHT, None), {DriftKind.OUTDATED}),
        (UserSnapshot(A, RIGHT._replace(is_altered=True), None), {DriftKind.ALTERED}),
        (UserSnapshot(A, RIGHT, CachedUser(78, is_intact=True)), {DriftKind.CACHED_OUTDATED}),
        (UserSnapshot(A, RIGHT, CachedUser(0, is_intact=True)), {DriftKind.CACHED_OUTDATED}),
        (UserSnapshot(None, GONE, KEPT), {DriftKind.CACHED_OUTDATED}),
        (UserSnapshot(None, None, KEPT), {DriftKind.CACHED_OUTDATED}),
        (UserSnapshot(A, RIGHT, CachedUser(77, is_intact=False)), {DriftKind.CACHED_ALTERED}),
    ],
)
def test_differences(snapshot: UserSnapshot, kinds: set[DriftKind]) -> None:
    assert {it.kind for it in snapshot.differences()} == kinds
    assert needs_recheck(snapshot)


def test_outdated_rows_name_their_table() -> None:
    rows = person_rows(5)
    other = packed(rows._replace(claims=rows.claims ^ 1))
    assert UserSnapshot(other, RIGHT, None).differences() == {
        Difference(DriftKind.OUTDATED, "claims")
    }


def test_facts_of_unknown_rows_are_refreshed_without_a_drift_report() -> None:
    snapshot = UserSnapshot(A, RIGHT._replace(rows=b"", context=0), KEPT)
    assert needs_recheck(snapshot)
    assert not snapshot.differences()


def test_under_another_description_nothing_is_outdated() -> None:
    """The same rows come to something else, and so do contexts."""
    held = RIGHT._replace(rows=packed(person_rows(5, seed=1), edition=2))
    snapshot = UserSnapshot(A, held, CachedUser(78, is_intact=True))
    assert needs_recheck(snapshot)
    assert not snapshot.differences()
    assert UserSnapshot(None, held, None).differences() == {Difference(DriftKind.ORPHANED)}
    altered = UserSnapshot(A, held._replace(is_altered=True), CachedUser(78, is_intact=False))
    assert {it.kind for it in altered.differences()} == {
        DriftKind.ALTERED,
        DriftKind.CACHED_ALTERED,
    }


def test_records_that_tell_no_edition_are_compared_as_they_are() -> None:
    held = RIGHT._replace(rows=packed(person_rows(5, seed=1), edition=0))
    assert {it.kind for it in UserSnapshot(A, held, None).differences()} == {DriftKind.OUTDATED}


def test_a_difference_that_stays_is_drift() -> None:
    snapshot = UserSnapshot(B, RIGHT, None)
    assert {it.kind for it in lasting_differences(snapshot, snapshot)} == {DriftKind.OUTDATED}


@pytest.mark.parametrize(
    "second",
    [
        UserSnapshot(A, RIGHT, None),
        UserSnapshot(B, RIGHT._replace(version=4), None),
        UserSnapshot(packed(person_rows(5, seed=2)), RIGHT, None),
        UserSnapshot(None, RIGHT, None),
    ],
)
def test_what_changes_between_two_snapshots_is_in_flight(second: UserSnapshot) -> None:
    assert not lasting_differences(UserSnapshot(B, RIGHT, None), second)


def test_a_cache_filled_between_two_snapshots_is_no_drift() -> None:
    first = UserSnapshot(A, RIGHT, CachedUser(78, is_intact=True))
    assert lasting_differences(first, first)
    assert not lasting_differences(first, first._replace(cached=CachedUser(79, is_intact=True)))
    assert not lasting_differences(first, first._replace(cached=None))


_LOOKS = st.builds(
    UserSnapshot,
    st.sampled_from([None, A, B]),
    st.one_of(
        st.none(),
        st.builds(
            AppliedUser,
            st.integers(1, 3),
            st.sampled_from([0, 77, 78]),
            st.sampled_from([b"", A, B]),
            st.booleans(),
            st.booleans(),
        ),
    ),
    st.one_of(st.none(), st.builds(CachedUser, st.sampled_from([0, 77, 78]), st.booleans())),
)


@given(_LOOKS, _LOOKS)
def test_drift_was_seen_both_times(first: UserSnapshot, second: UserSnapshot) -> None:
    found = lasting_differences(first, second)
    assert found <= first.differences()
    assert found <= second.differences()
    assert lasting_differences(first, first) == first.differences()
