"""Who belongs in which queue: every column's values, NULL among them."""

import itertools
from datetime import UTC, datetime

import pytest

from services.queue.domain.eligibility import Eligibility, conversion
from services.queue.domain.facts import ClaimFacts, RequirementFacts, UserFacts
from services.queue.types import Conversion, Queue, Reason, UserId
from tests.fakes.rules import load_rules

ELIGIBILITY = Eligibility(load_rules().eligibility)
UNSIGNED, OUTSTANDING = Queue.UNSIGNED_USERS, Queue.OUTSTANDING_REQUESTS


def _requirement(
    type: str | None = "proof_of_address",
    status: str | None = "PENDING",
    reason: str | None = None,
) -> RequirementFacts:
    return RequirementFacts(type, status, reason)


def _claim(status: str | None = None, *requirements: RequirementFacts) -> ClaimFacts:
    return ClaimFacts(status, datetime(2024, 1, 1, tzinfo=UTC), requirements)


def _user(
    *claims: ClaimFacts,
    is_enabled: bool = True,
    status: str | None = None,
    has_signature: bool = False,
    exists: bool = True,
) -> UserFacts:
    return UserFacts(
        UserId(1),
        exists,
        1,
        is_enabled=is_enabled,
        status=status,
        has_signature=has_signature,
        claims=claims,
    )


@pytest.mark.parametrize(
    ("is_enabled", "status", "claim_status", "has_signature", "requirement_status"),
    list(
        itertools.product(
            (True, False),
            (None, "active", "", "inactive", "INACTIVE", "inactive  ", " inactive"),
            (None, "in_progress", "complete", "Complete", "CANCELLED ", "canceled"),
            (True, False),
            (None, "PENDING", "pending", "APPROVED", ""),
        )
    ),
)
def test_every_combination_of_the_columns(
    is_enabled: bool,
    status: str | None,
    claim_status: str | None,
    has_signature: bool,
    requirement_status: str | None,
) -> None:
    """The definition of the queues, written once more in the words of the domain."""
    is_active = is_enabled and status not in ("inactive", "INACTIVE", "inactive  ")
    is_open = claim_status not in ("complete", "Complete", "CANCELLED ")
    is_pending = requirement_status in ("PENDING", "pending")
    expected: Queue | None = None
    if is_active and is_open and not has_signature:
        expected = UNSIGNED
    elif is_active and is_open and is_pending:
        expected = OUTSTANDING
    facts = _user(
        _claim(claim_status, _requirement(status=requirement_status)),
        is_enabled=is_enabled,
        status=status,
        has_signature=has_signature,
    )
    assert ELIGIBILITY.judge(facts).queue is expected


@pytest.mark.parametrize(
    ("requirement", "counts"),
    [
        (_requirement("signature"), False),
        (_requirement("Vehicle_Registration"), False),
        (_requirement("cfa"), False),
        (_requirement("solicitor_letter_of_authority"), False),
        (_requirement("letter_of_authority "), False),
        (_requirement("id_document", reason="base requirement for claim."), False),
        (_requirement("ID_Document", reason="Base requirement for claim. "), False),
        (_requirement("id_document", reason="base requirement for claim"), True),
        (_requirement("id_document", reason=None), True),
        (_requirement("id_document", reason=""), True),
        (_requirement("proof_of_address", reason="base requirement for claim."), True),
        (_requirement(None), True),
        (_requirement("signatures"), True),
        (_requirement(status=None), False),
    ],
)
def test_which_requirements_count(requirement: RequirementFacts, counts: bool) -> None:
    verdict = ELIGIBILITY.judge(_user(_claim(None, requirement), has_signature=True))
    assert verdict.queue is (OUTSTANDING if counts else None)


def test_a_requirement_of_an_ended_claim_does_not_count() -> None:
    ended = _claim("complete", _requirement())
    assert ELIGIBILITY.judge(_user(ended, _claim(), has_signature=True)).queue is None
    assert ELIGIBILITY.judge(_user(ended, _claim())).queue is UNSIGNED


def test_accents_and_case_compare_as_the_main_app_compares_them() -> None:
    assert ELIGIBILITY.judge(_user(_claim("COMPLÈTE"))).queue is None
    assert ELIGIBILITY.judge(_user(_claim(), status="inactif")).queue is UNSIGNED


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (_user(exists=False), Reason.USER_NOT_FOUND),
        (_user(_claim(), is_enabled=False), Reason.USER_DISABLED),
        (_user(_claim(), status="inactive"), Reason.USER_INACTIVE),
        (_user(), Reason.NO_CLAIMS),
        (_user(_claim("complete"), _claim("cancelled")), Reason.CLAIMS_ENDED),
        (_user(_claim(), has_signature=True), Reason.NOTHING_OUTSTANDING),
        (_user(_claim()), Reason.NO_SIGNATURE),
        (_user(_claim(None, _requirement()), has_signature=True), Reason.REQUIREMENT_PENDING),
    ],
)
def test_the_reason_is_told(facts: UserFacts, reason: Reason) -> None:
    assert ELIGIBILITY.judge(facts).reason is reason


_PENDING = _claim(None, _requirement())


@pytest.mark.parametrize(
    ("owed", "facts", "expected"),
    [
        (UNSIGNED, _user(_PENDING, has_signature=True), Conversion.SIGNATURE_OBTAINED),
        (UNSIGNED, _user(_claim(), has_signature=True), Conversion.SIGNATURE_OBTAINED),
        (UNSIGNED, _user(_claim("complete"), has_signature=True), Conversion.SIGNATURE_OBTAINED),
        (UNSIGNED, _user(_claim("cancelled")), Conversion.CLAIMS_ENDED),
        (UNSIGNED, _user(_claim()), None),
        (UNSIGNED, _user(), None),
        (UNSIGNED, _user(exists=False), None),
        (UNSIGNED, _user(_claim(), is_enabled=False), None),
        (
            UNSIGNED,
            _user(_claim(), is_enabled=False, has_signature=True),
            Conversion.SIGNATURE_OBTAINED,
        ),
        (OUTSTANDING, _user(_claim(), has_signature=True), Conversion.REQUIREMENTS_MET),
        (OUTSTANDING, _user(_claim("complete"), has_signature=True), Conversion.CLAIMS_ENDED),
        (OUTSTANDING, _user(_PENDING), None),
        (OUTSTANDING, _user(_PENDING, has_signature=True), None),
        (OUTSTANDING, _user(exists=False), None),
        (None, _user(_claim(), has_signature=True), None),
    ],
)
def test_what_leaving_a_queue_means(
    owed: Queue | None, facts: UserFacts, expected: Conversion | None
) -> None:
    assert conversion(owed, ELIGIBILITY.judge(facts)) is expected
