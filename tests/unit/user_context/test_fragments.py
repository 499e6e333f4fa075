"""Answers joined from bytes are the messages they claim to be."""

import orjson
import pytest
from dialler.model.v1 import call_state_pb2
from dialler.user_context.v1 import user_context_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from services.user_context.cache.fragments import (
    Fragment,
    batched,
    decode,
    encode,
    json_answer,
    message_answer,
    read_at_field,
    version_text,
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
    raw = message_answer(_main("n" * length), _CALL, is_stale=False, is_cached=True)

    answer = pb.GetUserContextResponse.FromString(raw)

    assert answer.context.user.first_name == "n" * length
    assert answer.context.call_state.score == 3
    assert answer.freshness.cached
    assert not answer.freshness.stale
    assert answer.freshness.read_at.ToMicroseconds() == _MICROSECONDS
    assert answer.freshness.etag == "0123456789abcdef" + "f" * 16


def test_three_million_bytes_are_joined_right() -> None:
    raw = batched(message_answer(_main("n" * 3_000_000), None, is_stale=True, is_cached=False))

    (answer,) = pb.BatchGetUserContextsResponse.FromString(raw).contexts

    assert len(answer.context.user.first_name) == 3_000_000
    assert not answer.context.HasField("call_state")
    assert answer.freshness.stale


@pytest.mark.parametrize("call", [None, _fragment(b'{"score":3.0}')])
def test_json_is_joined_to_one_object(call: Fragment | None) -> None:
    main = _fragment(b'{"user":{"user_id":"1"},"claims":[]')

    answer = pb.GetUserContextResponse.FromString(
        json_answer(main, call, is_stale=call is None, is_cached=True)
    )

    assert orjson.loads(answer.context_json) == {
        "user": {"user_id": "1"},
        "claims": [],
        "call_state": None if call is None else {"score": 3.0},
    }
    assert answer.freshness.stale == (call is None)
    assert not answer.HasField("context")


def test_answers_of_a_batch_keep_their_order() -> None:
    raw = (
        b"".join(
            batched(message_answer(_main(name), None, is_stale=False, is_cached=True))
            for name in ("b", "a", "c")
        )
        + pb.BatchGetUserContextsResponse(missing_user_ids=[9, 2**64 - 1]).SerializeToString()
    )

    batch = pb.BatchGetUserContextsResponse.FromString(raw)

    assert [one.context.user.first_name for one in batch.contexts] == ["b", "a", "c"]
    assert list(batch.missing_user_ids) == [9, 2**64 - 1]
