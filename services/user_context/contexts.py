"""Answers about contexts: from the cache when it is fresh, else from the databases."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from servicekit.coalescing import Coalescer
from servicekit.errors import DeadlineExceeded, NotFound, ServiceError, Unavailable
from services.user_context.cache import BothForms, Cached, ContextCache
from services.user_context.domain import UserId
from services.user_context.fragments import Fragment, json_answer, message_answer
from services.user_context.metrics import CacheStats, Result
from services.user_context.snapshots import main_app_unavailable

_log = logging.getLogger(__name__)

_Loaded = Mapping[UserId, BothForms]


class _Source(NamedTuple):
    """One part as it will be answered; neither confirmed nor held when nothing is known."""

    fragment: Fragment | None
    is_confirmed: bool
    is_cached: bool


class Contexts:
    """Encoded answers, each a GetUserContextResponse."""

    def __init__(
        self,
        cache: ContextCache,
        main: Coalescer[UserId, BothForms],
        call: Coalescer[UserId, BothForms],
        stats: CacheStats,
    ) -> None:
        self._cache = cache
        self._main = main
        self._call = call
        self._stats = stats

    async def get(self, user_id: UserId, *, as_json: bool) -> bytes:
        """Return one person's context.

        Raises:
            NotFound: USER_NOT_FOUND, the main app has no such person.
            Unavailable: MAIN_APP_UNAVAILABLE, nothing is held and the main app cannot be read.
        """
        cached = await self._cache.read_one(user_id, as_json=as_json)
        if (answer := self._whole(cached, as_json)) is not None:
            return answer
        (answer,) = await self._answers([user_id], [cached], as_json)
        if answer is None:
            raise NotFound(
                "USER_NOT_FOUND", "the main app has no such person", user_id=str(user_id)
            )
        return answer

    async def get_many(self, user_ids: Sequence[UserId], *, as_json: bool) -> list[bytes | None]:
        """Return each person's context, None for those the main app does not have.

        Raises Unavailable (MAIN_APP_UNAVAILABLE) when nothing is held of one of them and the
        main app cannot be read.
        """
        cached = await self._cache.read_many(user_ids, as_json=as_json)
        return await self._answers(user_ids, cached, as_json)

    async def get_cached(self, user_ids: Sequence[UserId], *, as_json: bool) -> list[bytes | None]:
        """Return each person's context that the cache holds fresh, None for all others.

        Only what is answered is counted.
        """
        held = await self._cache.read_many(user_ids, as_json=as_json)
        return [self._whole(cached, as_json) for cached in held]

    def _whole(self, cached: Cached, as_json: bool) -> bytes | None:
        main = cached.main
        if not (cached.is_main_fresh and cached.is_call_fresh) or main is None or main.is_absent:
            return None
        self._stats.count(Result.HIT)
        join = json_answer if as_json else message_answer
        return join(main, cached.call, is_stale=False, is_cached=True)

    async def _answers(
        self, user_ids: Sequence[UserId], cached: Sequence[Cached], as_json: bool
    ) -> list[bytes | None]:
        held = list(zip(user_ids, cached, strict=True))
        absent = {user_id for user_id, one in held if one.is_main_fresh and _is_absent(one.main)}
        main, call = await asyncio.gather(
            self._load(self._main, [u for u, one in held if not one.is_main_fresh]),
            self._load(
                self._call, [u for u, one in held if not one.is_call_fresh and u not in absent]
            ),
        )
        return [self._answer(user_id, one, main, call, as_json) for user_id, one in held]

    async def _load(
        self, source: Coalescer[UserId, BothForms], user_ids: Sequence[UserId]
    ) -> _Loaded | None:
        """Return what is read; None when the source is away."""
        try:
            return await source.get(user_ids)
        except (Unavailable, DeadlineExceeded) as error:
            _log.debug("source_away", extra={"reason": error.reason})
            return None
        except ServiceError as error:
            if source is self._main:
                raise
            _log.warning("call_states_refused", extra={"reason": error.reason})
            return None

    def _answer(
        self,
        user_id: UserId,
        cached: Cached,
        loaded_main: _Loaded | None,
        loaded_call: _Loaded | None,
        as_json: bool,
    ) -> bytes | None:
        main = _source(user_id, cached.main, cached.is_main_fresh, loaded_main, as_json)
        if main.fragment is None or (main.fragment.is_absent and not main.is_confirmed):
            raise main_app_unavailable()
        if main.fragment.is_absent:
            self._stats.count(Result.HIT if main.is_cached else Result.MISS)
            return None
        call = _source(user_id, cached.call, cached.is_call_fresh, loaded_call, as_json)
        is_stale = not (main.is_confirmed and call.is_confirmed)
        is_cached = main.is_cached and (call.is_cached or call.fragment is None)
        self._stats.count(_result(is_stale=is_stale, is_cached=is_cached))
        join = json_answer if as_json else message_answer
        return join(main.fragment, call.fragment, is_stale=is_stale, is_cached=is_cached)


def _source(
    user_id: UserId,
    held: Fragment | None,
    is_fresh: bool,
    loaded: _Loaded | None,
    as_json: bool,
) -> _Source:
    if is_fresh or loaded is None:
        return _Source(held, is_fresh, is_cached=True)
    forms = loaded[user_id]
    return _Source(forms.json if as_json else forms.message, is_confirmed=True, is_cached=False)


def _is_absent(fragment: Fragment | None) -> bool:
    return fragment is not None and fragment.is_absent


def _result(*, is_stale: bool, is_cached: bool) -> Result:
    if is_stale:
        return Result.STALE
    return Result.HIT if is_cached else Result.MISS
