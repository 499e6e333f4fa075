"""Finds every phone number in a text that people have written, and returns them in E.164.

This is the only normalisation of phone numbers in the suite. A text may hold a label, several
numbers, a spreadsheet's form of them and invisible characters. The library ``phonenumbers`` decides
what is a number, but its ``PhoneNumberMatcher`` is not used: at the level of valid numbers it finds
none that lost its leading 0 and none beside a letter; at the level below it cuts a run of more than
20 digits into numbers that the text does not hold.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import phonenumbers

REGION = "GB"

# Limits of the work on one text, since a text column of MySQL may hold 64 KB: the worst text takes
# some tens of milliseconds. British numbers in a usual form do not need the library, which takes up
# to 90 microseconds for one candidate.
LONGEST_READ = 65_536
MOST_GROUPS = 2_000
MOST_ASKED = 200
MOST_NUMBERS = 50

# Size of the caches: most numbers are seen again.
_CACHED = 100_000

# Ofcom reserves these national numbers for drama, so no person is assigned one. For the library
# some of them (mobile and "no area" numbers) are invalid. Here they are valid, since seed data and
# tests may hold no others.
_DRAMA = re.compile(
    r"7700900\d{3}|1632960\d{3}|(?:113|114|115|116|117|118|121|131|141|151|161)4960\d{3}"
    r"|1914980\d{3}|2079460\d{3}|2896496\d{3}|2920180\d{3}|8081570\d{3}|9098790\d{3}|3069990\d{3}"
)


def _valid_british() -> str:
    """Return the library's pattern of valid national numbers, with the numbers for drama.

    Of the regions that share the country code the library tries this one first, so every match of
    its patterns is valid.
    """
    british = phonenumbers.PhoneMetadata.metadata_for_region(REGION)
    described = [
        getattr(british, kind)
        for kind in (
            "mobile",
            "fixed_line",
            "toll_free",
            "premium_rate",
            "shared_cost",
            "personal_number",
            "voip",
            "pager",
            "uan",
        )
    ]
    patterns = [it.national_number_pattern for it in described if it]
    return "|".join([_DRAMA.pattern, *filter(None, patterns)])


# The usual forms of British numbers, without their separators.
_PREFIX = r"(?:\+?0{0,2}440?|0)"
_NATIONAL = r"[1-357-9][0-9]{9}"
_USUAL = re.compile(rf"{_PREFIX}(?={_NATIONAL}\Z)({_valid_british()})")
_PREFIXED = re.compile(rf"{_PREFIX}({_NATIONAL})")
# With the leading 0 that a spreadsheet drops, or without.
_BRITISH = re.compile(rf"{_PREFIX}?({_NATIONAL})")
_SEPARATORS = " -()"

# Characters that may stand within a number or between two numbers; all others end a run.
_WITHIN = r"\s()\[\]{}./\\~_'\u00b7\u2022-"
_RUN = re.compile(rf"[\d+][\d+{_WITHIN}]*", re.ASCII)
_DIGITS = re.compile(r"(\d+)", re.ASCII)
# Separators at which a number more likely ends than goes on.
_BREAK = re.compile(r"[/\\\n]|\.\s|\s-\s")
_LETTER = re.compile(r"[^\W\d_]")

# Spreadsheets write whole numbers as 447700900123.0 and 7,700,900,123.
_FRACTION = re.compile(r"(?<=\d{7})\.0{1,2}(?![\d.])", re.ASCII)
_THOUSANDS = re.compile(r"(?<![\d,])\d{1,3}(?:,\d{3}){3,4}(?![\d,])", re.ASCII)
# Scientific notation, whose last digits are lost; dates with a whole year; times of day.
_NO_NUMBER = re.compile(
    r"(?<![\d.,])(?:\d|\d+[.,]\d+)[eE][+-]?\d{1,3}(?!\d)"
    r"|(?<!\d)(?<!\d[-/.])(?:(?:19|20)\d\d([-/.])[01]?\d\1[0-3]?\d"
    r"|[0-3]?\d([-/.])[0-3]?\d\2(?:19|20)\d\d)(?![-/.]?\d)"
    r"|(?<!\d)[0-2]?\d:[0-5]\d(?::[0-5]\d)?(?!\d)",
    re.ASCII,
)

# 15 digits and 00 before them.
_MOST_DIGITS = 17
_FEWEST_DIGITS = 6
# Digits without a country code or a leading 0 count as a number only if they are a mobile number,
# or one group of ten digits with no word before it but one of those below.
_COUNTRY = re.compile(r"(?:\+|00)\d{0,3}", re.ASCII)
_WITH_COUNTRY = re.compile(r"440?\d{10}", re.ASCII)
_MOBILE = re.compile(r"7[1-57-9]\d{8}", re.ASCII)
_WORD_BEFORE = re.compile(r"([^\W\d_]+)[\s.:()-]*\Z")
_PHONE_WORD = re.compile(
    r"(?:and|or)|.*(?:phone|tel|mob|cell|home|work|office|land|line).*", re.IGNORECASE
)

# Invisible characters that Unicode counts as letters or symbols.
_INVISIBLE = frozenset("\u115f\u1160\u3164\uffa0\u2800")

_Accepts = Callable[[str], str | None]


def numbers_in(text: str) -> tuple[str, ...]:
    """Return every valid number in the text, each once, in E.164, in the order written.

    Numbers without a country code are taken as British; extensions are dropped. At most
    ``MOST_NUMBERS`` are returned, from the first ``LONGEST_READ`` characters and about
    ``MOST_GROUPS`` groups of digits.
    """
    usual = _USUAL.fullmatch(_bare(text))
    return (f"+44{usual[1]}",) if usual is not None else _found(text, (_valid,))


def numbers_in_many(texts: Sequence[str | None]) -> list[tuple[str, ...]]:
    """Return what ``numbers_in`` returns for each text; an empty tuple for None.

    British numbers in a usual form cost a hundredth of a call of the library.
    """
    bare = _bare("\n".join(["" if text is None else text for text in texts])).split("\n")
    if len(bare) != len(texts):
        # A text has more than one line.
        return [numbers_in(text) if text else () for text in texts]
    return [
        (f"+44{usual[1]}",) if usual is not None else _found(text, (_valid,)) if text else ()
        for usual, text in zip(map(_USUAL.fullmatch, bare), texts, strict=True)
    ]


def possible_numbers_in(text: str) -> tuple[str, ...]:
    """Return every number of a line of a phone list, as ``numbers_in`` does, assigned or not.

    A number of a range that opens later must stay on the list, and a number without a subscriber
    matches no person.
    """
    british = _BRITISH.fullmatch(text) or _PREFIXED.fullmatch(_bare(text))
    return (f"+44{british[1]}",) if british is not None else _found(text, (_valid, _possible))


def says_more(text: str, numbers: Sequence[str]) -> bool:
    """Return whether the text says more than the first of the numbers found in it."""
    if len(numbers) > 1:
        return True
    plain = _prepared(text)
    whole = re.sub(r"[^\d+]", "", plain, flags=re.ASCII)
    return _LETTER.search(plain) is not None or (_valid(whole),) != tuple(numbers)


def _bare(text: str) -> str:
    for separator in _SEPARATORS:
        text = text.replace(separator, "")
    return text


def _found(text: str, accepts: Sequence[_Accepts]) -> tuple[str, ...]:
    asked = _Asked()
    found: dict[str, None] = {}
    for run in _runs(_prepared(text)):
        for number in run.numbers([partial(asked.of, accept) for accept in accepts]):
            found[number] = None
            if len(found) == MOST_NUMBERS:
                return tuple(found)
    return tuple(found)


class _Asked:
    """Decides whether digits are a number; calls the library at most ``MOST_ASKED`` times."""

    def __init__(self) -> None:
        self._count = 0

    def of(self, accept: _Accepts, digits: str) -> str | None:
        usual = _USUAL.fullmatch(digits)
        if usual is not None:
            return f"+44{usual[1]}"
        self._count += 1
        return accept(digits) if self._count <= MOST_ASKED else None


def _runs(plain: str) -> Iterator["_Run"]:
    has_letters = _LETTER.search(plain) is not None
    groups = end = 0
    for found in _RUN.finditer(plain):
        word = _WORD_BEFORE.search(plain, max(end, found.start() - 40), found.start())
        end = found.end()
        *parts, _ = _DIGITS.split(found[0])
        run = _Run(
            # A plus sign before a 0 means nothing.
            [
                f"+{digits}" if "+" in before and digits[0] != "0" else digits
                for before, digits in zip(parts[::2], parts[1::2], strict=True)
            ],
            [True, *[_BREAK.search(before) is not None for before in parts[2::2]], True],
            has_letters,
            word is not None and _PHONE_WORD.fullmatch(word[1]) is None,
        )
        yield run
        groups += len(run.groups)
        if groups >= MOST_GROUPS:
            return


class _Run(NamedTuple):
    """A part of a text without letters: one number, several, or none.

    ``breaks`` holds, for the place before each group of digits and for the end, whether a number
    more likely ends there than goes on.
    """

    groups: Sequence[str]
    breaks: Sequence[bool]
    has_letters: bool
    is_named_otherwise: bool

    def numbers(self, accepts: Sequence[_Accepts]) -> Iterator[str]:
        """Yield from the left the longest numbers that whole groups make; no group is cut."""
        start = 0
        while start < min(len(self.groups), MOST_GROUPS):
            end, number = self._longest(start, accepts)
            if number is not None:
                yield number
            start = end

    def _longest(self, start: int, accepts: Sequence[_Accepts]) -> tuple[int, str | None]:
        """Return the end of the longest number from a group on; without one, the next group."""
        candidates = list(self._candidates(start))
        for accept in accepts:
            for end, digits in reversed(candidates):
                number = accept(digits)
                if number is not None:
                    return end, number
        return start + 1, None

    def _candidates(self, start: int) -> Iterator[tuple[int, str]]:
        digits = ""
        for end, group in enumerate(self.groups[start : start + _MOST_DIGITS], start + 1):
            if digits and group[0] == "+":
                return
            digits += group
            if len(digits) > _MOST_DIGITS:
                return
            if len(digits) >= _FEWEST_DIGITS and self._may_be(start, end, digits):
                yield end, digits

    def _may_be(self, start: int, end: int, digits: str) -> bool:
        """Return whether these groups are written as a number."""
        if digits[0] == "+":
            return True
        if digits[0] == "0":
            # 01 and 00 may be the middle of a date or of a sort code.
            return self.breaks[start] or len(self.groups[start]) > 2
        is_at_break = self.breaks[start]
        if not is_at_break and any(map(_COUNTRY.fullmatch, self.groups[max(start - 2, 0) : start])):
            # The rest of an invalid foreign number.
            return False
        is_whole = (
            is_at_break
            and self.breaks[end]
            and (end - start == len(self.groups) or not any(self.breaks[start + 1 : end]))
        )
        if is_whole and not self.has_letters:
            return True
        is_one_group = end == start + 1
        if not (is_whole or is_one_group):
            return False
        if _WITH_COUNTRY.fullmatch(digits) or _MOBILE.fullmatch(digits):
            return True
        return is_one_group and not self.is_named_otherwise and len(digits) == 10


@lru_cache(maxsize=_CACHED)
def _valid(digits: str) -> str | None:
    number = _parsed(digits)
    if number is None:
        return None
    is_drama = number.country_code == 44 and _DRAMA.fullmatch(
        phonenumbers.national_significant_number(number)
    )
    if not (is_drama or phonenumbers.is_valid_number(number)):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


@lru_cache(maxsize=_CACHED)
def _possible(digits: str) -> str | None:
    """Return the number if numbers of its country have its length.

    British numbers have 10 digits, or 9 after a 0.
    """
    number = _parsed(digits)
    if number is None:
        return None
    reason = phonenumbers.is_possible_number_with_reason(number)
    if reason != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    national = phonenumbers.national_significant_number(number)
    fewest = 9 if digits[0] in "+0" else 10
    if number.country_code == 44 and (len(national) < fewest or national[0] == "0"):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _parsed(digits: str) -> phonenumbers.PhoneNumber | None:
    british = _BRITISH.fullmatch(digits)
    try:
        return phonenumbers.parse(f"+44{british[1]}" if british else digits, REGION)
    except phonenumbers.NumberParseException:
        return None


def _prepared(text: str) -> str:
    """Return the text in plain characters, with a letter in place of dates, times and the like."""
    plain = text[:LONGEST_READ]
    if not (plain.isascii() and plain.isprintable()):
        plain = "".join(map(_plain, plain))
    plain = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), plain)
    return _NO_NUMBER.sub("x", _FRACTION.sub("", plain))


@lru_cache(maxsize=4_096)
def _plain(character: str) -> str:
    """Return the plain character that a character looks like; empty if it is invisible."""
    if character in _INVISIBLE:
        return ""
    category = unicodedata.category(character)
    if character.isspace():
        return " " if category == "Zs" or character == "\t" else "\n"
    if category in {"Cf", "Cc", "Mn", "Me"}:
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category in {"No", "Nl"}:
        # The circled number of a list item is no digit of the phone number after it.
        return " "
    if category == "Pd" or character == "\u2212":
        return "-"
    compatible = unicodedata.normalize("NFKC", character)
    return compatible if len(compatible) == 1 else character
