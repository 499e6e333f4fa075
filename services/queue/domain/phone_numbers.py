"""Phone numbers on lists: whatever their spelling, as E.164."""

import re
from functools import lru_cache

import phonenumbers

REGION = "GB"

_NOT_DIGITS = re.compile(r"[\s().\-/]+")
# Nearly every line of a British list. A spreadsheet drops the leading 0.
_BRITISH = re.compile(r"0?([1-37-9]\d{9})")


def listed_number(text: str) -> str | None:
    """Return the number in E.164; None for what cannot be one.

    Whether anybody has the number is not asked: one that nobody has matches nobody.
    """
    plain = _NOT_DIGITS.sub("", text)
    british = _BRITISH.fullmatch(plain) if plain.isascii() else None
    if british is not None:
        return f"+44{british[1]}"
    return _parsed(plain)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> str | None:
    try:
        number = phonenumbers.parse(text, REGION)
    except phonenumbers.NumberParseException:
        return None
    reason = phonenumbers.is_possible_number_with_reason(number)
    if reason != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
