"""The facts of a refresh as the main app's rows."""

from collections.abc import Iterable
from functools import cached_property

from dialler.model.v1.facts_pb2 import ClaimFacts, RequirementFacts, UserFacts

from services.cdc_ingest.domain.people import Key, RowKey
from services.cdc_ingest.domain.staleness import Columns


class FactsReading:
    """Looks rows up in facts; columns are named and formed as `domain.staleness.SHOWN` has them."""

    def __init__(self, facts: Iterable[UserFacts]) -> None:
        self._people = {each.user_id: each for each in facts if each.exists}

    def has(self, place: Key) -> bool:
        """Whether the person or claim was found."""
        if isinstance(place, RowKey):
            return place.table == "claims" and place.key in self._claims
        return place in self._people

    def row(self, place: Key, row: RowKey) -> Columns | None:
        """Return the columns of a row of the person or claim; None when it is not there."""
        if isinstance(place, RowKey):
            claim = self._claims.get(place.key) if place.table == "claims" else None
            return None if claim is None else _requirement(claim.requirements, row.key)
        person = self._people.get(place)
        if person is None:
            return None
        return _user(person) if row.table == "users" else _claim(person.claims, row.key)

    @cached_property
    def _claims(self) -> dict[str, ClaimFacts]:
        return {str(c.claim_id): c for person in self._people.values() for c in person.claims}


def _user(person: UserFacts) -> Columns:
    return {
        "is_enabled": person.is_enabled,
        "status": person.status or None,
        "current_signature_file_id": person.has_signature,
    }


def _claim(claims: Iterable[ClaimFacts], key: str) -> Columns | None:
    for claim in claims:
        if str(claim.claim_id) == key:
            return {"status": claim.status or None, "lender": claim.lender or None}
    return None


def _requirement(requirements: Iterable[RequirementFacts], key: str) -> Columns | None:
    for requirement in requirements:
        if requirement.requirement_id == key:
            return {
                "type": requirement.type or None,
                "status": requirement.status or None,
                "claim_requirement_reason": requirement.reason or None,
            }
    return None
