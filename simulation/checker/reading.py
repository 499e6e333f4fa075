"""What rows of the main app mean, in the checker's own reading of the rules."""

import re
import unicodedata
from datetime import datetime
from typing import NamedTuple

from simulation.history import OUTSTANDING, UNSIGNED, View

_ENDED = {"complete", "cancelled"}
_NOT_COUNTED = {
    "signature",
    "vehicle_registration",
    "cfa",
    "solicitor_letter_of_authority",
    "letter_of_authority",
}
_BASE_REASON = "base requirement for claim."


class RequirementRow(NamedTuple):
    """A row of `claim_requirements`."""

    type: str
    status: str | None
    reason: str | None


class ClaimRow(NamedTuple):
    """A row of `claims` with what hangs on it."""

    status: str | None
    created_at: datetime | None
    requirements: tuple[RequirementRow, ...]


class PersonRow(NamedTuple):
    """A row of `users` with what hangs on it."""

    is_enabled: bool
    status: str | None
    has_signature: bool
    phone_number: str | None
    created_at: datetime | None
    claims: tuple[ClaimRow, ...]


NO_PERSON = View(False, False, None, "gone", False, (), None, None)


def view_of(person: PersonRow | None) -> View:
    """Return what the rows mean; None is a person whose row is gone."""
    if person is None:
        return NO_PERSON
    matter, ending = _matter(person)
    first_claims = [claim.created_at for claim in person.claims if claim.created_at is not None]
    return View(
        exists=True,
        is_contactable=person.is_enabled and (person.status or "").lower() != "inactive",
        matter=matter,
        ending=ending,
        is_signed=person.has_signature,
        phones=phones_of(person.phone_number),
        registered_at=person.created_at,
        first_claim_at=min(first_claims, default=None),
    )


def _matter(person: PersonRow) -> tuple[str | None, str]:
    if not person.claims:
        return None, "no_claims"
    still_open = [it for it in person.claims if (it.status or "").lower() not in _ENDED]
    if not still_open:
        return None, "claims_ended"
    if not person.has_signature:
        return UNSIGNED, ""
    if any(_is_owed(it) for claim in still_open for it in claim.requirements):
        return OUTSTANDING, ""
    return None, "requirements_met"


def _is_owed(requirement: RequirementRow) -> bool:
    if (requirement.status or "").upper() != "PENDING" or requirement.type in _NOT_COUNTED:
        return False
    return not (requirement.type == "id_document" and requirement.reason == _BASE_REASON)


def phones_of(text: str | None) -> tuple[str, ...]:
    """Return the British numbers in a phone field as national digits, each once, as they come.

    Knows the spellings that the simulation writes: labels, several numbers, a spreadsheet's `.0`,
    invisible characters.
    """
    visible = "".join(it for it in text or "" if unicodedata.category(it) != "Cf")
    plain = re.sub(r"(?<=\d)\.0(?!\d)", " x ", visible.replace("(0)", ""))
    runs = (re.sub(r"\D", "", run) for run in re.findall(r"\d(?:[^\S\n]|[\d().-])*", plain))
    found = (re.fullmatch(r"(?:0044|44|0)([1-9]\d{8,9})", run) for run in runs)
    return tuple(dict.fromkeys(it[1] for it in found if it is not None))
