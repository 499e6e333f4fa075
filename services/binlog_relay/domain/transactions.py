"""Where a transaction ends.

Positions may be saved only between transactions: the description of a table precedes the row
events of a statement, and a reader that starts in between never gets it.
"""

from enum import Enum

_ENDS = (["COMMIT"], ["ROLLBACK"])


class TransactionEffect(Enum):
    """What a statement event does to its transaction."""

    BEGINS = "begins"
    ENDS = "ends"
    NONE = "none"


_XA_EFFECTS = {
    "START": TransactionEffect.BEGINS,
    "BEGIN": TransactionEffect.BEGINS,
    "COMMIT": TransactionEffect.ENDS,
    "ROLLBACK": TransactionEffect.ENDS,
}


class Boundary:
    """Tracks whether reading is between transactions."""

    def __init__(self) -> None:
        self.is_inside = False

    def begin(self) -> None:
        """Note that a transaction has begun."""
        self.is_inside = True

    def end(self) -> None:
        """Note that the transaction has ended."""
        self.is_inside = False

    def pass_statement(self, statement: str) -> bool:
        """Note a statement event; return whether the position after it may be saved."""
        effect = effect_of(statement)
        if effect is TransactionEffect.BEGINS:
            self.begin()
        elif effect is TransactionEffect.ENDS:
            self.end()
        return not self.is_inside


def effect_of(statement: str) -> TransactionEffect:
    """Return whether a statement event begins or ends its transaction."""
    words = [word.upper() for word in statement.rstrip("; \n").split(None, 3)]
    if words[:1] == ["BEGIN"] or statement.rstrip("; \n").upper().endswith("START TRANSACTION"):
        return TransactionEffect.BEGINS
    if words[:1] == ["XA"]:
        return _XA_EFFECTS.get(words[1], TransactionEffect.NONE)
    is_partial = words[:1] == ["ROLLBACK"] and "TO" in words[1:3]
    return (
        TransactionEffect.ENDS if words[:1] in _ENDS and not is_partial else TransactionEffect.NONE
    )
