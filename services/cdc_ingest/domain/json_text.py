"""JSON as fast as can be, or to the last digit."""

import json

import orjson

_MAX_INTEGER_DIGITS = 100


def parse(text: str) -> object:
    """Return the value; numbers that do not fit 64 bits or have a fraction become floats.

    Raises:
        ValueError: it is not JSON.
    """
    return orjson.loads(text)


def parse_to_the_digit(text: str) -> object:
    """Return the value, with those numbers that would become floats as the text they are.

    Many times slower than `parse`.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_float=str, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _integer(digits: str) -> object:
    # Python takes its time over huge numbers, and refuses the largest.
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else digits
