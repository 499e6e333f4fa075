"""Answers about contexts: from the cache when it is fresh, else from the databases."""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from servicekit.backoff import UNAVAILABLE
from servicekit.coalescing import Coalescer
from servicekit.errors import NotFound, ServiceError
from services.user_context import domain
from services.user_context.cache.context_cache import BothForms, CachedParts, ContextCache
from services.user_context.cache.fragments import Fragment, answer_of
from services.user_context.domain import UserId
from services.user_context.metrics import CacheStats, Result
from services.user_context.mysql.snapshots import main_app_unavailable

_log = logging.getLogger(__name__)

_Loaded = Mapping[UserId, BothForms]
# A context, None when there is none, and the result that it counts as.
_Answered = tuple[bytes | None, Result]


class _Source(NamedTuple):
    """One part of an answer; without a fragment, and not confirmed, when nothing is known."""

    fragment: Fragment | None
    is_confirmed: bool
    is_cached: bool


@dataclass(slots=True)
class ContextBatch:
    """One answer about many people, in the order asked for.

    `found` are contexts, each a GetUserContextResponse. `others` have no context, the contexts of
    `too_large` fit no message, and `remaining`, the last people, did not fit into this answer.
    """

    found: list[bytes] = field(default_factory=list)
    others: list[UserId] = field(default_factory=list)
    too_large: list[UserId] = field(default_factory=list)
    remaining: Sequence[UserId] = ()


class Contexts:
    """Answers with encoded contexts, each a GetUserContextResponse."""

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
            Unavailable: MAIN_APP_UNAVAILABLE, nothing is cached and the main app cannot be read.
        """
        cached = await self._cache.read_one(user_id, as_json=as_json)
        if cached.answer is not None:
            self._stats.count(Result.HIT)
            return cached.answer
        ((answer, result),) = await self._answers([user_id], [cached], as_json)
        self._stats.count(result)
        if answer is None:
            raise NotFound(
                "USER_NOT_FOUND", "the main app has no such person", user_id=str(user_id)
            )
        return answer

    async def get_many(
        self, user_ids: Sequence[UserId], *, as_json: bool, cached_only: bool = False
    ) -> ContextBatch:
        """Return people's contexts, read a few at a time until the answer is full.

        The main app does not have the others. With ``cached_only`` the answer has the contexts that
        are fresh in the cache, and the others may exist. Only people in the answer are counted.
        Raises Unavailable (MAIN_APP_UNAVAILABLE) when nothing is cached of one of them and the
        main app cannot be read.
        """
        batch = ContextBatch()
        size = 0
        for start in range(0, len(user_ids), domain.PEOPLE_PER_READING):
            some = user_ids[start : start + domain.PEOPLE_PER_READING]
            cached = await self._cache.read_many(some, as_json=as_json)
            whole = [one.answer for one in cached if one.answer is not None]
            whole_size = sum(map(len, whole))
            if len(whole) == len(some) and size + whole_size <= domain.ANSWER_BYTES:
                # Nearly always; so it is not looked at one by one.
                batch.found += whole
                size += whole_size
                self._stats.count(Result.HIT, len(whole))
                continue
            answers: Iterable[_Answered]
            if cached_only:
                answers = ((one.answer, Result.HIT) for one in cached)
            else:
                answers = await self._answers(some, cached, as_json)
            for place, (answer, result) in enumerate(answers, start):
                if answer is None:
                    batch.others.append(user_ids[place])
                    if not cached_only:
                        self._stats.count(result)
                    continue
                if len(answer) > domain.CONTEXT_BYTES:
                    batch.too_large.append(user_ids[place])
                    continue
                size += len(answer)
                if batch.found and size > domain.ANSWER_BYTES:
                    batch.remaining = user_ids[place:]
                    return batch
                batch.found.append(answer)
                self._stats.count(result)
        return batch

    async def _answers(
        self, user_ids: Sequence[UserId], cached: Sequence[CachedParts], as_json: bool
    ) -> Iterator[_Answered]:
        held = list(zip(user_ids, cached, strict=True))
        absent = {
            user_id
            for user_id, one in held
            if one.is_main_fresh and one.main is not None and one.main.is_absent
        }
        main, call = await asyncio.gather(
            self._load(self._main, [u for u, one in held if not one.is_main_fresh]),
            self._load(
                self._call, [u for u, one in held if not one.is_call_fresh and u not in absent]
            ),
        )
        return (_answer(user_id, one, main, call, as_json) for user_id, one in held)

    async def _load(
        self, source: Coalescer[UserId, BothForms], user_ids: Sequence[UserId]
    ) -> _Loaded | None:
        """Return what is read; None when the source is unavailable."""
        try:
            return await source.get(user_ids)
        except UNAVAILABLE as error:
            _log.debug("source_unavailable", extra={"reason": error.reason})
            return None
        except ServiceError as error:
            if source is self._main:
                raise
            _log.warning("call_states_refused", extra={"reason": error.reason})
            return None


def _answer(
    user_id: UserId,
    cached: CachedParts,
    loaded_main: _Loaded | None,
    loaded_call: _Loaded | None,
    as_json: bool,
) -> _Answered:
    if cached.answer is not None:
        return cached.answer, Result.HIT
    main = _source(user_id, cached.main, cached.is_main_fresh, loaded_main, as_json)
    if main.fragment is None or (main.fragment.is_absent and not main.is_confirmed):
        raise main_app_unavailable()
    if main.fragment.is_absent:
        return None, Result.HIT if main.is_cached else Result.MISS
    call = _source(user_id, cached.call, cached.is_call_fresh, loaded_call, as_json)
    is_stale = not (main.is_confirmed and call.is_confirmed)
    is_cached = main.is_cached and (call.is_cached or call.fragment is None)
    answer = answer_of(
        main.fragment, call.fragment, is_stale=is_stale, is_cached=is_cached, as_json=as_json
    )
    if is_stale:
        return answer, Result.STALE
    return answer, Result.HIT if is_cached else Result.MISS


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
