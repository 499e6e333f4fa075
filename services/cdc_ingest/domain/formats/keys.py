"""Reads keys, which formats write as integers, texts, floats, or negative where they wrapped."""

import math
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Final

from mainapp.description import ColumnType
from services.cdc_ingest.domain.formats.records import Image, UnreadableError

MAX_UINT64: Final = 2**64 - 1
MAX_KEY_CHARACTERS: Final = 64
NOT_EXACT: Final = "KEY_NOT_EXACT"
NOT_POSITIVE: Final = "KEY_NOT_POSITIVE"
# Integers from here on may be rounded where they are written as floats.
_EXACT_BELOW: Final = 2**53


def key_text(image: Image, column: str, kind: ColumnType, *, wraps: bool) -> str | None:
    """Return the key in a column, a number as a plain decimal; None for NULL or no such column.

    With `wraps`, unsigned numbers beyond 2^63 - 1 may be written as negative ones.

    Raises:
        UnreadableError: the value is not a key of that type, or not exact to the last digit; a
            number of 0 or less, which sources use for "none", is KEY_NOT_POSITIVE.
    """
    value = image.get(column)
    if type(value) is int and kind is ColumnType.UINT64 and 0 < value <= MAX_UINT64:
        # The usual form.
        return str(value)
    if value is None or value == "":
        # Some sources write NULL as an empty text.
        return None
    if kind is not ColumnType.UINT64:
        if not isinstance(value, str) or len(value) > MAX_KEY_CHARACTERS:
            raise UnreadableError("KEY_NOT_TEXT")
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            # Halves of surrogate pairs have no UTF-8: gRPC could not send the key.
            raise UnreadableError("KEY_NOT_TEXT")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and math.isfinite(value) and value.is_integer():
        if abs(value) >= _EXACT_BELOW:
            raise UnreadableError(NOT_EXACT)
        number = int(value)
    elif isinstance(value, str | Decimal) and len(text := str(value)) <= MAX_KEY_CHARACTERS:
        number = _whole_text(text)
    else:
        raise UnreadableError("KEY_NOT_A_NUMBER")
    if wraps and -(2**63) <= number < 0:
        number += 2**64
    if -(2**63) <= number <= 0:
        raise UnreadableError(NOT_POSITIVE)
    if not 0 < number <= MAX_UINT64:
        raise UnreadableError("KEY_NOT_A_NUMBER")
    return str(number)


def is_same(before: Image, after: Image, columns: Iterable[str]) -> bool:
    """Whether two images of a row have the very same value in each of these columns."""
    for column in columns:
        old, new = before.get(column), after.get(column)
        if old is not new and (type(old) is not type(new) or old != new):
            return False
    return True


def _whole_text(value: str) -> int:
    if value.isascii() and value.isdecimal():
        return int(value)
    try:
        # Decimal accepts digits of any script, and underscores between them.
        number = Decimal(value if value.isascii() and "_" not in value else "")
    except InvalidOperation as error:
        raise UnreadableError("KEY_NOT_A_NUMBER") from error
    # An exponent of millions would make a number of millions of digits.
    if not number.is_finite() or number.adjusted() > MAX_KEY_CHARACTERS:
        raise UnreadableError("KEY_NOT_A_NUMBER")
    if number != number.to_integral_value():
        raise UnreadableError("KEY_NOT_A_NUMBER")
    # DMS writes a large number as a double: digits that are missing may have been rounded away.
    if abs(number) >= _EXACT_BELOW and int(number.as_tuple().exponent) > 0:
        raise UnreadableError(NOT_EXACT)
    return int(number)
