"""Which queue a person belongs to by the facts alone, and what leaving it means."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from services.queue.domain.facts import ClaimFacts, RequirementFacts, UserFacts
from services.queue.domain.terms import BARRIERS, Conversion, Queue, Reason
from services.queue.rules import EligibilityRules


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where the facts put a person.

    `owes` is the queue whose matter is still open, whether or not the person may be contacted,
    and `matter` says why; `queue` is the same while the main app allows contact, else None, and
    `reason` says why.
    """

    queue: Queue | None
    reason: Reason
    owes: Queue | None
    matter: Reason
    has_signature: bool

    @property
    def is_contact_allowed(self) -> bool:
        """Whether the main app lets the person be contacted at all."""
        return self.reason not in BARRIERS


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted of a person to find out what they owe."""

    has_signature: bool
    open_claims: int
    ended_claims: int
    pending_counted: int
    pending_excluded: int


class Eligibility:
    """The rules of eligibility, ready to be applied to many people."""

    def __init__(self, rules: EligibilityRules) -> None:
        self._inactive = _folded(rules.inactive_user_statuses)
        self._ended = _folded(rules.ended_claim_statuses)
        self._pending = _folded(rules.pending_requirement_statuses)
        self._excluded_types = _folded(rules.excluded_requirement_types)
        self._excluded = {(fold(it.type), fold(it.reason)) for it in rules.excluded_requirements}

    def judge(self, facts: UserFacts) -> Verdict:
        """Return where the facts put the person."""
        owes, matter = self._owed(facts)
        barrier = self._barrier(facts)
        queue = owes if barrier is None else None
        return Verdict(queue, barrier or matter, owes, matter, facts.has_signature)

    def tally(self, facts: UserFacts) -> Tally:
        """Return what is counted of the person."""
        open_claims = [claim for claim in facts.claims if self.is_open(claim)]
        required = [it for claim in open_claims for it in claim.requirements]
        pending = [it for it in required if self._is_pending(it)]
        counted = sum(map(self._counts, pending))
        return Tally(
            has_signature=facts.has_signature,
            open_claims=len(open_claims),
            ended_claims=len(facts.claims) - len(open_claims),
            pending_counted=counted,
            pending_excluded=len(pending) - counted,
        )

    def _barrier(self, facts: UserFacts) -> Reason | None:
        if not facts.exists:
            return Reason.USER_NOT_FOUND
        if not facts.is_enabled:
            return Reason.USER_DISABLED
        if facts.status is not None and fold(facts.status) in self._inactive:
            return Reason.USER_INACTIVE
        return None

    def _owed(self, facts: UserFacts) -> tuple[Queue | None, Reason]:
        if not facts.exists:
            return None, Reason.USER_NOT_FOUND
        if not facts.claims:
            return None, Reason.NO_CLAIMS
        open_claims = [claim for claim in facts.claims if self.is_open(claim)]
        if not open_claims:
            return None, Reason.CLAIMS_ENDED
        if not facts.has_signature:
            return Queue.UNSIGNED_USERS, Reason.NO_SIGNATURE
        if any(self._counts(it) for claim in open_claims for it in claim.requirements):
            return Queue.OUTSTANDING_REQUESTS, Reason.REQUIREMENT_PENDING
        return None, Reason.NOTHING_OUTSTANDING

    def is_open(self, claim: ClaimFacts) -> bool:
        """Return whether a claim has not ended."""
        return claim.status is None or fold(claim.status) not in self._ended

    def _is_pending(self, requirement: RequirementFacts) -> bool:
        return requirement.status is not None and fold(requirement.status) in self._pending

    def _counts(self, requirement: RequirementFacts) -> bool:
        if not self._is_pending(requirement):
            return False
        if requirement.type is None:
            return True
        kind = fold(requirement.type)
        if kind in self._excluded_types:
            return False
        return requirement.reason is None or (kind, fold(requirement.reason)) not in self._excluded


def conversion(owed: Queue | None, now: Verdict) -> Conversion | None:
    """Return what became of a matter that was open in the queue `owed`; None if not a conversion.

    A person who has no claims left, or is gone from the main app, has not converted.
    """
    if owed is None or owed is now.owes or now.matter in _NO_CONVERSION:
        return None
    if owed is Queue.UNSIGNED_USERS and now.has_signature:
        return Conversion.SIGNATURE_OBTAINED
    return _CONVERSIONS.get(now.matter)


_NO_CONVERSION = (Reason.USER_NOT_FOUND, Reason.NO_CLAIMS)
_CONVERSIONS = {
    Reason.CLAIMS_ENDED: Conversion.CLAIMS_ENDED,
    Reason.NOTHING_OUTSTANDING: Conversion.REQUIREMENTS_MET,
}


# The main app's statuses, types and reasons are few, and each comes again and again.
@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """Return `text` such that what utf8mb4_unicode_ci calls equal becomes equal."""
    trimmed = text.rstrip(" ")
    if trimmed.isascii():
        return trimmed.lower()
    parts = unicodedata.normalize("NFKD", trimmed.casefold())
    return "".join(it for it in parts if not unicodedata.combining(it))


def _folded(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(map(fold, texts))
