"""Parses JSON: fast, exactly to the last digit, or leniently."""

import json
import re
from collections.abc import Iterator
from typing import Final

import orjson

_MAX_INTEGER_DIGITS = 100
# Separators of documents: space, a byte order mark, also one of UTF-8 that was read as Latin-1,
# NUL, the separator of RFC 7464, and the comma of a list without its brackets.
_BETWEEN = re.compile("(?:[\\s\ufeff\0\x1e,]|\xef\xbb\xbf)*")

NOT_JSON: Final = object()
"""Marks a part of a text that is not JSON."""


def parse(text: str) -> object:
    """Return the value; numbers that do not fit 64 bits or have a fraction become floats.

    Raises:
        ValueError: the text is not JSON.
    """
    return orjson.loads(text)


def parse_exactly(text: str) -> object:
    """Return the value; numbers that `parse` would make floats stay texts.

    Many times slower than `parse`.

    Raises:
        ValueError: the text is not JSON, or nested too deeply.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def documents(text: str) -> Iterator[object]:
    """Yield every document in a text that is not one JSON document, with exact numbers.

    Accepts several documents, with separators and line breaks or without; a byte order mark; NaN
    and infinities, which become null; integers of any length; unescaped control characters; halves
    of surrogate pairs, which become U+FFFD. Yields `NOT_JSON` for a part that is not JSON, and
    continues at the next line.
    """
    # The parser may read to the end of the text before it fails, once for every bad part.
    effort = 4 * len(text) + 1_000
    at = _after_gap(text, 0)
    while at < len(text):
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield NOT_JSON
            reached = error.pos if isinstance(error, json.JSONDecodeError) else len(text)
            effort -= reached - at
            at = text.find("\n", at)
            if at < 0 or effort < 0:
                return
        else:
            yield value if not isinstance(value, str) else _encodable(value)
        at = _after_gap(text, at)


def unescaped(text: str) -> str | None:
    """Return the text that was escaped but not quoted; None for any other text."""
    # JSON has no backslash before the first quote.
    if "\\" not in text.partition('"')[0]:
        return None
    try:
        value = _DECODER.decode(f'"{text}"')
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, str) else None


def _after_gap(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


def _encodable(text: str) -> str:
    """Return the text without halves of surrogate pairs, which no encoding can send."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


_DECODER = json.JSONDecoder(
    strict=False,
    parse_float=str,
    # Python parses huge numbers slowly, and refuses the largest.
    parse_int=lambda digits: int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else digits,
    # MySQL has no NaN and no infinities.
    parse_constant=lambda _constant: None,
    object_pairs_hook=lambda pairs: {
        _encodable(name): _encodable(value) if isinstance(value, str) else value
        for name, value in pairs
    },
)
