"""Faults a test can order, since a real endpoint has them and a well-behaved one never would."""

from collections import Counter
from collections.abc import Iterable


class SqsFaults:
    """Counts of requests and batch entries that are still to fail, by action."""

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()
        self._entries: Counter[str] = Counter()
        self.max_bytes: int | None = None
        self._refused: tuple[str, str] | None = None

    def order(self, action: str, *, requests: int, entries: int) -> None:
        """Let the next requests of the action answer 500 and the next entries fail inside 200."""
        self._requests[action] = requests
        self._entries[action] = entries

    def refuse(self, *, max_bytes: int | None, text: str, code: str) -> None:
        """Refuse batches as a whole: longer ones, and with `code` those that contain the text."""
        self.max_bytes = max_bytes
        self._refused = (text, code) if text else None

    def refusal(self, bodies: Iterable[str]) -> str | None:
        """Return the code with which a batch of such bodies is refused, if it is."""
        if self._refused is None:
            return None
        text, code = self._refused
        return code if any(text in body for body in bodies) else None

    def fails_request(self, action: str) -> bool:
        """Return whether this request is to fail, using up one fault."""
        return _spend(self._requests, action)

    def fails_entry(self, action: str) -> bool:
        """Return whether this batch entry is to fail, using up one fault."""
        return _spend(self._entries, action)


def _spend(counts: Counter[str], action: str) -> bool:
    if counts[action] <= 0:
        return False
    counts[action] -= 1
    return True
