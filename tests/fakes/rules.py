"""The rules that tests go by."""

from pathlib import Path

from services.queue.domain.rules import Rules
from services.queue.rules import DEFAULT_PATH, parse_rules


def load_rules(path: Path = DEFAULT_PATH) -> Rules:
    """Return the rules of a file, by default those we ship."""
    return parse_rules(path.read_text(encoding="utf-8"))
