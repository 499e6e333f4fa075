"""Every number that people wrote into a text is found, and none that they did not."""

import re
import string
import time

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from servicekit import phone_numbers
from servicekit.phone_numbers import (
    numbers_in,
    numbers_in_many,
    possible_numbers_in,
    says_more,
)

NUMBER = "+447700900123"
OTHER = "+442079460018"


@pytest.mark.parametrize(
    "text",
    [
        "07700 900123",
        "07700900123",
        "+44 7700 900123",
        "+44 (0)7700 900123",
        "0044 7700-900-123",
        "0044 (0) 7700 900123",
        "(+44) 07700 900123",
        "+07700900123",
        "0447700900123",
        "447700900123",
        "(07700) 900-123",
        "07700.900.123",
        "07700/900123",
        "07700_900_123",
        "07700\t900123",
        "07700 900\n123",
        " 7700900123 ",
        # What spreadsheets make of it.
        "7700900123.0",
        "447700900123.0",
        '="07700900123"',
        "'07700900123",
        "7,700,900,123",
        # What a page or a right-to-left text adds.
        "\u202a07700 900123\u202c",
        "07700\u00a0900123",
        "\ufeff07700900123",
        "07700900123\u200b",
        "077\u00ad00900123",
        "07700\u2011900\u2013123",
        "\uff10\uff17\uff17\uff10\uff10\uff19\uff10\uff10\uff11\uff12\uff13",
        "\uff0b447700900123",
        "\u0660\u0667\u0667\u0660\u0660\u0669\u0660\u0660\u0661\u0662\u0663",
        "\u246007700900123",
        # Labels.
        "07700900123 (mobile)",
        "07700900123 wife",
        "7700900123 wife",
        "7700 900123 wife",
        "44 7700 900123 wife",
        "mob: 07700900123",
        "mob07700900123",
        "Tel.07700900123",
        "tel:+447700900123;ext=5",
        "1) 07700900123",
        "E1 07700 900123",
        # Extensions.
        "07700 900123 x5",
        "07700 900123 ext. 5",
        "07700900123#12",
        # Beside what is no number.
        "dob 12/05/1980 07700 900123",
        "07700 900123 (not before 10:30, since 2024-05-01)",
        "ref 12345678 07700900123",
    ],
)
def test_one_number_in_many_spellings(text: str) -> None:
    assert numbers_in(text) == (NUMBER,)


@pytest.mark.parametrize(
    "between",
    [" / ", "/", ", ", ",", ";", "\n", "\r\n", " or ", " & ", " ", " - ", "-", "|", " wife, "],
)
@pytest.mark.parametrize(
    ("first", "second"),
    [("07700900123", "02079460018"), ("07700 900 123", "020 7946 0018"), (NUMBER, OTHER)],
)
def test_several_numbers_in_the_order_written(first: str, second: str, between: str) -> None:
    assert numbers_in(first + between + second) == (NUMBER, OTHER)
    assert numbers_in(second + between + first) == (OTHER, NUMBER)


def test_a_number_counts_once() -> None:
    assert numbers_in("07700900123, 020 7946 0018, +447700900123") == (NUMBER, OTHER)


@pytest.mark.parametrize(
    "text", ["2079460018 (home)", "tel 2079460018", "07700900123 or 2079460018", "2079460018.0"]
)
def test_a_landline_may_have_lost_its_zero(text: str) -> None:
    assert OTHER in numbers_in(text)


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_numbers_reserved_for_drama_count_as_valid(text: str, expected: str) -> None:
    assert numbers_in(text) == (expected,)
    assert numbers_in(f"{text} (drama)") == (expected,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "none",
        "12345",
        "07700 9001",
        "07700 900 1234 5678",
        "077009001234",
        "0000000000",
        "07701 0",
        "01/02/1980",
        "2012-05-01 10",
        "2012-05-01 10:30:00",
        "02/01/2012 345 High St",
        "SW1A 1AA",
        "AB12 3CD",
        "QQ123456C",
        "ref 12345678",
        "ref 1234567890",
        "CL-2024-000123",
        "20-00-00 12345678",
        "12345678901234567890",
        "1234 5678 9012 3456 7890",
        "4477 0090 0123 4567",
        "1. 442079460 / 2",
        "4.47701E+11",
        "4,4770E+11",
        "7.700900123E9",
        "+33 7700900123",
        "00 33 7700900123 Paris",
        "ask her mum",
    ],
)
def test_what_is_not_a_number_is_not_made_one(text: str) -> None:
    assert numbers_in(text) == ()


def test_a_foreign_number_keeps_its_country() -> None:
    assert numbers_in("+1 202 555 0123") == ("+12025550123",)
    assert numbers_in("in the US: 001 (202) 555-0123 x5") == ("+12025550123",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("07700 900123", False),
        ("+44 (0)7700 900123", False),
        ("447700900123.0", False),
        ('="07700900123"', False),
        ("\u202a07700900123\u202c", False),
        ("07700900123 wife", True),
        ("07700900123 / 020 7946 0018", True),
        ("07700900123 x5", True),
        ("07700900123 / 2", True),
    ],
)
def test_a_label_says_more_than_the_number(text: str, expected: bool) -> None:
    assert says_more(text, numbers_in(text)) is expected


def test_a_number_goes_on_as_long_as_it_can() -> None:
    assert numbers_in("0800 1111") == ("+448001111",)
    assert numbers_in("0800 1111 234 (shop)") == ("+448001111234",)


# Generated numbers and what is around them.


def _matching(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True)


def _library(kind: str) -> str:
    """The library's own pattern for the national numbers of a kind."""
    british = phonenumbers.PhoneMetadata.metadata_for_region("GB")
    return str(getattr(british, kind).national_number_pattern)


_NATIONAL = st.one_of(
    _matching(_library("mobile")),
    _matching(_library("fixed_line")).filter(lambda it: len(it) == 10),
    _matching(phone_numbers._DRAMA.pattern),
)
_PREFIXES = st.sampled_from(["0", "+44", "0044", "44", "+440", "+44 (0)", "+44-", "0044 ", "(0)"])
_MARKS = st.sampled_from([" ", "-", ".", "/", "", "\u00a0", "\u200b", "\u2011", ") (", "  "])
_LABELS = st.sampled_from(
    [
        "", "mob: ", "wife ", "(home) ", "Tel.", "ring after 18:30, ", "dob 02/01/1980 ",
        "SW1A 1AA ", "\u202a", "\u200f", "'", '="', "caf\u00e9: ", "\u1e57 ", "or ", "1. ", "M&S; ",
    ]
)  # fmt: skip
_ENDINGS = st.sampled_from(
    [
        "",
        " (mobile)",
        " x5",
        " ext 12",
        "\u202c",
        ".0",
        '"',
        " - wife's",
        "\n",
        ", or text",
        "\ufeff",
    ]
)


@st.composite
def _written(draw: st.DrawFn) -> tuple[str, str]:
    """A number in E.164, and one of the ways to write it."""
    national = draw(_NATIONAL)
    cut = draw(st.integers(2, 5))
    parts = [national[:cut], national[cut:7], national[7:]]
    prefix, mark = draw(_PREFIXES), draw(_MARKS)
    if prefix == "44" and mark == "/":
        # Too little to tell one number from two.
        mark = "-"
    spelled = prefix + mark.join(parts)
    if draw(st.booleans()):
        spelled = spelled.translate(
            {ord(it): chr(0xFEE0 + ord(it)) for it in string.digits + "+()"}
        )
    return f"+44{national}", spelled


@settings(deadline=None, max_examples=400)
@given(_written(), _LABELS, _ENDINGS)
def test_any_number_in_any_spelling_is_found(
    written: tuple[str, str], label: str, ending: str
) -> None:
    number, spelled = written
    if ending == ".0":
        spelled = re.sub(r"[^\d+]", "", spelled)

    assert numbers_in(label + spelled + ending) == (number,)
    assert possible_numbers_in(label + spelled + ending) == (number,)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(_written(), min_size=1, max_size=4, unique_by=lambda it: it[0]),
    st.sampled_from([" / ", ", ", ";", "\n", " or ", " & ", " home, "]),
)
def test_each_of_several_is_found(written: list[tuple[str, str]], between: str) -> None:
    text = between.join(spelled for _, spelled in written)
    assert numbers_in(text) == tuple(number for number, _ in written)


@given(st.text(st.characters(categories=["L", "M", "P", "S", "Z", "Cf"])))
def test_letters_are_no_number(text: str) -> None:
    assert numbers_in(text) == possible_numbers_in(text) == ()


_ANY_TEXT = st.text(max_size=40) | st.text("0123456789+() -/.x,\n7447", max_size=40)


@settings(deadline=None, max_examples=300)
@given(_ANY_TEXT)
def test_what_was_found_is_found_in_itself(text: str) -> None:
    numbers = numbers_in(text)
    assert all(numbers_in(number) == (number,) for number in numbers)
    assert numbers_in(", ".join(numbers)) == numbers
    assert all(possible_numbers_in(number) == (number,) for number in numbers)


_SPELLINGS = st.builds(
    lambda prefix, digits, mark, place: (
        (prefix + digits)[:place] + mark + (prefix + digits)[place:]
    ),
    st.sampled_from(["0", "+44", "0044", "44", "+440", "+44(0)", "00440", "440", "", "+0", "+1"]),
    _NATIONAL | _matching(r"[0-9]{8,11}"),
    st.sampled_from([" ", "-", "(", ")", " (", ") ", "--", "/", ".", "x", "\n", "+", ""]),
    st.integers(0, 14),
)


@settings(deadline=None, max_examples=400)
@given(st.lists(st.none() | _SPELLINGS | _ANY_TEXT, max_size=6))
@example(["07700 900123", None, "", "+44 (0)113 496 0001", "0044 1632-960-123", "07700900123 wife"])
@example(["07700\n900123", "07700 900123"])
@example(["0" + "\u0667\u0667\u0660\u0660 900123", "7700900123", "2012-05-01 10"])
def test_many_at_once_get_the_answer_of_one_by_one(texts: list[str | None]) -> None:
    assert numbers_in_many(texts) == [numbers_in(text) if text else () for text in texts]


@settings(deadline=None, max_examples=300)
@given(_SPELLINGS)
def test_a_number_alone_is_what_the_library_says(text: str) -> None:
    """The library parses one number that fills the text: ours is the same, or it has none."""
    try:
        parsed = phonenumbers.parse(text, "GB")
    except phonenumbers.NumberParseException:
        return
    if not phonenumbers.is_valid_number(parsed) or "x" in text or text.count("+") > 1:
        return
    number = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    assert number in numbers_in(text)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.sampled_from(["wife", "mob:", ",", "/", "or", "(", ")", "12", "x5"])
        | _NATIONAL.map("0{}".format),
        max_size=6,
    ).map(" ".join)
)
def test_what_the_librarys_matcher_finds_is_found(text: str) -> None:
    matches = phonenumbers.PhoneNumberMatcher(text, "GB")
    found = [
        phonenumbers.format_number(it.number, phonenumbers.PhoneNumberFormat.E164) for it in matches
    ]
    assert set(found) <= set(numbers_in(text))


@settings(deadline=None, max_examples=300)
@given(_matching(_library("mobile")))
def test_usual_mobiles_do_not_need_the_library(national: str) -> None:
    for prefix in ("0", "+44", "0044", "44", "+440"):
        assert phone_numbers._USUAL.fullmatch(prefix + national), prefix


# Lists.


@pytest.mark.parametrize(
    "text",
    [
        "07700900123",
        "07700 900 123",
        "07700-900-123",
        "+447700900123",
        "+44 7700 900123",
        "+44 (0)7700 900123",
        "0044 7700 900123",
        "(07700) 900123",
        "07700.900.123",
        "7700900123",
        "7700900123.0",
        "7700-900-123",
        " 07700900123 ",
        "\u00a007700900123",
        "tel:+447700900123",
        "07700900123 (mobile)",
    ],
)
def test_one_number_of_a_list_in_many_spellings(text: str) -> None:
    assert possible_numbers_in(text) == (NUMBER,)


@pytest.mark.parametrize(
    "text",
    [
        "", "phone", "123", "07700", "077009001234567890", "++44", "null", "0x77", "0000000000",
        "1234567", "123456789", "2012-05-01 10:30",
    ],
)  # fmt: skip
def test_what_is_no_number_of_a_list(text: str) -> None:
    assert possible_numbers_in(text) == ()


def test_a_list_may_hold_numbers_of_ranges_that_open_later() -> None:
    later = "+441019990000"
    assert numbers_in(later) == ()
    for text in (later, "01019990000", "01019 990000 (shop)", "07700900123 / 01019990000"):
        assert later in possible_numbers_in(text)
    assert possible_numbers_in("+30 210 123 4567") == ("+302101234567",)


# Bounds.


@pytest.mark.parametrize(
    "text",
    [
        "1" * 65_000,
        "0" + " " * 64_000 + "1",
        "0+" + " " * 32_000 + "+" + " " * 32_000 + "1",
        "001 " * 16_000,
        "1 - " * 16_000,
        "1,111,111,111," * 4_600,
        "1.1e" * 16_000,
        "\ufdfa" * 65_000,
        "+12345678 " * 6_500,
        "ref 1234567890, " * 4_000,
    ],
)
def test_a_text_of_64_kilobytes_is_cheap(text: str) -> None:
    began = time.process_time()
    assert len(possible_numbers_in(text)) <= phone_numbers.MOST_NUMBERS
    # A loaded machine takes 0.1 s; what grows with the square of the length takes minutes.
    assert time.process_time() - began < 2.0


def test_a_number_is_found_behind_a_long_text() -> None:
    assert numbers_in("spoke to her husband. " * 2_800 + "07700900123") == (NUMBER,)


def test_at_most_so_many_numbers_are_taken_from_one_text() -> None:
    text = ", ".join(f"07700900{it:03}" for it in range(200))
    assert numbers_in(text) == tuple(f"+447700900{it:03}" for it in range(50))
