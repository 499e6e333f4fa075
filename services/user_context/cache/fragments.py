"""The bytes of a cached part of a context, and answers made by joining such bytes.

A fragment is a header, the time it was read as an encoded field of Freshness, and the body: the
encoded fields of UserContext that belong to the part, or their JSON. Protobuf messages are merged
by writing one after the other, so an answer is built without parsing anything.
"""

from struct import Struct
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

# Must rise whenever the layout or the content of a form changes, so that copies of another release
# are not used.
FORMAT = 5

# Version in decimal, milliseconds of the Unix epoch, server's run, half an etag, absence, length.
_HEADER = Struct(">B20sQ8s16sBB")

# The length of the header of a form.
HEADER_BYTES = _HEADER.size

RUN_BYTES = 8

_NO_ETAG = b"0" * 16
_STALE = b"\x08\x01"
_CACHED = b"\x10\x01"
_READ_AT_TAG = b"\x1a"
_ETAG = b"\x22\x20"
_CONTEXT_TAG = b"\x0a"
_JSON_TAG = b"\x12"
_FRESHNESS_TAG = b"\x1a"
_BATCHED_TAG = b"\x0a"


class Fragment(NamedTuple):
    """One part of one person's context in one form."""

    version: bytes
    fresh_until_ms: int
    run: bytes
    etag: bytes
    is_absent: bool
    read_at: bytes
    body: bytes


def version_text(version: int) -> bytes:
    """Return ``version`` so that texts compare as the numbers do; Lua's numbers end at 2**53."""
    return b"%020d" % version


def encode(fragment: Fragment) -> bytes:
    """Return the fragment as bytes."""
    return (
        _HEADER.pack(
            FORMAT,
            fragment.version,
            fragment.fresh_until_ms,
            fragment.run,
            fragment.etag,
            fragment.is_absent,
            len(fragment.read_at),
        )
        + fragment.read_at
        + fragment.body
    )


def decode(raw: bytes) -> Fragment | None:
    """Return the fragment; None when it is of another layout."""
    if len(raw) < _HEADER.size or raw[0] != FORMAT:
        return None
    _, version, fresh_until_ms, run, etag, is_absent, length = _HEADER.unpack_from(raw)
    body = _HEADER.size + length
    return Fragment(
        version,
        fresh_until_ms,
        run,
        etag,
        is_absent == 1,
        raw[_HEADER.size : body],
        raw[body:],
    )


def read_at_field(unix_microseconds: int) -> bytes:
    """Return ``Freshness.read_at`` as an encoded field."""
    seconds, microseconds = divmod(unix_microseconds, 1_000_000)
    moment = Timestamp(seconds=seconds, nanos=microseconds * 1_000).SerializeToString()
    return delimited(_READ_AT_TAG, moment)


def message_answer(
    main: Fragment, call: Fragment | None, *, is_stale: bool, is_cached: bool
) -> bytes:
    """Return an encoded GetUserContextResponse with ``context``; the parts are in message form."""
    context = main.body if call is None else main.body + call.body
    freshness = _freshness(main, call, is_stale, is_cached)
    return delimited(_CONTEXT_TAG, context) + freshness


def json_answer(main: Fragment, call: Fragment | None, *, is_stale: bool, is_cached: bool) -> bytes:
    """Return an encoded GetUserContextResponse with ``context_json``; the parts are in JSON form.

    The main part's JSON is an object without its closing brace.
    """
    context = b'%b,"call_state":%b}' % (main.body, b"null" if call is None else call.body)
    return delimited(_JSON_TAG, context) + _freshness(main, call, is_stale, is_cached)


def batched(answer: bytes) -> bytes:
    """Return ``answer`` as an encoded element of BatchGetUserContextsResponse.contexts."""
    return delimited(_BATCHED_TAG, answer)


def _freshness(main: Fragment, call: Fragment | None, is_stale: bool, is_cached: bool) -> bytes:
    freshness = b"%b%b%b%b%b%b" % (
        _STALE if is_stale else b"",
        _CACHED if is_cached else b"",
        main.read_at,
        _ETAG,
        main.etag,
        _NO_ETAG if call is None else call.etag,
    )
    return delimited(_FRESHNESS_TAG, freshness)


def delimited(tag: bytes, body: bytes) -> bytes:
    """Return a field of a known length, such as a message, encoded."""
    length = len(body)
    if length < _SHORT:
        return tag + _LENGTHS[length] + body
    return tag + _varint(length) + body


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


# Nearly all lengths, encoded: looking one up costs a third of encoding it.
_SHORT = 4_096
_LENGTHS = tuple(map(_varint, range(_SHORT)))
