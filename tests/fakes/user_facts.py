"""Facts of users as tests want them."""

from datetime import UTC, datetime

from dialler.model.v1 import facts_pb2
from google.protobuf.timestamp_pb2 import Timestamp

LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)


def unsigned(user_id: int, *, created_at: datetime | None = LONG_AGO) -> facts_pb2.UserFacts:
    """Return a user whose signature is missing."""
    return person(user_id, has_signature=False, created_at=created_at)


def outstanding(user_id: int, *, created_at: datetime | None = LONG_AGO) -> facts_pb2.UserFacts:
    """Return a user who has signed and whose document is missing."""
    return person(user_id, has_signature=True, created_at=created_at)


def done(user_id: int) -> facts_pb2.UserFacts:
    """Return a user who has signed and has nothing outstanding."""
    return person(user_id, has_signature=True, requirement_status="APPROVED")


def person(
    user_id: int,
    *,
    has_signature: bool,
    requirement_status: str = "PENDING",
    created_at: datetime | None = LONG_AGO,
) -> facts_pb2.UserFacts:
    """Return a user with one open claim that needs one document."""
    requirement = facts_pb2.RequirementFacts(
        requirement_id=f"r-{user_id}", type="proof_of_address", status=requirement_status
    )
    claim = facts_pb2.ClaimFacts(
        claim_id=user_id, lender="Blue Motor Finance", requirements=[requirement]
    )
    facts = facts_pb2.UserFacts(
        user_id=user_id,
        exists=True,
        is_enabled=True,
        has_signature=has_signature,
        claims=[claim],
    )
    give_phones(facts, f"+447700900{user_id % 1000:03d}")
    if created_at is not None:
        moment = Timestamp()
        moment.FromDatetime(created_at)
        facts.created_at.CopyFrom(moment)
        facts.claims[0].created_at.CopyFrom(moment)
    return facts


def give_phones(facts: facts_pb2.UserFacts, *phones: str) -> facts_pb2.UserFacts:
    """Make these the numbers of the person, and return the person."""
    facts.phone_e164 = phones[0] if phones else ""
    facts.phones.CopyFrom(facts_pb2.PhoneNumbers(e164=phones))
    return facts
