"""Names are compared by their words, whatever their spelling."""

import pytest

from services.user_context.search.names import match_names, searched_words, words_of


@pytest.mark.parametrize(
    ("names", "searched"),
    [
        (("Aoife", "O'Brien"), "obrien"),
        (("Aoife", "O\u2019Brien"), "o'brien aoi"),
        (("José", "Núñez"), "nunez jose"),
        (("jose", "nunez"), "NÚÑ"),
        (("Ann", "Smith-Jones"), "jones"),
        (("Ann", "Smith-Jones"), "smithjones"),
        (("Ann", "Smith-Jones"), "smith jones"),
        (("Mary Ann", None, "Black"), "bla mary"),
        (("Straße", "x"), "strasse"),
        (("Łukasz", "Li"), "li"),
    ],
)
def test_beginnings_of_words_match_in_any_order(
    names: tuple[str | None, ...], searched: str
) -> None:
    words = searched_words(searched)
    assert words
    assert match_names(words, words_of(*names))


@pytest.mark.parametrize("searched", ["mith", "smith john", "jonesx"])
def test_other_parts_do_not(searched: str) -> None:
    assert not match_names(searched_words(searched), words_of("Ann", "Smith-Jones"))


@pytest.mark.parametrize("searched", ["", " ", "a", "a b", "--", "'", "\u0301"])
def test_too_little_is_not_searched_for(searched: str) -> None:
    assert searched_words(searched) == []


def test_words_hold_letters_and_digits_only() -> None:
    hostile = "' & ! | <-> :* \\ \" a'b:c\u0000d"
    assert all(word.isalnum() for word in [*words_of(hostile), *searched_words(hostile)])


def test_a_name_without_end_is_cut_off() -> None:
    words = words_of(" ".join(f"w{number}" + "x" * 100 for number in range(100)))
    assert len(words) == 24
    assert max(map(len, words)) == 40
