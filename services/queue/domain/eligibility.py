"""Which queue a person belongs to by the facts alone, and what leaving it means."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from services.queue.domain.facts import ClaimFacts, RequirementFacts, UserFacts
from services.queue.domain.rules import EligibilityRules
from services.queue.types import NO_CONTACT_REASONS, Conversion, Queue, Reason


@dataclass(frozen=True, slots=True)
class EligibilityVerdict:
    """Where the facts put a person.

    `open_case_queue` is the queue of the open case, whether or not the person may be contacted, and
    `case_reason` says why; `queue` is the same while the main app allows contact, else None, and
    `reason` says why.
    """

    queue: Queue | None
    reason: Reason
    open_case_queue: Queue | None
    case_reason: Reason
    has_signature: bool

    @property
    def has_open_claim(self) -> bool:
        """Whether any claim of the person is open."""
        return self.case_reason not in (Reason.CLAIMS_ENDED, *_NO_CONVERSION)

    @property
    def is_contact_allowed(self) -> bool:
        """Whether the main app lets the person be contacted at all."""
        return self.reason not in NO_CONTACT_REASONS


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted of a person to find the open case."""

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

    def judge(self, facts: UserFacts) -> EligibilityVerdict:
        """Return where the facts put the person."""
        case_queue, case_reason = self._case(facts)
        block = None
        if not facts.exists:
            block = Reason.USER_NOT_FOUND
        elif not facts.is_enabled:
            block = Reason.USER_DISABLED
        elif facts.status is not None and fold(facts.status) in self._inactive:
            block = Reason.USER_INACTIVE
        return EligibilityVerdict(
            queue=case_queue if block is None else None,
            reason=block or case_reason,
            open_case_queue=case_queue,
            case_reason=case_reason,
            has_signature=facts.has_signature,
        )

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

    def _case(self, facts: UserFacts) -> tuple[Queue | None, Reason]:
        """Return the queue of the open case, and why it is open or why there is none."""
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


def conversion(case_queue: Queue | None, now: EligibilityVerdict) -> Conversion | None:
    """Return how a case of the queue `case_queue` has ended; None if that is no conversion.

    A person who has no claims left, or is gone from the main app, has not converted.
    """
    if case_queue is None or case_queue is now.open_case_queue or now.case_reason in _NO_CONVERSION:
        return None
    if case_queue is Queue.UNSIGNED_USERS and now.has_signature:
        return Conversion.SIGNATURE_OBTAINED
    return _CONVERSIONS.get(now.case_reason)


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
