"""Faults a test can order, since a real endpoint has them and a well-behaved one never would."""

from collections import Counter


class Faults:
    """Counts of requests and batch entries that are still to fail, by action."""

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()
        self._entries: Counter[str] = Counter()

    def order(self, action: str, *, requests: int, entries: int) -> None:
        """Let the next requests of the action answer 500 and the next entries fail inside 200."""
        self._requests[action] = requests
        self._entries[action] = entries

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
