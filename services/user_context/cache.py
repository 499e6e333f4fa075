"""Contexts in Redis, one hash for each person, filled under the fence.

Nothing here is needed for a right answer: when Redis does not answer, callers read the databases.
"""

import random
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import NamedTuple

from servicekit.clock import Clock
from services.user_context import cache_scripts
from services.user_context.breaker import Breaker
from services.user_context.domain import Part, UserId
from services.user_context.fragments import (
    HEADER_BYTES,
    Fragment,
    decode,
    encode,
    read_at_field,
    version_text,
)
from services.user_context.metrics import CacheStats, Result
from services.user_context.redis_link import Command, RedisAway, RedisLink, Reply, ReplyError
from services.user_context.rendering import RenderedPart

# Bounds how long hits wait behind a bulk fill on the shared socket.
PEOPLE_PER_WRITE = 50

# The same for inspections, each of which has the server read a person's copies through.
PEOPLE_PER_INSPECTION = 20


def _sha1(content: bytes) -> str:
    # How Redis names scripts, and what it can compute itself; nothing secret depends on it.
    return sha1(content, usedforsecurity=False).hexdigest()


_DIGESTS = {script: _sha1(script.encode()) for script in cache_scripts.ALL}
_SCRIPTS = {digest: script for script, digest in _DIGESTS.items()}

_EVERY_KEY = "ctx:{*}"
# Of `users.id`; a key with more is none of ours.
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
    """Permission to fill one person's part from a reading that begins after it was given."""

    token: bytes
    run: bytes


class Cached(NamedTuple):
    """What the cache holds of one person, in one form."""

    main: Fragment | None = None
    is_main_fresh: bool = False
    call: Fragment | None = None
    is_call_fresh: bool = False


class Filling(NamedTuple):
    """What a reading found of one person; nothing rendered means that there is nobody."""

    user_id: UserId
    version: int
    rendered: RenderedPart | None


class Inspected(NamedTuple):
    """What would be served as fresh of a person's part, and whether it is what was stored."""

    user_id: UserId
    fingerprint: int
    is_intact: bool


class BothForms(NamedTuple):
    """A part in message and JSON form."""

    message: Fragment
    json: Fragment


NOTHING = Cached()


class ContextCache:
    """The cache of contexts.

    Reading and filling never raise: what cannot be done is counted and left out. Methods that
    others rely on to have happened raise RedisAway.
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

    async def ping(self) -> None:
        """Return when Redis answers. Raises RedisAway."""
        await self._link.execute([("PING",)])

    async def read_one(self, user_id: UserId, *, as_json: bool) -> Cached:
        """Return what is held of a person."""
        if not self._breaker.allows():
            return NOTHING
        try:
            (reply,) = await self._link.execute([_read_command(user_id, as_json)])
        except RedisAway:
            self._count_away()
            return NOTHING
        self._breaker.succeeded()
        return self._judged(reply, self._now_ms())

    async def read_many(self, user_ids: Sequence[UserId], *, as_json: bool) -> list[Cached]:
        """Return what is held of each person, in the order given."""
        try:
            replies = await self._execute([_read_command(one, as_json) for one in user_ids])
        except RedisAway:
            return [NOTHING] * len(user_ids)
        now_ms = self._now_ms()
        return [self._judged(reply, now_ms) for reply in replies]

    async def begin(
        self, part: Part, user_ids: Sequence[UserId], version: int
    ) -> dict[UserId, Grant]:
        """Announce a reading that begins after this; without a grant nothing can be filled."""
        try:
            return await self._announce(cache_scripts.BEGIN, part, user_ids, version)
        except RedisAway:
            return {}

    async def invalidate(
        self, part: Part, user_ids: Sequence[UserId], version: int
    ) -> dict[UserId, Grant]:
        """Distrust readings older than ``version`` and announce one. Raises RedisAway."""
        return await self._announce(cache_scripts.INVALIDATE, part, user_ids, version)

    async def raise_fences(self, part: Part, versions: Mapping[UserId, int]) -> None:
        """Distrust what is older than each person's version. Raises RedisAway."""
        digest = _DIGESTS[cache_scripts.RAISE_FENCE]
        user_ids = list(versions)
        for start in range(0, len(user_ids), PEOPLE_PER_WRITE):
            some = user_ids[start : start + PEOPLE_PER_WRITE]
            replies = await self._execute(
                [
                    ("EVALSHA", digest, 1, _key(one), part.value, version_text(versions[one]))
                    for one in some
                ]
            )
            await self._drop_refused(some, replies)

    def form(self, part: Part, filling: Filling, run: bytes, read_at_us: int) -> BothForms:
        """Return what is to be stored of a reading, fresh for a time that varies a little."""
        lifetime = self._lifetime(part, filling)
        # Never longer than promised; spread, so that what was filled together ends apart.
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
        """Store what was read, where a grant allows it and the fence does."""
        commands = [
            self._fill_command(part, user_id, form, grants[user_id])
            for user_id, form in forms.items()
            if user_id in grants
        ]
        for start in range(0, len(commands), PEOPLE_PER_WRITE):
            try:
                replies = await self._execute(commands[start : start + PEOPLE_PER_WRITE])
            except RedisAway:
                return
            self._stats.count_fenced(sum(reply == 0 for reply in replies))

    async def inspect(self, part: Part, user_ids: Sequence[UserId]) -> list[Inspected]:
        """Return those of whom a form of the part would be served as fresh. Raises RedisAway."""
        digest = _DIGESTS[cache_scripts.INSPECT]
        found: list[Inspected | None] = []
        for start in range(0, len(user_ids), PEOPLE_PER_INSPECTION):
            some = user_ids[start : start + PEOPLE_PER_INSPECTION]
            replies = await self._execute(
                [("EVALSHA", digest, 1, _key(one), part.value, HEADER_BYTES) for one in some]
            )
            now_ms = self._now_ms()
            found += [
                self._inspected(user_id, reply, now_ms)
                for user_id, reply in zip(some, replies, strict=True)
            ]
        return [one for one in found if one is not None]

    async def inspect_all(self, part: Part) -> AsyncGenerator[list[Inspected], None]:
        """Yield the same of everybody of whom anything is held. Raises RedisAway."""
        async for keys in self._link.keys(_EVERY_KEY):
            user_ids = [user_id for user_id in map(_user_id, keys) if user_id is not None]
            yield await self.inspect(part, user_ids)

    def _inspected(self, user_id: UserId, reply: Reply, now_ms: int) -> Inspected | None:
        if isinstance(reply, ReplyError):
            if "WRONGTYPE" in str(reply):
                # Nothing of ours, and nothing that could be served.
                return None
            raise RedisAway(str(reply).partition(" ")[0])
        fence, message, json, is_intact = reply
        for form in map(decode, (message, json)):
            if form is not None and self._is_fresh(form, fence, now_ms):
                return Inspected(user_id, _fingerprint(form), is_intact == 1)
        return None

    def _fill_command(self, part: Part, user_id: UserId, form: BothForms, grant: Grant) -> Command:
        message, json = encode(form.message), encode(form.json)
        return (
            "EVALSHA",
            _DIGESTS[cache_scripts.FILL],
            1,
            _key(user_id),
            part.value,
            form.message.version,
            grant.token,
            self._kept_ms,
            message,
            json,
            _sha1(message) + _sha1(json),
        )

    async def _announce(
        self, script: str, part: Part, user_ids: Sequence[UserId], version: int
    ) -> dict[UserId, Grant]:
        grants: dict[UserId, Grant] = {}
        for start in range(0, len(user_ids), PEOPLE_PER_WRITE):
            some = user_ids[start : start + PEOPLE_PER_WRITE]
            # Looked at before the command is sent, so that it is never newer than the fence.
            run = self._link.run
            token = secrets.token_bytes(8)
            rest = (part.value, version_text(version), token, self._kept_ms)
            replies = await self._execute(
                [("EVALSHA", _DIGESTS[script], 1, _key(user_id), *rest) for user_id in some]
            )
            if script is cache_scripts.INVALIDATE:
                await self._drop_refused(some, replies)
            grants.update(
                (user_id, Grant(reply, run))
                for user_id, reply in zip(some, replies, strict=True)
                if not isinstance(reply, ReplyError)
            )
        return grants

    async def _drop_refused(self, user_ids: Sequence[UserId], replies: Sequence[Reply]) -> None:
        """Delete what could not be invalidated: a server that is full still takes deletions.

        Whoever was reading can no longer fill, as the token is gone. Raises RedisAway when that
        is refused too.
        """
        refused: list[Command] = [
            ("DEL", _key(user_id))
            for user_id, reply in zip(user_ids, replies, strict=True)
            if isinstance(reply, ReplyError)
        ]
        for reply in await self._execute(refused) if refused else ():
            if isinstance(reply, ReplyError):
                raise RedisAway(str(reply).partition(" ")[0])

    async def _execute(self, commands: Sequence[Command]) -> list[Reply]:
        if not self._breaker.allows():
            raise RedisAway("left alone for a moment after failing")
        try:
            replies = await self._with_scripts(commands)
        except RedisAway:
            self._count_away()
            raise
        self._breaker.succeeded()
        return replies

    async def _with_scripts(self, commands: Sequence[Command]) -> list[Reply]:
        """Run the commands; those whose script the server has lost are sent with its text."""
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

    def _judged(self, reply: Reply, now_ms: int) -> Cached:
        if isinstance(reply, ReplyError):
            self._stats.count(Result.ERROR)
            return NOTHING
        main_fence, main_raw, call_fence, call_raw = reply
        main = decode(main_raw) if main_raw is not None else None
        call = decode(call_raw) if call_raw is not None else None
        return Cached(
            main,
            main is not None and self._is_fresh(main, main_fence, now_ms),
            call,
            call is not None and self._is_fresh(call, call_fence, now_ms),
        )

    def _is_fresh(self, fragment: Fragment, fence: bytes | None, now_ms: int) -> bool:
        return (
            fence is not None
            and fragment.version >= fence
            and now_ms < fragment.fresh_until_ms
            and fragment.run == self._link.run
        )

    def _lifetime(self, part: Part, filling: Filling) -> float:
        if part is Part.MAIN and filling.rendered is not None:
            return self._lifetimes.main_fresh
        if part is Part.CALL and filling.version:
            return self._lifetimes.call_fresh
        # Nobody there, or nobody the queue has heard of: that may change any moment.
        return self._lifetimes.absent_fresh

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1_000)

    def _count_away(self) -> None:
        self._breaker.failed()
        self._stats.count(Result.ERROR)


def _key(user_id: UserId) -> bytes:
    # The braces keep whatever else is ever stored of a person on the same node of a cluster.
    return b"ctx:{%d}" % user_id


def _user_id(key: bytes) -> UserId | None:
    digits = key.removeprefix(b"ctx:{").removesuffix(b"}")
    return UserId(int(digits)) if digits.isdigit() and len(digits) <= _MOST_DIGITS else None


def _read_command(user_id: UserId, as_json: bool) -> Command:
    return ("HMGET", _key(user_id), *(_JSON_FIELDS if as_json else _MESSAGE_FIELDS))


def _fingerprint(form: Fragment) -> int:
    try:
        return int(form.etag, 16)
    except ValueError:
        # Altered; the digest says so.
        return 0
