"""Keys as the formats write them: numbers may be texts, floats, or negative where they wrapped."""

import math
from decimal import Decimal, InvalidOperation
from typing import Final

from mainapp.description import ColumnType
from services.cdc_ingest.domain.records import Image, UnreadableError

MAX_UINT64: Final = 2**64 - 1
MAX_KEY_CHARACTERS: Final = 64
NOT_EXACT: Final = "KEY_NOT_EXACT"
# Whole numbers from here on may have been rounded where they were written as floats.
_EXACT_BELOW: Final = 2**53


def key_text(image: Image, column: str, kind: ColumnType, *, wraps: bool) -> str | None:
    """Return the key in a column, numbers as plain decimals; None for NULL, or no such column.

    `wraps` says that unsigned numbers beyond 2^63 - 1 may be written as negative ones.

    Raises:
        UnreadableError: it is not a key of that kind, or cannot be known to the last digit.
    """
    value = image.get(column)
    if value is None or value == "":
        # Some write NULL as an empty text.
        return None
    if kind is ColumnType.UINT64:
        return str(_uint64(value, wraps=wraps))
    if not isinstance(value, str) or len(value) > MAX_KEY_CHARACTERS:
        raise UnreadableError("KEY_NOT_TEXT")
    return value


def _uint64(value: object, *, wraps: bool) -> int:
    """Return the number, exact to the last digit.

    Raises:
        UnreadableError: not a number, out of range, or perhaps rounded.
    """
    number = _whole(value)
    if wraps and -(2**63) <= number < 0:
        number += 2**64
    if not 0 <= number <= MAX_UINT64:
        raise UnreadableError("KEY_NOT_A_NUMBER")
    return number


def _whole(value: object) -> int:
    if isinstance(value, bool):
        raise UnreadableError("KEY_NOT_A_NUMBER")
    if isinstance(value, int):
        return value
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        if abs(value) >= _EXACT_BELOW:
            raise UnreadableError(NOT_EXACT)
        return int(value)
    if isinstance(value, str | Decimal) and len(text := str(value)) <= MAX_KEY_CHARACTERS:
        return _whole_text(text)
    raise UnreadableError("KEY_NOT_A_NUMBER")


def _whole_text(value: str) -> int:
    if value.isascii() and value.isdecimal():
        return int(value)
    try:
        # Decimal would take digits of any script, and underscores between them.
        number = Decimal(value if value.isascii() and "_" not in value else "")
    except InvalidOperation as error:
        raise UnreadableError("KEY_NOT_A_NUMBER") from error
    # An exponent of millions would be a number of millions of digits.
    if not number.is_finite() or number.adjusted() > MAX_KEY_CHARACTERS:
        raise UnreadableError("KEY_NOT_A_NUMBER")
    if number != number.to_integral_value():
        raise UnreadableError("KEY_NOT_A_NUMBER")
    # DMS writes what a double holds of a large number; digits left out were perhaps rounded away.
    if abs(number) >= _EXACT_BELOW and int(number.as_tuple().exponent) > 0:
        raise UnreadableError(NOT_EXACT)
    return int(number)
