"""The share of hand-outs that goes to the people who have been ready longest."""

from services.queue.types import Queue


class LongestWaitingShare:
    """Counts the hand-outs of each queue, so that one in `one_in` goes to the longest waiting.

    Each replica counts by itself. A share of one in 0 is none.
    """

    def __init__(self) -> None:
        # Hand-outs since the last one of the share; below 0 after more of them than the share.
        self._since: dict[Queue, int] = {}

    def due(self, queue: Queue, hand_outs: int, one_in: int) -> int:
        """Return how many of the queue's next hand-outs are the share."""
        if not one_in:
            return 0
        return min(hand_outs, max(0, (self._since.get(queue, 0) + hand_outs) // one_in))

    def count(self, queue: Queue, of_share: int, others: int, one_in: int) -> None:
        """Count hand-outs that were made."""
        since = self._since.get(queue, 0) + of_share + others - of_share * one_in
        # What was not handed out when it was due, since no person was ready, is not made up for.
        self._since[queue] = min(since, max(one_in - 1, 0))
