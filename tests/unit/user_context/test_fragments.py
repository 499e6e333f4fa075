"""Answers joined from bytes are the messages they claim to be."""

import orjson
import pytest
from dialler.model.v1 import call_state_pb2
from dialler.user_context.v1 import user_context_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from services.user_context.cache.fragments import (
    Fragment,
    answer_of,
    batched,
    decode,
    encode,
    read_at_field,
    version_text,
    whole_answer,
)
from services.user_context.cache.rendering import render_call

_MICROSECONDS = 1_750_000_000_123_456


def _fragment(body: bytes, *, etag: bytes = b"0123456789abcdef", read_at: bytes = b"") -> Fragment:
    return Fragment(version_text(7), 1_750_000_000_000, b"\x01" * 8, etag, False, read_at, body)


def _main(name: str) -> Fragment:
    message = pb.UserContext(user=pb.User(user_id=1, first_name=name)).SerializeToString()
    return _fragment(message, read_at=read_at_field(_MICROSECONDS))


_CALL = _fragment(render_call(call_state_pb2.CallState(user_id=1, score=3)).message, etag=b"f" * 16)


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1), st.booleans())
def test_what_is_encoded_is_decoded(body: bytes, version: int, is_absent: bool) -> None:
    fragment = _fragment(body, read_at=read_at_field(_MICROSECONDS))._replace(
        version=version_text(version), is_absent=is_absent
    )

    assert decode(encode(fragment)) == fragment


@pytest.mark.parametrize("raw", [b"", b"\x00" * 200, b"\x01short", b"x" * 60])
def test_what_another_release_has_stored_is_not_read(raw: bytes) -> None:
    assert decode(raw) is None


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_versions_compare_as_texts(one: int, other: int) -> None:
    assert (version_text(one) < version_text(other)) == (one < other)


@given(st.integers(0, 40_000))
def test_a_message_of_any_length_is_joined_right(length: int) -> None:
    raw = answer_of(_main("n" * length), _CALL, is_stale=False, is_cached=True, as_json=False)

    answer = pb.GetUserContextResponse.FromString(raw)

    assert answer.context.user.first_name == "n" * length
    assert answer.context.call_state.score == 3
    assert answer.freshness.cached
    assert not answer.freshness.stale
    assert answer.freshness.read_at.ToMicroseconds() == _MICROSECONDS
    assert answer.freshness.etag == "0123456789abcdef" + "f" * 16


def test_three_million_bytes_are_joined_right() -> None:
    main = _main("n" * 3_000_000)
    answer = answer_of(main, None, is_stale=True, is_cached=False, as_json=False)
    raw = batched([answer], b"")

    (found,) = pb.BatchGetUserContextsResponse.FromString(raw).contexts

    assert len(found.context.user.first_name) == 3_000_000
    assert not found.context.HasField("call_state")
    assert found.freshness.stale


@pytest.mark.parametrize("call", [None, _fragment(b'{"score":3.0}')])
def test_json_is_joined_to_one_object(call: Fragment | None) -> None:
    main = _fragment(b'{"user":{"user_id":"1"},"claims":[]')

    answer = pb.GetUserContextResponse.FromString(
        answer_of(main, call, is_stale=call is None, is_cached=True, as_json=True)
    )

    assert orjson.loads(answer.context_json) == {
        "user": {"user_id": "1"},
        "claims": [],
        "call_state": None if call is None else {"score": 3.0},
    }
    assert answer.freshness.stale == (call is None)
    assert not answer.HasField("context")


def test_answers_of_a_batch_keep_their_order() -> None:
    answers = [
        answer_of(_main(name), None, is_stale=False, is_cached=True, as_json=False)
        for name in ("b", "a", "c")
    ]
    rest = pb.BatchGetUserContextsResponse(missing_user_ids=[9, 2**64 - 1])
    raw = batched(answers, rest.SerializeToString())

    batch = pb.BatchGetUserContextsResponse.FromString(raw)

    assert [one.context.user.first_name for one in batch.contexts] == ["b", "a", "c"]
    assert list(batch.missing_user_ids) == [9, 2**64 - 1]


_RUN = b"\x01" * 8
_BEFORE_ITS_END = 1_749_999_999_999


def _copies(main: Fragment, call: Fragment) -> list[bytes | None]:
    return [main.version, encode(main), call.version, encode(call)]


@pytest.mark.parametrize("as_json", [False, True])
@given(st.binary(max_size=300), st.binary(max_size=300), st.booleans())
def test_fresh_copies_are_joined_as_their_fragments_are(
    as_json: bool, main_body: bytes, call_body: bytes, is_call_absent: bool
) -> None:
    main = _fragment(main_body, read_at=read_at_field(_MICROSECONDS))
    call = _fragment(call_body, etag=b"f" * 16)._replace(is_absent=is_call_absent)

    answer = whole_answer(_copies(main, call), _RUN, _BEFORE_ITS_END, as_json=as_json)

    assert answer == answer_of(main, call, is_stale=False, is_cached=True, as_json=as_json)


_OLD = encode(_fragment(b"old")._replace(version=version_text(6)))


@pytest.mark.parametrize("part", [0, 2], ids=["main", "call"])
@pytest.mark.parametrize(
    ("fence", "copy"),
    [
        (None, encode(_CALL)),
        (version_text(7), None),
        (version_text(8), encode(_CALL)),
        (version_text(7), _OLD),
        (version_text(7), encode(_CALL._replace(run=b"\x02" * 8))),
        (version_text(7), encode(_CALL._replace(fresh_until_ms=_BEFORE_ITS_END))),
        (version_text(7), b"\x01" + encode(_CALL)[1:]),
        (version_text(7), b""),
        (version_text(7), encode(_CALL)[:20]),
    ],
    ids=[
        "no fence", "no copy", "fence raised", "older copy", "another run", "expired",
        "another format", "empty", "cut short",
    ],
)  # fmt: skip
def test_no_answer_is_whole_with_a_copy_that_is_not_fresh(
    part: int, fence: bytes | None, copy: bytes | None
) -> None:
    copies = _copies(_main("a"), _CALL)
    copies[part : part + 2] = fence, copy

    assert whole_answer(copies, _RUN, _BEFORE_ITS_END, as_json=False) is None


def test_no_answer_is_whole_without_the_person() -> None:
    copies = _copies(_main("a")._replace(is_absent=True), _CALL)

    assert whole_answer(copies, _RUN, _BEFORE_ITS_END, as_json=False) is None
