"""A person's facts, as one reading of the main app found them."""

from datetime import date, datetime
from typing import NamedTuple

from services.queue.types import UserId


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

    `phones` are the numbers found in the person's phone field, in E.164 and in their order.
    `fingerprint` is 0 in a reading that did not see the whole context of the person,
    `row_fingerprints` is empty in a reading that did not see every row.
    """

    user_id: UserId
    exists: bool
    version: int
    fingerprint: int = 0
    is_enabled: bool = False
    status: str | None = None
    has_signature: bool = False
    claims: tuple[ClaimFacts, ...] = ()
    phones: tuple[str, ...] = ()
    created_at: datetime | None = None
    date_of_birth: date | None = None
    row_fingerprints: bytes = b""
