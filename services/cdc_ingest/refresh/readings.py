"""Shows the facts of a refresh as rows of the main app."""

from collections.abc import Iterable
from functools import cached_property

from dialler.model.v1.facts_pb2 import ClaimFacts, UserFacts

from services.cdc_ingest.domain.gtids import ExecutedGtids
from services.cdc_ingest.domain.people import Key, RowKey
from services.cdc_ingest.domain.staleness import Columns


class FactsReading:
    """Looks up rows in facts, with the columns and forms of `domain.staleness.SHOWN`."""

    def __init__(self, facts: Iterable[UserFacts], executed_gtids: str = "") -> None:
        self.executed = ExecutedGtids(executed_gtids)
        self._people = {each.user_id: each for each in facts if each.exists}

    def has(self, owner: Key) -> bool:
        """Whether the person or claim was found."""
        if isinstance(owner, RowKey):
            return owner.table == "claims" and owner.key in self._claims
        return owner in self._people

    def row(self, owner: Key, row: RowKey) -> Columns | None:
        """Return the columns of a row of the person or claim; None when it was not found."""
        if isinstance(owner, RowKey):
            parent = self._claims.get(owner.key) if owner.table == "claims" else None
            for requirement in () if parent is None else parent.requirements:
                if requirement.requirement_id == row.key:
                    return {
                        "type": requirement.type or None,
                        "status": requirement.status or None,
                        "claim_requirement_reason": requirement.reason or None,
                    }
            return None
        person = self._people.get(owner)
        if person is None:
            return None
        if row.table == "users":
            return {
                "is_enabled": person.is_enabled,
                "status": person.status or None,
                "current_signature_file_id": person.has_signature,
            }
        for claim in person.claims:
            if str(claim.claim_id) == row.key:
                return {"status": claim.status or None, "lender": claim.lender or None}
        return None

    @cached_property
    def _claims(self) -> dict[str, ClaimFacts]:
        return {str(c.claim_id): c for person in self._people.values() for c in person.claims}
