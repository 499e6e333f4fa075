"""Unpacks contents to text: base64, gzip, zlib, aggregated Kinesis records, any UTF, Latin-1."""

import base64
import binascii
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from gzip import GzipFile
from typing import Final

from services.cdc_ingest.domain.formats.records import LostTrack, UnreadableError

MAX_UNPACKED_BYTES: Final = 8 * 1024 * 1024
"""The largest total size of the unpacked parts of one message.

Rows shrink to about a tenth, and an SQS message has at most 1 MiB: hardly any holds more.
"""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZLIB_METHOD: Final = 0x78
# The highest ratio of deflate ("Maximum Compression Factor" in zlib's technical notes).
_MAX_RATIO: Final = 1_032
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_URL_SAFE = str.maketrans("-_", "+/")
# The Kinesis Producer Library packs many records into one: the magic, AggregatedRecord in
# protobuf, and its MD5 ("KPL Aggregated Record Format" in its repository).
_AGGREGATED_MAGIC: Final = b"\xf3\x89\x9a\xc2"
_DIGEST_BYTES: Final = 16
_RECORDS: Final = 3
_DATA: Final = 3
_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5


def base64_content(text: str) -> bytes | None:
    """Return the bytes of a base64 text, of either alphabet, with line breaks or not; else None.

    A plain word may be valid base64 by chance.
    """
    try:
        # The usual form, of Kinesis records.
        return base64.b64decode(text, validate=True)
    except ValueError:
        compact = "".join(text.split())
    if not _BASE64.fullmatch(compact):
        return None
    compact = compact.rstrip("=").translate(_URL_SAFE)
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except binascii.Error:
        return None


class Unpacker:
    """Unpacks the parts of one message, up to `MAX_UNPACKED_BYTES` together."""

    def __init__(self) -> None:
        self._left = MAX_UNPACKED_BYTES

    def unpacked(self, content: bytes) -> bytes:
        """Return the content decompressed if it is gzip or zlib, else as it is.

        Raises:
            UnreadableError: CONTENT_TOO_LARGE or CONTENT_DAMAGED.
        """
        is_gzip = content.startswith(_GZIP_MAGIC)
        is_zlib = content[:1] == bytes((_ZLIB_METHOD,)) and not int.from_bytes(content[:2]) % 31
        if not is_gzip and not is_zlib:
            return content
        if self._left <= 0:
            raise _too_large()
        at_most = self._left + 1
        try:
            if is_gzip:
                found = GzipFile(fileobj=io.BytesIO(content)).read(at_most)
            else:
                found = zlib.decompressobj().decompress(content, at_most)
        except (OSError, EOFError, zlib.error) as error:
            # How much was unpacked before the damage is unknown.
            self._left -= min(at_most, len(content) * _MAX_RATIO)
            raise UnreadableError("CONTENT_DAMAGED") from error
        self._left -= len(found)
        if self._left < 0:
            raise _too_large()
        return found


def _too_large() -> UnreadableError:
    return UnreadableError("CONTENT_TOO_LARGE", LostTrack("", "content-too-large"))


def text_of(content: bytes) -> str:
    """Return the text: UTF-8, UTF-16 or UTF-32 with or without a byte order mark, else Latin-1.

    With any encoding that extends ASCII, keys and names are right.
    """
    try:
        is_ascii_first = content[:1] == b"{" and content[1:2] != b"\0"
        return content.decode("utf-8" if is_ascii_first else json.detect_encoding(content))
    except UnicodeDecodeError:
        return content.decode("latin-1")


def aggregated(content: bytes) -> list[bytes] | None:
    """Return the records that the Kinesis Producer Library packed into one; None for others.

    Raises:
        UnreadableError: KPL_DAMAGED, the digest or the structure is wrong.
    """
    if not content.startswith(_AGGREGATED_MAGIC):
        return None
    packed, digest = content[len(_AGGREGATED_MAGIC) : -_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if hashlib.md5(packed, usedforsecurity=False).digest() != digest:
        raise UnreadableError("KPL_DAMAGED")
    return [
        b"".join(data for number, data in _fields(record) if number == _DATA)
        for place, record in _fields(packed)
        if place == _RECORDS
    ]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each field of a protobuf message that has a size.

    Raises:
        UnreadableError: KPL_DAMAGED.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _SIZED:
            size, at = _varint(message, at)
            yield tag >> 3, message[at : at + size]
            at += size
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise UnreadableError("KPL_DAMAGED")
    if at != len(message):
        raise UnreadableError("KPL_DAMAGED")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number at the offset, and the offset after it."""
    number = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            break
        number |= (message[at] & 0x7F) << shift
        at += 1
        if message[at - 1] < 0x80:
            return number, at
    raise UnreadableError("KPL_DAMAGED")
