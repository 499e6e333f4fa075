"""Looking through the dead-letter queue, and sending what is in it again."""

import asyncio
import logging
from dataclasses import dataclass, field

from mainapp.description import Description
from servicekit import deadline
from servicekit.clock import Clock
from servicekit.errors import Unavailable
from services.cdc_ingest.dead_letter_store import DeadLetterStore
from services.cdc_ingest.domain.dead_letters import DeadLetter, Selection
from services.cdc_ingest.domain.decoding import decode_body
from services.cdc_ingest.domain.people import Key, PersonMap, RowKey

_log = logging.getLogger(__name__)

MAX_SHOWN = 100
MAX_CONCERNS = 20
# Longer than any one look takes; whoever dies while looking hides the letters for no longer.
_HIDDEN_SECONDS = 60
_LONGEST_LOOK_SECONDS = 20.0
# A poll of all of SQS's servers; a shorter one may find an end that is none.
_POLL_SECONDS = 1
_MARGIN_SECONDS = 1.5


@dataclass(slots=True)
class Look:
    """What was found by looking through the queue; `is_complete` when its end was reached."""

    matched: int = 0
    sent: int = 0
    is_complete: bool = False
    letters: list[DeadLetter] = field(default_factory=list)


class DeadLetters:
    """One look at a time: letters are hidden from others while somebody looks."""

    def __init__(self, store: DeadLetterStore, description: Description, clock: Clock) -> None:
        self._store = store
        self._people = PersonMap(description)
        self._clock = clock
        self._looking = asyncio.Lock()

    async def look(self, limit: int) -> list[DeadLetter]:
        """Return up to `limit`, in no particular order."""
        look = await self._search(Selection(), limit, resend=False)
        return look.letters[:limit]

    async def redrive(self, selection: Selection, *, validate_only: bool) -> Look:
        """Send those selected to the queue of changes, as far as the request's time allows.

        Raises:
            Unavailable: SQS does not answer; what was sent until then is sent.
        """
        look = await self._search(selection, None, resend=not validate_only)
        _log.warning(
            "dead_letters_redriven",
            extra={"matched": look.matched, "sent": look.sent, "validate_only": validate_only},
        )
        return look

    def concerns(self, letter: DeadLetter) -> list[str]:
        """Return whom or what the letter is about, as far as it can be read."""
        keys = self._people.demand(decode_body(letter.body).records).keys
        return [_name(key) for key in sorted(keys, key=str)[:MAX_CONCERNS]]

    async def _search(self, selection: Selection, limit: int | None, *, resend: bool) -> Look:
        async with self._looking:
            look = Look()
            kept: list[str] = []
            try:
                await self._look_through(look, kept, selection, limit, resend=resend)
            finally:
                await self._show(kept)
            return look

    async def _look_through(
        self, look: Look, kept: list[str], selection: Selection, limit: int | None, *, resend: bool
    ) -> None:
        end = self._clock.monotonic() + _seconds_allowed()
        began_at = self._clock.now()
        wanted = MAX_SHOWN if limit is None else limit
        while self._clock.monotonic() < end:
            found = await asyncio.to_thread(self._store.receive, _HIDDEN_SECONDS, _POLL_SECONDS)
            # One that was sent just now and has died again is not to go round for ever.
            matching = [
                letter
                for letter in found
                if selection.matches(letter) and not letter.has_died_since(began_at)
            ]
            look.matched += len(matching)
            look.letters += matching[: wanted - len(look.letters)]
            # What is sent is deleted; all else must be seen again once we have looked.
            left = await self._resent(matching) if resend else set()
            look.sent += len(left)
            kept += [letter.receipt for letter in found if letter.message_id not in left]
            if not found or selection.is_exhausted(look.matched):
                look.is_complete = True
                return
            if limit is not None and len(look.letters) >= limit:
                return

    async def _resent(self, letters: list[DeadLetter]) -> set[str]:
        if not letters:
            return set()
        done = await asyncio.to_thread(self._store.resend, letters)
        return {letter.message_id for letter in done}

    async def _show(self, receipts: list[str]) -> None:
        try:
            await asyncio.to_thread(self._store.show, receipts)
        except Unavailable as error:
            # They become visible by themselves.
            _log.warning("dead_letters_stay_hidden", extra={"error": str(error)})


def _seconds_allowed() -> float:
    remaining = deadline.remaining_seconds()
    if remaining is None:
        return _LONGEST_LOOK_SECONDS
    return min(_LONGEST_LOOK_SECONDS, max(0.1, remaining - _MARGIN_SECONDS))


def _name(key: Key) -> str:
    return f"{key.table}/{key.key}" if isinstance(key, RowKey) else f"users/{key}"
