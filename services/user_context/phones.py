"""Phone numbers in one form, whatever form they were typed in."""

import re
from collections.abc import Sequence
from functools import lru_cache

import phonenumbers

REGION = "GB"

# Parsing costs about 90 microseconds; the same numbers come by again and again.
_REMEMBERED = 100_000

# Ofcom keeps these national numbers for drama, so nobody is ever assigned one. The library knows
# some of them as invalid (mobile and "no area" ones); for us they are well-formed numbers, as they
# are the only ones that seed data and tests may hold.
_DRAMA = re.compile(
    r"7700900\d{3}|1632960\d{3}|(?:113|114|115|116|117|118|121|131|141|151|161)4960\d{3}"
    r"|1914980\d{3}|2079460\d{3}|2896496\d{3}|2920180\d{3}|8081570\d{3}|9098790\d{3}|3069990\d{3}"
)


def _valid_british() -> str:
    """The library's own pattern of valid national numbers, drama's added.

    Of the regions that share the country code the library tries this one first, so what its
    patterns match is valid.
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


# The ways most British numbers are written, once their separators are gone.
_USUAL = re.compile(rf"(?:(?:\+44|0044|44)0?|0)(?=[1-357-9][0-9]{{9}}\Z)({_valid_british()})")
_SEPARATORS = " -()"


@lru_cache(maxsize=_REMEMBERED)
def e164(raw: str) -> str | None:
    """Return the number in E.164; None when it is not a valid one.

    Numbers without a country code are taken as British. An extension is dropped.
    """
    try:
        number = phonenumbers.parse(raw, REGION)
    except phonenumbers.NumberParseException:
        return None
    if not (phonenumbers.is_valid_number(number) or _is_drama(number)):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def e164_of_many(raws: Sequence[str | None]) -> list[str]:
    """Return what ``e164`` says of each; empty where there is no valid number.

    Costs a hundredth of asking the library for British numbers written in a usual way.
    """
    joined = "\n".join(["" if raw is None else raw for raw in raws])
    for separator in _SEPARATORS:
        joined = joined.replace(separator, "")
    bare = joined.split("\n")
    if len(bare) != len(raws):
        # One of them has a line's end in it.
        return [(raw and e164(raw)) or "" for raw in raws]
    return [
        f"+44{usual[1]}" if usual is not None else (raw and e164(raw)) or ""
        for usual, raw in zip(map(_USUAL.fullmatch, bare), raws, strict=True)
    ]


def _is_drama(number: phonenumbers.PhoneNumber) -> bool:
    if number.country_code != 44:
        return False
    return _DRAMA.fullmatch(phonenumbers.national_significant_number(number)) is not None
