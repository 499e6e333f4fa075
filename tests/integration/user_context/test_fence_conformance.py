"""The scripts inside Redis do what the explored protocol does, operation by operation."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.user_context.cache import scripts
from services.user_context.cache.fragments import version_text
from services.user_context.cache.links import Command, RedisLink, Reply
from tests.fakes import fence
from tests.fakes.fence import Slot
from tests.fakes.running_user_context import link_to

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Operation:
    """One step; ``token`` is the one proposed, or for a fill the one granted."""

    kind: str
    version: int = 0
    token: str = ""


def _applied(slot: Slot | None, operation: Operation) -> tuple[Slot | None, object]:
    """What the model does, and what the script should return."""
    if operation.kind == "lose":
        return None, None
    if operation.kind == "begin":
        slot, grant = fence.begin(slot, operation.version, operation.token)
        return slot, grant.token.encode()
    if operation.kind == "invalidate":
        slot, grant = fence.invalidate(slot, operation.version, operation.token)
        return slot, grant.token.encode()
    if operation.kind == "raise":
        return fence.raise_fence(slot, operation.version), int(slot is not None)
    content = b"content %d" % operation.version
    slot, is_stored = fence.fill(slot, operation.version, operation.token, content)
    return slot, int(is_stored)


def _command(key: bytes, operation: Operation) -> Command:
    if operation.kind == "lose":
        return ("DEL", key)
    script = {
        "begin": scripts.BEGIN,
        "invalidate": scripts.INVALIDATE,
        "raise": scripts.RAISE_FENCE,
        "fill": scripts.FILL,
    }[operation.kind]
    words: Command = ("EVAL", script, 1, key, "m", version_text(operation.version))
    if operation.kind in ("begin", "invalidate"):
        return (*words, operation.token, 60_000)
    if operation.kind == "fill":
        content = b"content %d" % operation.version
        return (*words, operation.token, 60_000, content, b"json of " + content, "its sums")
    return words


def _state(reply: Sequence[bytes | None]) -> Slot | None:
    fence_text, token, version, content, as_json = reply
    if fence_text is None or token is None:
        assert (fence_text, token, version) == (None, None, None)
        return None
    assert as_json == (None if content is None else b"json of " + content)
    stored = None if version is None else int(version)
    return Slot(int(fence_text), token.decode(), stored, content)


async def _compare(link: RedisLink, sequences: Sequence[Sequence[Operation]]) -> None:
    """Run each sequence on a key of its own and compare every answer and the end."""
    commands: list[Command] = []
    for number, sequence in enumerate(sequences):
        key = b"conformance:{%d}" % number
        commands.append(("DEL", key))
        commands += [_command(key, operation) for operation in sequence]
        commands.append(("HMGET", key, "mf", "mt", "mv", "mp", "mj"))
    replies = iter(await link.execute(commands))
    for sequence in sequences:
        _compare_one(sequence, [next(replies) for _ in range(len(sequence) + 2)])


def _compare_one(sequence: Sequence[Operation], replies: Sequence[Reply]) -> None:
    slot: Slot | None = None
    for operation, reply in zip(sequence, replies[1:-1], strict=True):
        slot, expected = _applied(slot, operation)
        assert expected is None or reply == expected, (sequence, operation)
    assert _state(replies[-1]) == slot, sequence


_ALPHABET = [
    Operation("lose"),
    *(
        Operation(kind, version, token)
        for kind in ("begin", "invalidate", "fill")
        for version in (1, 2)
        for token in ("a", "b")
    ),
    *(Operation("raise", version) for version in (1, 2)),
]


@pytest.mark.each_redis
async def test_every_short_sequence_of_operations_ends_the_same(redis_url: str) -> None:
    link = link_to(redis_url, timeout_seconds=30.0)
    sequences = list(itertools.product(_ALPHABET, repeat=3))
    for start in range(0, len(sequences), 500):
        await _compare(link, sequences[start : start + 500])
    await link.stop()

    assert len(sequences) == 15**3


_VERSIONS = st.sampled_from(
    [0, 1, 9, 10, 99, 100, 2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]
)
_OPERATIONS = st.builds(
    Operation,
    st.sampled_from(["begin", "invalidate", "raise", "fill", "fill", "lose"]),
    _VERSIONS,
    st.sampled_from(["a", "b"]),
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(_OPERATIONS, max_size=40), max_size=20))
async def test_long_sequences_and_huge_versions_end_the_same(
    redis_url: str, sequences: list[list[Operation]]
) -> None:
    link = link_to(redis_url, timeout_seconds=30.0)
    await _compare(link, sequences)
    await link.stop()


@pytest.mark.each_redis
async def test_every_write_extends_the_keys_time_to_live(redis_url: str) -> None:
    link = link_to(redis_url, timeout_seconds=5.0)
    for kind in ("begin", "invalidate", "fill"):
        setup = [_command(b"kept", Operation("begin", 1, "a")), ("PEXPIRE", b"kept", 100)]
        command = _command(b"kept", Operation(kind, 1, "a"))
        replies = await link.execute([*setup, command, ("PTTL", b"kept")])
        assert replies[-1] > 50_000, kind
    await link.stop()
