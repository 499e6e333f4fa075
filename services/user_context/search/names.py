"""The words of a name: how names are compared in a search, whatever their spelling."""

import re
import unicodedata
from collections.abc import Iterable

# Longer words, and further words of a name, are cut off: no search types so much.
LONGEST_WORD = 40
MOST_WORDS = 24
SHORTEST_SEARCHED = 2

_APOSTROPHES = re.compile("['\u2018\u2019\u02bc`\u00b4]")
_WORD = re.compile(r"[^\W_]+")


def words_of(*names: str | None) -> list[str]:
    """Return every word under which a person of these names is found.

    O'Brien is found as ``obrien``, Smith-Jones as ``smith``, ``jones`` and ``smithjones``.
    """
    found: dict[str, None] = {}
    for name in names:
        for part in (name or "").split():
            words = _words(part)
            found.update(dict.fromkeys([*words, "".join(words)[:LONGEST_WORD]]))
    found.pop("", None)
    return list(found)[:MOST_WORDS]


def searched_words(text: str) -> list[str]:
    """Return the words to search for; none when all are too short."""
    words = list(dict.fromkeys(_words(text)))[:MOST_WORDS]
    return words if any(len(word) >= SHORTEST_SEARCHED for word in words) else []


def match_names(words: Iterable[str], names: Iterable[str]) -> bool:
    """Return whether each of the words is the beginning of one of the names' words."""
    known = tuple(names)
    return all(any(name.startswith(word) for name in known) for word in words)


def _words(text: str) -> list[str]:
    """Return the words in lower case without accents; apostrophes join, other signs separate."""
    joined = _APOSTROPHES.sub("", text)
    decomposed = unicodedata.normalize("NFKD", joined)
    plain = "".join(it for it in decomposed if not unicodedata.combining(it)).casefold()
    return [word[:LONGEST_WORD] for word in _WORD.findall(plain)]
