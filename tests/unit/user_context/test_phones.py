"""Phone numbers come out in one form, or are said not to be numbers."""

import pytest

from services.user_context.phones import e164


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
