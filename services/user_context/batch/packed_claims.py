"""The claims of all people in a compact form: what is equal for many people is kept once.

Each kind of requirement and of claim has a character, and a collection of kinds is a string.
Python joins, cuts, compares and looks up strings fastest, and its garbage collector skips them.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise, repeat
from typing import NamedTuple, TypeVar

from servicekit.errors import Exhausted

# As many as there are characters. Statuses, types, reasons and their combinations are few; more
# kinds mean that the main app's columns hold something unexpected, and memory would not suffice.
MOST_KINDS = 0x110000

K = TypeVar("K")

Text = str | None
# Type, status and reason.
Requirement = tuple[Text, Text, Text]
# Status, and the requirements' characters in order.
ClaimKind = tuple[Text, str]
# Kind's character, lender's number and moment.
_Claim = tuple[str, int, int]


class Kinds(dict[K, str]):
    """Assigns a character to each kind when it is first looked up.

    Raises Exhausted (FACTS_TOO_VARIED) when no character is left.
    """

    def __init__(self) -> None:
        super().__init__()
        self._in_order: list[K] = []

    def __missing__(self, kind: K) -> str:
        if len(self._in_order) == MOST_KINDS:
            raise Exhausted("FACTS_TOO_VARIED", "the main app's values differ too much to be kept")
        character = self[kind] = chr(len(self._in_order))
        self._in_order.append(kind)
        return character

    def kind(self, character: str) -> K:
        """Return the kind that has this character."""
        return self._in_order[ord(character)]


class Numbers(dict[K, int]):
    """Numbers each key, from ``first`` on, when it is first looked up."""

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self._next = first
        self._new: list[K] = []

    def __missing__(self, key: K) -> int:
        number = self[key] = self._next
        self._next += 1
        self._new.append(key)
        return number

    def take_new(self) -> list[K]:
        """Return the keys numbered since the last call, in order."""
        new, self._new = self._new, []
        return new


class ClaimsOf(NamedTuple):
    """The claims of some people in order.

    ``kinds`` has a string for each person, the others an entry for each claim.
    """

    kinds: list[str]
    lenders: Sequence[int]
    moments: Sequence[int]


class PackedClaims:
    """Takes in all requirements, then all claims, and returns the claims person by person.

    People with equal claims have them in the same order.
    """

    def __init__(self) -> None:
        self.requirements = Kinds[Requirement]()
        self.kinds = Kinds[ClaimKind]()
        self._lenders = Numbers[Text](first=1)
        self._lenders[None] = 0
        self._of_claims: defaultdict[object, str] = defaultdict(str)
        self._of_people: defaultdict[object, list[_Claim]] = defaultdict(list)

    def add_requirements(
        self,
        claim_ids: Iterable[object],
        types: Iterable[Text],
        statuses: Iterable[Text],
        reasons: Iterable[Text],
    ) -> None:
        """Take in requirements, one from each entry of the columns."""
        kinds = map(self.requirements.__getitem__, zip(types, statuses, reasons, strict=True))
        held = self._of_claims
        for claim_id, kind in zip(claim_ids, kinds, strict=True):
            held[claim_id] += kind

    def add_claims(
        self,
        claim_ids: Iterable[object],
        user_ids: Iterable[object],
        statuses: Iterable[Text],
        lenders: Iterable[Text],
        moments: Iterable[int],
    ) -> None:
        """Take in claims, one from each entry; all their requirements must have been taken in."""
        # Each claim comes once, so its requirements are dropped here.
        requirements = [
            them if len(them) < 2 else "".join(sorted(them))
            for them in map(self._of_claims.pop, claim_ids, repeat(""))
        ]
        kinds = map(self.kinds.__getitem__, zip(statuses, requirements, strict=True))
        numbers = map(self._lenders.__getitem__, lenders)
        people = self._of_people
        for user_id, claim in zip(user_ids, zip(kinds, numbers, moments, strict=True), strict=True):
            people[user_id].append(claim)

    def take(self, user_ids: Iterable[object]) -> ClaimsOf:
        """Return and forget the claims of these people; each person may be asked for once."""
        found: list[_Claim] = []
        ends = [0]
        for claims in map(self._of_people.pop, user_ids, repeat(())):
            found += sorted(claims)
            ends.append(len(found))
        if not found:
            return ClaimsOf([""] * (len(ends) - 1), (), ())
        kinds, lenders, moments = zip(*found, strict=True)
        joined = "".join(kinds)
        return ClaimsOf([joined[start:end] for start, end in pairwise(ends)], lenders, moments)

    def lenders(self) -> list[Text]:
        """Return every lender by its number; number 0 is no lender."""
        return list(self._lenders)
