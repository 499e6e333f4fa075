"""Decoders of the values in row images, by column type, with AWS DMS's notation.

The layout is that of the binlog's row events. Numbers stay numbers, times become ISO 8601 with a Z,
JSON becomes text, and zero dates become null.
"""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import orjson
from pymysqlreplication.constants import FIELD_TYPE as TYPE
from pymysqlreplication.json_binary import parse_json

Value: TypeAlias = "int | float | str | orjson.Fragment | None"
Reader: TypeAlias = Callable[[bytes, int], tuple[Value, int]]
Skipper: TypeAlias = Callable[[bytes, int], int]

_DIGITS = 9
_BYTES_OF_DIGITS = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


class UnreadableColumnError(Exception):
    """The values of a column can neither be read nor skipped."""


_FIXED = {
    TYPE.TINY: 1,
    TYPE.SHORT: 2,
    TYPE.INT24: 3,
    TYPE.LONG: 4,
    TYPE.LONGLONG: 8,
    TYPE.FLOAT: 4,
    TYPE.DOUBLE: 8,
    TYPE.YEAR: 1,
    TYPE.DATE: 3,
    TYPE.NEWDATE: 3,
    TYPE.TIME: 3,
    TYPE.TIMESTAMP: 4,
    TYPE.DATETIME: 8,
}
_WITH_FRACTION = {TYPE.TIMESTAMP2: 4, TYPE.DATETIME2: 5, TYPE.TIME2: 3}
_WITH_LENGTH = (TYPE.VARCHAR, TYPE.VAR_STRING, TYPE.STRING, TYPE.BLOB, TYPE.JSON, TYPE.GEOMETRY)
READABLE_TYPES = frozenset(
    (*_FIXED, *_WITH_FRACTION, *_WITH_LENGTH, TYPE.NEWDECIMAL, TYPE.ENUM, TYPE.SET, TYPE.BIT)
)
_INTEGERS = frozenset({TYPE.TINY, TYPE.SHORT, TYPE.INT24, TYPE.LONG, TYPE.LONGLONG})


def value_skipper(column: Any) -> Skipper:
    """Return a function that returns the position behind a value of a column of varying size."""
    length_bytes = _length_bytes(column)
    if length_bytes == 1:
        return lambda data, position: position + 1 + data[position]

    def skip(data: bytes, position: int) -> int:
        start = position + length_bytes
        return start + int.from_bytes(data[position:start], "little")

    return skip


def fixed_size(column: Any) -> int | None:
    """Return the size in bytes of every value of the column; None when it varies or is unknown."""
    kind = column.type
    if kind in _FIXED:
        return _FIXED[int(kind)]
    if kind in _WITH_FRACTION:
        return _WITH_FRACTION[kind] + (int(column.fsp) + 1) // 2
    if kind == TYPE.NEWDECIMAL:
        return _decimal_size(column.precision - column.decimals) + _decimal_size(column.decimals)
    if kind in (TYPE.ENUM, TYPE.SET):
        return int(column.size)
    return int(column.bytes) if kind == TYPE.BIT else None


def _length_bytes(column: Any) -> int:
    if column.type in (TYPE.VARCHAR, TYPE.VAR_STRING, TYPE.STRING):
        return 2 if column.max_length > 255 else 1
    if column.type in (TYPE.BLOB, TYPE.JSON, TYPE.GEOMETRY):
        return int(column.length_size)
    raise UnreadableColumnError(f"column type {column.type}")


def value_reader(column: Any) -> Reader:
    """Return a function that reads a value of this column; one branch for each kind of type."""
    kind = column.type
    if kind in _INTEGERS:
        return integers(_FIXED[kind], is_signed=not column.unsigned)
    if kind in (TYPE.VARCHAR, TYPE.VAR_STRING, TYPE.STRING, TYPE.BLOB):
        return texts(_length_bytes(column), column.character_set_name)
    if kind == TYPE.JSON:
        return json_documents(_length_bytes(column))
    if kind == TYPE.NEWDECIMAL:
        return decimals(column.precision, column.decimals)
    if kind in (TYPE.FLOAT, TYPE.DOUBLE):
        return reals(_FIXED[kind])
    if kind in _WITH_FRACTION:
        return moments(kind, column.fsp)
    if kind == TYPE.ENUM:
        return enumerations(column.size, column.enum_values or [])
    if kind == TYPE.SET:
        return sets(column.size, column.set_values or [])
    size = fixed_size(column)
    if size is None:
        raise UnreadableColumnError(f"column type {kind}")
    convert = _SIMPLE.get(kind) or (lambda raw: int.from_bytes(raw, "big"))

    def read(data: bytes, position: int) -> tuple[Value, int]:
        end = position + size
        return convert(data[position:end]), end

    return read


def integers(size: int, *, is_signed: bool) -> Reader:
    """Return a reader of whole numbers."""

    def read(data: bytes, position: int) -> tuple[Value, int]:
        end = position + size
        return int.from_bytes(data[position:end], "little", signed=is_signed), end

    return read


def reals(size: int) -> Reader:
    """Return a reader of FLOAT or DOUBLE."""
    layout = struct.Struct("<f" if size == 4 else "<d")

    def read(data: bytes, position: int) -> tuple[Value, int]:
        value: float = layout.unpack_from(data, position)[0]
        # A FLOAT has about seven digits; further digits come from the conversion to a double.
        return (float(f"{value:.7g}") if size == 4 else value), position + size

    return read


def texts(length_bytes: int, character_set: str | None) -> Reader:
    """Return a reader of texts; an unknown character set is read as UTF-8."""
    encoding = character_set or "utf-8"
    try:
        "".encode(encoding)
    except LookupError:
        encoding = "utf-8"

    def read_short(data: bytes, position: int) -> tuple[Value, int]:
        start = position + 1
        end = start + data[position]
        return str(data[start:end], encoding, "replace"), end

    def read_long(data: bytes, position: int) -> tuple[Value, int]:
        start = position + length_bytes
        end = start + int.from_bytes(data[position:start], "little")
        return str(data[start:end], encoding, "replace"), end

    return read_short if length_bytes == 1 else read_long


def json_documents(length_bytes: int) -> Reader:
    """Return a reader of MySQL's binary JSON, as text."""

    def read(data: bytes, position: int) -> tuple[Value, int]:
        start = position + length_bytes
        end = start + int.from_bytes(data[position:start], "little")
        if end == start:
            return None, end
        parsed = parse_json(data[start], data[start + 1 : end])
        return orjson.dumps(plain_json(parsed), default=str).decode(), end

    return read


def plain_json(value: object) -> object:
    """Return a JSON document of MySQL's with text where the library leaves bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {str(plain_json(key)): plain_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_json(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value


def _decimal_size(digits: int) -> int:
    return digits // _DIGITS * 4 + _BYTES_OF_DIGITS[digits % _DIGITS]


def decimals(precision: int, decimals: int) -> Reader:
    """Return a reader of DECIMAL, as a JSON number with all digits."""
    integral = precision - decimals
    # The integral part begins with its incomplete group, the fraction ends with it.
    groups = [integral % _DIGITS] + [_DIGITS] * (integral // _DIGITS)
    fraction = [_DIGITS] * (decimals // _DIGITS) + [decimals % _DIGITS]
    size = _decimal_size(integral) + _decimal_size(decimals)

    def read(data: bytes, position: int) -> tuple[Value, int]:
        end = position + size
        raw = bytearray(data[position:end])
        is_negative = not raw[0] & 0x80
        raw[0] ^= 0x80
        if is_negative:
            raw = bytearray(byte ^ 0xFF for byte in raw)
        whole, used = _digits(raw, 0, groups)
        part, _ = _digits(raw, used, fraction)
        text = (whole.lstrip("0") or "0") + (f".{part}" if part else "")
        return orjson.Fragment(f"-{text}" if is_negative else text), end

    return read


def _digits(raw: bytearray, position: int, groups: Sequence[int]) -> tuple[str, int]:
    found = []
    for digits in groups:
        if digits:
            end = position + _BYTES_OF_DIGITS[digits]
            found.append(f"{int.from_bytes(raw[position:end], 'big'):0{digits}d}")
            position = end
    return "".join(found), position


def moments(kind: int, fsp: int) -> Reader:
    """Return a reader of TIMESTAMP, DATETIME or TIME with fractions; `fsp` is their digits."""
    whole = _WITH_FRACTION[kind]
    fraction_bytes = (fsp + 1) // 2
    scale = 10 ** (6 - 2 * fraction_bytes)
    if kind == TYPE.TIME2:
        return times(whole + fraction_bytes, 8 * fraction_bytes, scale)
    show = _iso_timestamp if kind == TYPE.TIMESTAMP2 else iso_datetime

    def read(data: bytes, position: int) -> tuple[Value, int]:
        middle = position + whole
        end = middle + fraction_bytes
        fraction = int.from_bytes(data[middle:end], "big") * scale
        return show(int.from_bytes(data[position:middle], "big"), fraction), end

    return read


@lru_cache(maxsize=8192)
def _iso_timestamp(seconds: int, microseconds: int = 0) -> str | None:
    if seconds == 0 and microseconds == 0:
        return None
    days, rest = divmod(seconds, 86_400)
    # The Gregorian date of a day after 1970-01-01. Years are counted from a first of March, so that
    # the leap day is a year's last.
    era, of_era = divmod(days + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    day = of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    year = year_of_era + era * 400 + (month <= 2)
    return _iso_moment(year, month, day, rest, microseconds)


@lru_cache(maxsize=8192)
def iso_datetime(packed: int, microseconds: int) -> str | None:
    """Return a packed DATETIME in ISO 8601; None for a zero date."""
    packed -= 1 << 39
    day_part, time_part = packed >> 17, packed & 0x1FFFF
    year, month = divmod(day_part >> 5, 13)
    day = day_part & 0x1F
    if not month or not day:
        return None
    seconds = (time_part >> 12) * 3600 + (time_part >> 6 & 0x3F) * 60 + (time_part & 0x3F)
    return _iso_moment(year, month, day, seconds, microseconds)


def times(size: int, fraction_bits: int, scale: int) -> Reader:
    """Return a reader of TIME with fractions."""

    def read(data: bytes, position: int) -> tuple[Value, int]:
        end = position + size
        # Sign, hours and fraction are one number, offset so that it is never negative.
        number = int.from_bytes(data[position:end], "big") - (1 << (8 * size - 1))
        sign, number = ("-", -number) if number < 0 else ("", number)
        fraction = (number & ((1 << fraction_bits) - 1)) * scale
        packed = number >> fraction_bits
        hours, minutes, seconds = packed >> 12 & 0x3FF, packed >> 6 & 0x3F, packed & 0x3F
        return f"{sign}{hours:02d}:{minutes:02d}:{seconds:02d}{_fraction(fraction)}", end

    return read


def _iso_moment(year: int, month: int, day: int, seconds: int, microseconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    time = f"{hours:02d}:{rest // 60:02d}:{rest % 60:02d}{_fraction(microseconds)}"
    return f"{year:04d}-{month:02d}-{day:02d}T{time}Z"


def _fraction(microseconds: int) -> str:
    return f".{microseconds:06d}" if microseconds else ""


def enumerations(size: int, values: Sequence[str]) -> Reader:
    """Return a reader of ENUM; an unknown index is None."""

    def read(data: bytes, position: int) -> tuple[Value, int]:
        end = position + size
        index = int.from_bytes(data[position:end], "little")
        return (values[index] if index < len(values) else None), end

    return read


def sets(size: int, values: Sequence[str]) -> Reader:
    """Return a reader of SET, as names joined by commas."""

    def read(data: bytes, position: int) -> tuple[Value, int]:
        end = position + size
        mask = int.from_bytes(data[position:end], "little")
        return ",".join(value for bit, value in enumerate(values) if mask >> bit & 1), end

    return read


def iso_date(raw: bytes) -> str | None:
    """Return a DATE in ISO 8601; None for a zero date."""
    packed = int.from_bytes(raw, "little")
    year, month, day = packed >> 9, packed >> 5 & 0xF, packed & 0x1F
    return f"{year:04d}-{month:02d}-{day:02d}" if month and day else None


def old_datetime(raw: bytes) -> str | None:
    """Return a DATETIME of MySQL before 5.6."""
    date, time = divmod(int.from_bytes(raw, "little"), 1_000_000)
    year, month, day = date // 10_000, date // 100 % 100, date % 100
    if not month or not day:
        return None
    seconds = time // 10_000 * 3600 + time // 100 % 100 * 60 + time % 100
    return _iso_moment(year, month, day, seconds, 0)


def old_time(raw: bytes) -> str:
    """Return a TIME of MySQL before 5.6."""
    value = int.from_bytes(raw, "little", signed=True)
    sign, value = ("-", -value) if value < 0 else ("", value)
    return f"{sign}{value // 10_000:02d}:{value // 100 % 100:02d}:{value % 100:02d}"


_SIMPLE: dict[int, Callable[[bytes], Value]] = {
    TYPE.DATE: iso_date,
    TYPE.NEWDATE: iso_date,
    TYPE.YEAR: lambda raw: raw[0] + 1900 if raw[0] else 0,
    TYPE.TIMESTAMP: lambda raw: _iso_timestamp(int.from_bytes(raw, "little")),
    TYPE.DATETIME: old_datetime,
    TYPE.TIME: old_time,
}
