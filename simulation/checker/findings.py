"""What the checker found, and how often it looked."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

_KEPT_OF_A_RULE = 20


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that was broken, when, and how, in words."""

    rule: str
    at: datetime
    words: str


@dataclass(slots=True)
class Report:
    """The checker's verdict."""

    checks: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    examples: list[Violation] = field(default_factory=list)

    def check(self, rule: str, is_kept: bool, at: datetime, words: str) -> None:
        """Count a check of a rule and keep the first few violations of it."""
        self.checks[rule] += 1
        if is_kept:
            return
        self.broken[rule] += 1
        if self.broken[rule] <= _KEPT_OF_A_RULE:
            self.examples.append(Violation(rule, at, words))

    @property
    def violations(self) -> int:
        """How many checks failed."""
        return self.broken.total()
