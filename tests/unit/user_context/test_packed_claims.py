"""Packed claims are exact, whatever the order in which they are read."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import Exhausted
from services.user_context.batch import packed_claims
from services.user_context.batch.packed_claims import Kinds, Numbers, PackedClaims

_TEXT = st.none() | st.sampled_from(["", "a", "A", "PENDING", "\x00", "😀"])
_REQUIREMENT = st.tuples(st.integers(1, 8), _TEXT, _TEXT, _TEXT)
_CLAIM = st.tuples(st.integers(1, 4), _TEXT, _TEXT, st.sampled_from([-(2**63), 0, 5]))

Rows = list[tuple[Any, ...]]


def _filled(requirements: Rows, claims: Rows, pages: int) -> PackedClaims:
    kept = PackedClaims()
    for start in range(0, len(requirements), pages):
        kept.add_requirements(*zip(*requirements[start : start + pages], strict=True))
    for start in range(0, len(claims), pages):
        kept.add_claims(*zip(*claims[start : start + pages], strict=True))
    return kept


def _unpacked(kept: PackedClaims, user_ids: list[int]) -> list[Counter[Any]]:
    """Each person's claims as a multiset of status, lender, moment and requirements."""
    found = kept.take(user_ids)
    rest = iter(zip(found.lenders, found.moments, strict=True))
    lenders = kept.lenders()
    people = []
    for kinds in found.kinds:
        claims: Counter[Any] = Counter()
        for kind in kinds:
            status, characters = kept.kinds.kind(kind)
            needed = Counter(kept.requirements.kind(it) for it in characters)
            lender, moment = next(rest)
            claims[status, lenders[lender], moment, frozenset(needed.items())] += 1
        people.append(claims)
    assert next(rest, None) is None
    return people


@given(
    st.lists(_REQUIREMENT, max_size=12),
    st.lists(_CLAIM, max_size=8),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_nothing_is_lost_merged_or_moved(
    requirements: Rows, drawn: Rows, pages: int, order: random.Random
) -> None:
    claims: Rows = [(number, *claim) for number, claim in enumerate(drawn, start=1)]
    expected: list[Counter[Any]] = [Counter() for _ in range(5)]
    for claim_id, user_id, status, lender, moment in claims:
        needed = Counter(tuple(it[1:]) for it in requirements if it[0] == claim_id)
        expected[user_id - 1][status, lender, moment, frozenset(needed.items())] += 1

    kept = _filled(order.sample(requirements, len(requirements)), claims, pages)

    assert _unpacked(kept, [1, 2, 3, 4, 5]) == expected


@given(st.lists(_REQUIREMENT, max_size=12), st.randoms(use_true_random=False))
def test_people_with_equal_claims_have_equal_kinds(
    requirements: Rows, order: random.Random
) -> None:
    """Person 2 has person 1's claims under other ids; everything is read in any order."""
    mixed: Rows = [*requirements, *((it[0] + 100, *it[1:]) for it in requirements)]
    claims: Rows = [
        (base + number, user_id, ("open", None)[number % 2], None, 7)
        for user_id, base in ((1, 0), (2, 100))
        for number in range(1, 9)
    ]

    kept = _filled(order.sample(mixed, len(mixed)), order.sample(claims, len(claims)), 5)

    first, second = kept.take([1, 2]).kinds
    assert first == second


def test_people_without_claims_have_none() -> None:
    assert PackedClaims().take([1, 2]) == (["", ""], (), ())


def test_new_numbers_are_taken_once_and_never_used_again() -> None:
    numbers = Numbers[str](first=1)
    assert [numbers[it] for it in "abab"] == [1, 2, 1, 2]
    assert numbers.take_new() == ["a", "b"]
    numbers.clear()
    assert [numbers[it] for it in "cb"] == [3, 4]
    assert numbers.take_new() == ["c", "b"]


def test_more_kinds_than_can_be_kept_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_claims, "MOST_KINDS", 3)
    kinds = Kinds[int]()
    assert [kinds.kind(kinds[number]) for number in (7, 8, 9, 8)] == [7, 8, 9, 8]
    with pytest.raises(Exhausted) as refused:
        kinds[10]
    assert refused.value.reason == "FACTS_TOO_VARIED"


def test_every_character_can_stand_for_a_kind() -> None:
    """Half surrogates among them: they are only ever keys, never written anywhere."""
    kinds = Kinds[int]()
    characters = [kinds[number] for number in range(0xE001)]
    assert [kinds.kind(it) for it in "".join(characters)] == list(range(0xE001))
