"""The bytes of a cached part of a context, and answers made by joining such bytes.

A fragment is a header, the time it was read as an encoded field of Freshness, and the body: the
encoded fields of UserContext that belong to the part, or their JSON. Protobuf messages are merged
by writing one after the other, so an answer is built without parsing anything.
"""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NamedTuple, cast

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
_CALL_STATE = b',"call_state":'
_JSON_BYTES = len(_CALL_STATE) + len(b"}")


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


def whole_answer(
    copies: Sequence[bytes | None], run: bytes, now_ms: int, *, as_json: bool
) -> bytes | None:
    """Return an encoded GetUserContextResponse of copies that are both fresh; None if one is not.

    `copies` are the fence and the copy of the main part, then those of the call part, in one form.
    No Fragment is made of them: of most answers that would be half of the work.
    """
    if None in copies:
        return None
    main_fence, main, call_fence, call = cast("Sequence[bytes]", copies)
    if len(main) < HEADER_BYTES or len(call) < HEADER_BYTES:
        return None
    form, version, until, of_run, main_etag, is_absent, main_body = _HEADER.unpack_from(main)
    if is_absent or form != FORMAT or version < main_fence or until <= now_ms or of_run != run:
        return None
    form, version, until, of_run, call_etag, _, call_body = _HEADER.unpack_from(call)
    if form != FORMAT or version < call_fence or until <= now_ms or of_run != run:
        return None
    return _joined(
        _CACHED,
        main[HEADER_BYTES : HEADER_BYTES + main_body],
        main_etag + call_etag,
        main[HEADER_BYTES + main_body :],
        call[HEADER_BYTES + call_body :],
        as_json,
    )


def answer_of(
    main: Fragment, call: Fragment | None, *, is_stale: bool, is_cached: bool, as_json: bool
) -> bytes:
    """Return an encoded GetUserContextResponse, with `context_json` or with `context`.

    The parts are in that form; the JSON of the main part is an object without its closing brace.
    """
    marks = (_STALE if is_stale else b"") + (_CACHED if is_cached else b"")
    etag = main.etag + (_NO_ETAG if call is None else call.etag)
    unknown = b"null" if as_json else b""
    call_body = unknown if call is None else call.body
    return _joined(marks, main.read_at, etag, main.body, call_body, as_json)


def batched(answers: Iterable[bytes], rest: bytes) -> bytes:
    """Return an encoded BatchGetUserContextsResponse: `contexts`, then its other fields encoded."""
    pieces: list[bytes] = []
    for answer in answers:
        pieces += (_BATCHED_TAG, _varint(len(answer)), answer)
    return b"".join((*pieces, rest))


def _joined(
    marks: bytes, read_at: bytes, etag: bytes, main: bytes, call: bytes, as_json: bool
) -> bytes:
    # Joined once: each step less is a copy less of thousands of bytes.
    freshness = b"".join((marks, read_at, _ETAG, etag))
    size = len(main) + len(call)
    context: tuple[bytes, ...]
    if as_json:
        context = (_JSON_TAG, _varint(size + _JSON_BYTES), main, _CALL_STATE, call, b"}")
    else:
        context = (_CONTEXT_TAG, _varint(size), main, call)
    return b"".join((*context, _FRESHNESS_TAG, _varint(len(freshness)), freshness))


def delimited(tag: bytes, body: bytes) -> bytes:
    """Return a field of a known length, such as a message, encoded."""
    return tag + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    # Looking one up costs a third of encoding it.
    return _SHORT[number] if number < len(_SHORT) else _encoded(number)


def _encoded(number: int) -> bytes:
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


# Nearly all lengths.
_SHORT = tuple(map(_encoded, range(4_096)))
