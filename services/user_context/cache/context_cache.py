"""Contexts in Redis, one hash for each person, filled under the fence.

No answer depends on the cache: when Redis does not answer, callers read the databases.
"""

import logging
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from math import inf
from typing import NamedTuple, TypeVar

from servicekit.clock import Clock
from services.user_context.cache import scripts
from services.user_context.cache.breaker import Breaker
from services.user_context.cache.fragments import (
    HEADER_BYTES,
    Fragment,
    decode,
    encode,
    read_at_field,
    version_text,
    whole_answer,
)
from services.user_context.cache.links import (
    UNREACHABLE,
    Command,
    RedisLink,
    RedisUnavailable,
    Reply,
    ReplyError,
)
from services.user_context.cache.rendering import RenderedPart
from services.user_context.domain import Part, UserId
from services.user_context.metrics import CacheStats, Result

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Limits how long hits wait behind a bulk fill on the shared socket.
PEOPLE_PER_WRITE = 50

# The same for inspections, in which the server reads each copy as a whole.
PEOPLE_PER_INSPECTION = 20


def _sha1(content: bytes) -> str:
    # Redis names scripts by it and can compute it; no security depends on it.
    return sha1(content, usedforsecurity=False).hexdigest()


_DIGESTS = {script: _sha1(script.encode()) for script in scripts.ALL}
_SCRIPTS = {digest: script for script, digest in _DIGESTS.items()}

_EVERY_KEY = "ctx:{*}"
# Of `users.id`; a key with more digits is not one of the service's.
_MOST_DIGITS = 20

_MESSAGE_FIELDS = ("mf", "mp", "cf", "cp")
_JSON_FIELDS = ("mf", "mj", "cf", "cj")


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long things are fresh and kept, in seconds."""

    main_fresh: float
    call_fresh: float
    absent_fresh: float
    kept: float


class Grant(NamedTuple):
    """Permission to fill one person's part from a reading that begins after it."""

    token: bytes
    run: bytes


class CachedParts(NamedTuple):
    """The cached parts of one person's context, in one form.

    With both fresh there is the `answer` instead of the parts, an encoded GetUserContextResponse.
    """

    main: Fragment | None = None
    is_main_fresh: bool = False
    call: Fragment | None = None
    is_call_fresh: bool = False
    answer: bytes | None = None


class Filling(NamedTuple):
    """The result of a reading for one person; nothing rendered means no such person."""

    user_id: UserId
    version: int
    rendered: RenderedPart | None


class Inspected(NamedTuple):
    """A part that would be served as fresh, and whether it is unaltered since it was stored."""

    user_id: UserId
    fingerprint: int
    is_intact: bool


class BothForms(NamedTuple):
    """A part in message and JSON form."""

    message: Fragment
    json: Fragment


NOTHING = CachedParts()


class ContextCache:
    """The cache of contexts.

    Reading and filling never raise: failures are counted, and the result is empty. Methods whose
    effect callers rely on raise RedisUnavailable.

    Each time Redis does not answer, refuses writes or is connected to anew, any process may have
    kept an invalidation for later. No copy is fresh from then on, until a caller of `trust` has
    found that no invalidation is due; and none after the moment up to which that holds.
    """

    def __init__(
        self,
        link: RedisLink,
        *,
        breaker: Breaker,
        clock: Clock,
        lifetimes: Lifetimes,
        stats: CacheStats,
    ) -> None:
        self._link = link
        self._breaker = breaker
        self._clock = clock
        self._lifetimes = lifetimes
        self._stats = stats
        self._kept_ms = round(lifetimes.kept * 1_000)
        self._losses = 0
        self._trusted_losses = 0
        self._trusted_until = inf
        self._vouched_losses = 0
        # Invalidations of this process, until a check finds that the same server still leads.
        self._raised: dict[tuple[Part, UserId], int] = {}

    async def confirm(self) -> None:
        """Return when Redis answers and takes writes. Raises RedisUnavailable."""
        with self._watched():
            await self._link.confirm()

    async def confirm_raised(self) -> None:
        """Confirm, and repeat recent invalidations of this process after a loss of Redis.

        A server may have been demoted unnoticed when it took them. All since the last call that
        found no loss are repeated. Raises RedisUnavailable.
        """
        raised_before = dict(self._raised)
        await self.confirm()
        losses = self.losses
        if losses == self._vouched_losses:
            for key, version in raised_before.items():
                if self._raised.get(key) == version:
                    del self._raised[key]
            return
        for part in Part:
            versions = {one: version for (of, one), version in self._raised.items() if of is part}
            await self.raise_fences(part, versions)
        self._vouched_losses = losses

    @property
    def losses(self) -> int:
        """How often Redis has been lost so far, which includes reconnections."""
        return self._losses + self._link.reconnects

    @property
    def _is_trusted(self) -> bool:
        return self.losses == self._trusted_losses and self._clock.monotonic() < self._trusted_until

    def distrust(self, why: str) -> None:
        """Serve no copy as fresh until `trust`; `why` is one word for operators."""
        self._losses += 1
        self._stats.distrust(why)

    def trust(self, losses: int, until: float) -> None:
        """Serve copies as fresh until then, unless Redis has been lost since `losses` was read.

        The caller has read `losses` first and then found that no invalidation is due. `until` is a
        moment of `Clock.monotonic`.
        """
        if losses != self.losses:
            return
        self._trusted_losses = losses
        self._trusted_until = until
        if self._stats.distrust_reason:
            self._stats.distrust("")
            _log.info("cache_trusted")

    def trust_on(self, since: float) -> None:
        """Serve copies as fresh until the next `trust` or loss, if that was done at `since`."""
        if self.losses == self._trusted_losses and since < self._trusted_until:
            self._trusted_until = inf

    async def read_one(self, user_id: UserId, *, as_json: bool) -> CachedParts:
        """Return what is cached of a person."""
        if not self._breaker.allows():
            return NOTHING
        try:
            (reply,) = await self._link.execute([_read_command(user_id, as_json)])
        except RedisUnavailable as error:
            self._lost(error)
            return NOTHING
        self._breaker.succeeded()
        return self._judged(reply, self._now_ms(), as_json)

    async def read_many(self, user_ids: Sequence[UserId], *, as_json: bool) -> list[CachedParts]:
        """Return what is cached of each person, in the order given."""
        try:
            replies = await self._execute([_read_command(one, as_json) for one in user_ids])
        except RedisUnavailable:
            return [NOTHING] * len(user_ids)
        now_ms = self._now_ms()
        return [self._judged(reply, now_ms, as_json) for reply in replies]

    async def begin(
        self, part: Part, user_ids: Sequence[UserId], version: int
    ) -> dict[UserId, Grant]:
        """Announce a reading that begins after this; only people with a grant can be filled."""
        try:
            return await self._announce(scripts.BEGIN, part, user_ids, version)
        except RedisUnavailable:
            return {}

    async def invalidate(
        self, part: Part, user_ids: Sequence[UserId], version: int
    ) -> dict[UserId, Grant]:
        """Invalidate readings older than ``version`` and announce one. Raises RedisUnavailable."""
        announce = partial(self._announce, scripts.INVALIDATE, part, user_ids, version)
        grants = await _twice(announce)
        self._note_raised(part, dict.fromkeys(user_ids, version))
        return grants

    async def raise_fences(self, part: Part, versions: Mapping[UserId, int]) -> None:
        """Invalidate what is older than each person's version. Raises RedisUnavailable."""
        digest = _DIGESTS[scripts.RAISE_FENCE]
        user_ids = list(versions)

        async def attempt() -> None:
            for start in range(0, len(user_ids), PEOPLE_PER_WRITE):
                some = user_ids[start : start + PEOPLE_PER_WRITE]
                replies = await self._execute(
                    [
                        ("EVALSHA", digest, 1, _key(one), part.value, version_text(versions[one]))
                        for one in some
                    ]
                )
                await self._drop_failed(some, replies)

        await _twice(attempt)
        self._note_raised(part, versions)

    def _note_raised(self, part: Part, versions: Mapping[UserId, int]) -> None:
        for user_id, version in versions.items():
            key = part, user_id
            self._raised[key] = max(version, self._raised.get(key, 0))

    def form(self, part: Part, filling: Filling, run: bytes, read_at_us: int) -> BothForms:
        """Return what a reading stores, in both forms, fresh for a time that varies a little."""
        # No such person, or one unknown to the queue: that may change at any moment.
        lifetime = self._lifetimes.absent_fresh
        if part is Part.MAIN and filling.rendered is not None:
            lifetime = self._lifetimes.main_fresh
        elif part is Part.CALL and filling.version:
            lifetime = self._lifetimes.call_fresh
        # Never longer than configured; spread, so that forms filled together end apart.
        seconds = lifetime * random.uniform(0.85, 1.0)  # noqa: S311
        empty = RenderedPart(b"", b"", 0)
        rendered = filling.rendered or empty
        message = Fragment(
            version_text(filling.version),
            self._now_ms() + round(seconds * 1_000),
            run,
            rendered.etag,
            filling.rendered is None,
            read_at_field(read_at_us) if part is Part.MAIN else b"",
            rendered.message,
        )
        return BothForms(message, message._replace(body=rendered.json))

    async def fill(
        self,
        part: Part,
        forms: Mapping[UserId, BothForms],
        grants: Mapping[UserId, Grant],
    ) -> None:
        """Store what was read, where there is a grant and the fence allows it."""
        digest = _DIGESTS[scripts.FILL]
        commands: list[Command] = []
        for user_id, form in forms.items():
            if user_id in grants:
                message, json = encode(form.message), encode(form.json)
                sums = _sha1(message) + _sha1(json)
                version, token = form.message.version, grants[user_id].token
                rest = (part.value, version, token, self._kept_ms, message, json, sums)
                commands.append(("EVALSHA", digest, 1, _key(user_id), *rest))
        for start in range(0, len(commands), PEOPLE_PER_WRITE):
            try:
                replies = await self._execute(commands[start : start + PEOPLE_PER_WRITE])
            except RedisUnavailable:
                return
            self._stats.count_fenced(sum(reply == 0 for reply in replies))

    async def inspect(self, part: Part, user_ids: Sequence[UserId]) -> list[Inspected]:
        """Return the users of whom a form of the part would be served as fresh.

        Raises RedisUnavailable.
        """
        digest = _DIGESTS[scripts.INSPECT]
        found: list[Inspected] = []
        for start in range(0, len(user_ids), PEOPLE_PER_INSPECTION):
            some = user_ids[start : start + PEOPLE_PER_INSPECTION]
            replies = await self._execute(
                [("EVALSHA", digest, 1, _key(one), part.value, HEADER_BYTES) for one in some]
            )
            now_ms = self._now_ms()
            for user_id, reply in zip(some, replies, strict=True):
                if (one := self._inspected(user_id, reply, now_ms)) is not None:
                    found.append(one)
        return found

    async def inspect_all(self, part: Part) -> AsyncGenerator[list[Inspected], None]:
        """Yield the same of every user of whom anything is cached. Raises RedisUnavailable."""
        async for keys in self._link.keys(_EVERY_KEY):
            numbers = [key.removeprefix(b"ctx:{").removesuffix(b"}") for key in keys]
            user_ids = [
                UserId(int(digits))
                for digits in numbers
                if digits.isdigit() and len(digits) <= _MOST_DIGITS
            ]
            yield await self.inspect(part, user_ids)

    def _inspected(self, user_id: UserId, reply: Reply, now_ms: int) -> Inspected | None:
        if isinstance(reply, ReplyError):
            if "WRONGTYPE" in str(reply):
                # Not a key of the service, and nothing that could be served.
                return None
            raise RedisUnavailable(str(reply).partition(" ")[0])
        fence, message, json, is_intact = reply
        for form in map(decode, (message, json)):
            if form is not None and self._is_fresh(form, fence, now_ms):
                fingerprint = 0
                # An altered etag may be no number; the SHA-1 shows the alteration.
                with suppress(ValueError):
                    fingerprint = int(form.etag, 16)
                return Inspected(user_id, fingerprint, is_intact == 1)
        return None

    async def _announce(
        self,
        script: str,
        part: Part,
        user_ids: Sequence[UserId],
        version: int,
    ) -> dict[UserId, Grant]:
        grants: dict[UserId, Grant] = {}
        for start in range(0, len(user_ids), PEOPLE_PER_WRITE):
            some = user_ids[start : start + PEOPLE_PER_WRITE]
            # Read before the command is sent, so that it is never newer than the fence.
            run = self._link.run
            token = secrets.token_bytes(8)
            rest = (part.value, version_text(version), token, self._kept_ms)
            replies = await self._execute(
                [("EVALSHA", _DIGESTS[script], 1, _key(user_id), *rest) for user_id in some]
            )
            if script is scripts.INVALIDATE:
                await self._drop_failed(some, replies)
            grants.update(
                (user_id, Grant(reply, run))
                for user_id, reply in zip(some, replies, strict=True)
                if not isinstance(reply, ReplyError)
            )
        return grants

    async def _drop_failed(self, user_ids: Sequence[UserId], replies: Sequence[Reply]) -> None:
        """Delete the keys that could not be invalidated, such as one that is no hash.

        A reading that has begun can no longer fill, as the token is gone. Raises RedisUnavailable
        when Redis refuses that too.
        """
        failed: list[Command] = [
            ("DEL", _key(user_id))
            for user_id, reply in zip(user_ids, replies, strict=True)
            if isinstance(reply, ReplyError)
        ]
        for reply in await self._execute(failed) if failed else ():
            if isinstance(reply, ReplyError):
                raise RedisUnavailable(str(reply).partition(" ")[0])

    async def _execute(self, commands: Sequence[Command]) -> list[Reply]:
        """Run the commands; those whose script the server has lost are sent with its text."""
        with self._watched():
            replies = await self._link.execute(commands)
            missing = [
                place
                for place, reply in enumerate(replies)
                if isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT")
            ]
            if missing:
                again: list[Command] = [
                    ("EVAL", _SCRIPTS[str(commands[place][1])], *commands[place][2:])
                    for place in missing
                ]
                for place, reply in zip(missing, await self._link.execute(again), strict=True):
                    replies[place] = reply
        return replies

    @contextmanager
    def _watched(self) -> Iterator[None]:
        if not self._breaker.allows():
            raise RedisUnavailable("left alone for a moment after failing")
        try:
            yield
        except RedisUnavailable as error:
            self._lost(error)
            raise
        self._breaker.succeeded()

    def _judged(self, reply: Reply, now_ms: int, as_json: bool) -> CachedParts:
        if isinstance(reply, ReplyError):
            self._stats.count(Result.ERROR)
            return NOTHING
        if self._is_trusted:
            answer = whole_answer(reply, self._link.run, now_ms, as_json=as_json)
            if answer is not None:
                return CachedParts(None, True, None, True, answer)
        main_fence, main_raw, call_fence, call_raw = reply
        main = decode(main_raw) if main_raw is not None else None
        call = decode(call_raw) if call_raw is not None else None
        return CachedParts(
            main,
            main is not None and self._is_fresh(main, main_fence, now_ms),
            call,
            call is not None and self._is_fresh(call, call_fence, now_ms),
        )

    def _is_fresh(self, fragment: Fragment, fence: bytes | None, now_ms: int) -> bool:
        return (
            self._is_trusted
            and fence is not None
            and fragment.version >= fence
            and now_ms < fragment.fresh_until_ms
            and fragment.run == self._link.run
        )

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1_000)

    def _lost(self, error: RedisUnavailable) -> None:
        self._breaker.failed()
        self._stats.count(Result.ERROR)
        if not self._stats.distrust_reason:
            _log.warning("cache_distrusted", extra={"reason": error.code})
        self.distrust(error.code)


async def _twice(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try again once where the server refuses: the address may lead to its successor by now."""
    try:
        return await attempt()
    except RedisUnavailable as error:
        if error.code == UNREACHABLE:
            raise
    return await attempt()


def _key(user_id: UserId) -> bytes:
    # The braces keep all keys of a person, should there be more, on one node of a cluster.
    return b"ctx:{%d}" % user_id


def _read_command(user_id: UserId, as_json: bool) -> Command:
    return ("HMGET", _key(user_id), *(_JSON_FIELDS if as_json else _MESSAGE_FIELDS))
