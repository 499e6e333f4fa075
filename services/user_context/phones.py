"""Phone numbers in one form, whatever form they were typed in."""

import re
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


def _is_drama(number: phonenumbers.PhoneNumber) -> bool:
    if number.country_code != 44:
        return False
    return _DRAMA.fullmatch(phonenumbers.national_significant_number(number)) is not None
