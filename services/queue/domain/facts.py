"""What one reading of the main app found of a person."""

from datetime import date, datetime
from typing import NamedTuple

from services.queue.domain.terms import UserId


class RequirementFacts(NamedTuple):
    """A requirement; None is NULL."""

    type: str | None
    status: str | None
    reason: str | None


class ClaimFacts(NamedTuple):
    """A claim; None is NULL."""

    status: str | None
    created_at: datetime | None = None
    requirements: tuple[RequirementFacts, ...] = ()
    lender: str | None = None


class UserFacts(NamedTuple):
    """A person. Of two readings the one with the higher `version` is the later.

    `fingerprint` is 0 in a reading that has not seen all that the person's context shows,
    `row_fingerprints` empty in one that has not seen every row.
    """

    user_id: UserId
    exists: bool
    version: int
    fingerprint: int = 0
    is_enabled: bool = False
    status: str | None = None
    has_signature: bool = False
    claims: tuple[ClaimFacts, ...] = ()
    phone_e164: str | None = None
    created_at: datetime | None = None
    date_of_birth: date | None = None
    row_fingerprints: bytes = b""
