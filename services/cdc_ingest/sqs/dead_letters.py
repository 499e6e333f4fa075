"""Lists the dead letters, sends them to the change queue again, or deletes them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from mainapp.description import Description
from servicekit import deadline
from servicekit.clock import Clock
from servicekit.errors import Unavailable
from services.cdc_ingest.domain.dead_letters import DeadLetter, Selection
from services.cdc_ingest.domain.people import PersonMap, RowKey
from services.cdc_ingest.sqs.dead_letter_store import DeadLetterStore
from services.cdc_ingest.sqs.message_reader import decode_demand

_log = logging.getLogger(__name__)

MAX_SHOWN = 100
MAX_CONCERNS = 20
# Longer than any search; a process that dies during one hides the letters for no longer.
_HIDDEN_SECONDS = 60
_LONGEST_SEARCH_SECONDS = 20.0
# A long poll asks all servers of SQS; a short one may miss messages.
_POLL_SECONDS = 1
_MARGIN_SECONDS = 1.5


@dataclass(slots=True)
class DeadLetterSearch:
    """The result of a search; `is_complete` is true when the end of the queue was reached."""

    matched: int = 0
    done: int = 0
    """Sent again, or deleted."""
    is_complete: bool = False
    is_full_run_asked: bool = False
    letters: list[DeadLetter] = field(default_factory=list)


class DeadLetterQueue:
    """Searches the queue, one search at a time: a search hides the letters from the next."""

    def __init__(
        self,
        store: DeadLetterStore,
        description: Description,
        ask_full_run: Callable[[str], Awaitable[bool]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._ask_full_run = ask_full_run
        self._people = PersonMap(description)
        self._clock = clock
        self._searching = asyncio.Lock()

    async def list_letters(self, limit: int) -> list[DeadLetter]:
        """Return up to `limit` dead letters, in no particular order."""
        search = await self._search(Selection(), limit)
        return search.letters[:limit]

    async def redrive(self, selection: Selection, *, validate_only: bool) -> DeadLetterSearch:
        """Send the selected dead letters to the change queue, within the time of the request.

        Raises:
            Unavailable: SQS does not answer; letters sent before that stay sent.
        """

        async def resend(letters: Sequence[DeadLetter]) -> list[DeadLetter]:
            return await asyncio.to_thread(self._store.resend, letters)

        search = await self._search(selection, None, None if validate_only else resend)
        _log.warning(
            "dead_letters_redriven",
            extra={"matched": search.matched, "sent": search.done, "validate_only": validate_only},
        )
        return search

    async def discard(
        self, selection: Selection, actor_id: str, *, validate_only: bool
    ) -> DeadLetterSearch:
        """Delete the selected dead letters, within the time of the request.

        A full run is asked for before the first is deleted, so that what the changes concerned is
        found. The log has the id of each.

        Raises:
            Unavailable: the reconciler does not answer, and nothing was deleted; or SQS does not,
                and letters deleted before that stay deleted.
        """
        is_asked: bool | None = None

        async def delete(letters: Sequence[DeadLetter]) -> list[DeadLetter]:
            nonlocal is_asked
            if is_asked is None:
                is_asked = await self._ask_full_run("dead letters discarded")
            deleted = await asyncio.to_thread(self._store.delete, letters)
            ids = [letter.message_id for letter in deleted]
            extra = {"message_ids": ids, "actor_id": actor_id, "full_run_asked": is_asked}
            _log.warning("dead_letters_discarded", extra=extra)
            return deleted

        search = await self._search(selection, None, None if validate_only else delete)
        search.is_full_run_asked = bool(is_asked)
        return search

    def concerns(self, letter: DeadLetter) -> list[str]:
        """Return the people and rows that the letter concerns, as far as it is readable."""
        _, demand = decode_demand(letter.body, self._people)
        return [
            f"{key.table}/{key.key}" if isinstance(key, RowKey) else f"users/{key}"
            for key in sorted(demand.keys, key=str)[:MAX_CONCERNS]
        ]

    async def _search(
        self,
        selection: Selection,
        limit: int | None,
        handle: Callable[[Sequence[DeadLetter]], Awaitable[list[DeadLetter]]] | None = None,
    ) -> DeadLetterSearch:
        async with self._searching:
            search = DeadLetterSearch()
            kept: dict[str, str] = {}
            remaining = deadline.remaining_seconds()
            allowed = _LONGEST_SEARCH_SECONDS
            if remaining is not None:
                allowed = min(allowed, max(0.1, remaining - _MARGIN_SECONDS))
            end = self._clock.monotonic() + allowed
            began_at = self._clock.now()
            wanted = MAX_SHOWN if limit is None else limit
            try:
                while self._clock.monotonic() < end:
                    found = await asyncio.to_thread(
                        self._store.receive, _HIDDEN_SECONDS, _POLL_SECONDS
                    )
                    kept |= {letter.message_id: letter.receipt for letter in found}
                    # A letter that this search sent and that came back is not sent again.
                    matching = [
                        letter
                        for letter in found
                        if selection.matches(letter) and not letter.is_dead_lettered_since(began_at)
                    ]
                    search.matched += len(matching)
                    search.letters += matching[: wanted - len(search.letters)]
                    # What is handled is deleted; all others become visible after the search.
                    if handle is not None and matching:
                        for letter in await handle(matching):
                            del kept[letter.message_id]
                            search.done += 1
                    if not found or selection.is_exhausted(search.matched):
                        search.is_complete = True
                        break
                    if limit is not None and len(search.letters) >= limit:
                        break
            finally:
                try:
                    await asyncio.to_thread(self._store.show, list(kept.values()))
                except Unavailable as error:
                    # They become visible after their timeout.
                    _log.warning("dead_letters_stay_hidden", extra={"error": str(error)})
            return search
