"""Phone numbers come out in one form, or are said not to be numbers."""

import re

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.user_context import phones
from services.user_context.phones import e164, e164_of_many


@pytest.mark.parametrize(
    "raw",
    [
        "07700 900123",
        "07700900123",
        "+44 7700 900123",
        "+44 (0)7700 900123",
        "0044 7700-900-123",
        "447700900123",
        " 7700900123 ",
        "07700 900123 ext. 5",
    ],
)
def test_every_way_of_writing_a_number_gives_the_same(raw: str) -> None:
    assert e164(raw) == "+447700900123"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("020 7946 0999", "+442079460999"),
        ("01632 960555", "+441632960555"),
        ("0113 496 0001", "+441134960001"),
        ("0191 498 0001", "+441914980001"),
        ("028 9649 6001", "+442896496001"),
        ("029 2018 0001", "+442920180001"),
        ("0808 157 0001", "+448081570001"),
        ("0909 879 0001", "+449098790001"),
        ("03069 990001", "+443069990001"),
    ],
)
def test_numbers_reserved_for_drama_count_as_valid(raw: str, expected: str) -> None:
    assert e164(raw) == expected


@pytest.mark.parametrize(
    "raw",
    ["", "   ", "none", "12345", "07700 9001", "07700 900 1234 5678", "0000000000", "07701 0"],
)
def test_what_is_not_a_number_is_not_made_one(raw: str) -> None:
    assert e164(raw) is None


def test_a_foreign_number_keeps_its_country() -> None:
    assert e164("+1 202 555 0123") == "+12025550123"


def test_a_foreign_number_that_looks_like_drama_is_not_british() -> None:
    assert e164("+33 7700900123") is None


def _matching(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True)


def _library(kind: str) -> str:
    """The library's own pattern for the national numbers of a kind."""
    british = phonenumbers.PhoneMetadata.metadata_for_region("GB")
    return str(getattr(british, kind).national_number_pattern)


_NATIONAL = st.one_of(
    # What the library itself takes for mobiles and landlines, what is kept for drama, and any
    # digits: many of them one digit away from being valid.
    _matching(_library("mobile")),
    _matching(_library("fixed_line")),
    _matching(phones._DRAMA.pattern),
    _matching(r"[0-9]{8,11}"),
)
_PREFIX = st.sampled_from(
    ["0", "+44", "0044", "44", "+440", "+44(0)", "00440", "440", "", "+0", "+1"]
)


@st.composite
def written_numbers(draw: st.DrawFn) -> str:
    """A number with separators strewn in, now and then of a kind that means something."""
    bare = draw(_PREFIX) + draw(_NATIONAL)
    places = draw(st.lists(st.integers(0, len(bare)), max_size=4))
    separators = st.sampled_from([" ", "-", "(", ")", " (", ") ", "--", "/", ".", "x", "\n", "+"])
    for place in places:
        bare = bare[:place] + draw(separators) + bare[place:]
    return bare


@settings(deadline=None, max_examples=1_500)
@given(st.lists(st.none() | written_numbers() | st.text(max_size=14), max_size=6))
@example(["07700 900123", None, "", "+44 (0)113 496 0001", "0044 1632-960-123"])
@example(["07700\n900123", "07700 900123"])
@example(["0" + "\u0667\u0667\u0660\u0660 900123"])
def test_many_at_once_get_the_librarys_answer_one_by_one(raws: list[str | None]) -> None:
    expected = [(e164.__wrapped__(raw) or "") if raw else "" for raw in raws]

    assert e164_of_many(raws) == expected


@settings(deadline=None, max_examples=300)
@given(_matching(_library("mobile")))
def test_usual_mobiles_do_not_need_the_library(national: str) -> None:
    for prefix in ("0", "+44", "0044", "44", "+440"):
        assert phones._USUAL.fullmatch(prefix + national), prefix
