"""Reads people's rows for the checker, with statements of its own."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from devstack.mysql_connection import Connection, connect
from simulation.checker.reading import NO_PERSON, ClaimRow, PersonRow, RequirementRow, view_of
from simulation.history import View

_AT_ONCE = 500

_USERS = """
    SELECT id, is_enabled, status, current_signature_file_id IS NOT NULL, phone_number, created_at
    FROM users WHERE id IN ({})
"""
_CLAIMS = "SELECT id, user_id, status, created_at FROM claims WHERE user_id IN ({})"
_REQUIREMENTS = """
    SELECT r.claim_id, r.type, r.status, r.claim_requirement_reason
    FROM claim_requirements r JOIN claims c ON c.id = r.claim_id WHERE c.user_id IN ({})
"""


class MainAppRows:
    """What MySQL says of people now; not for several threads at once."""

    def __init__(self, url: str) -> None:
        self._connection: Connection = connect(url)
        self._connection.autocommit(True)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def all_views(self) -> dict[int, View]:
        """Return the view of every person."""
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT id FROM users ORDER BY id")
            user_ids = [int(row[0]) for row in cursor.fetchall()]
        views: dict[int, View] = {}
        for first in range(0, len(user_ids), _AT_ONCE):
            views |= self.views(user_ids[first : first + _AT_ONCE])
        return views

    def views(self, user_ids: Sequence[int]) -> dict[int, View]:
        """Return the view of each of these people, people who are gone included."""
        requirements: dict[int, list[RequirementRow]] = defaultdict(list)
        for claim_id, kind, status, reason in self._rows(_REQUIREMENTS, user_ids):
            requirements[claim_id].append(RequirementRow(kind, status, reason))
        claims: dict[int, list[ClaimRow]] = defaultdict(list)
        for claim_id, user_id, status, created_at in self._rows(_CLAIMS, user_ids):
            row = ClaimRow(status, _utc(created_at), tuple(requirements[claim_id]))
            claims[user_id].append(row)
        views = dict.fromkeys(user_ids, NO_PERSON)
        for user_id, is_enabled, status, is_signed, phone, created_at in self._rows(
            _USERS, user_ids
        ):
            person = PersonRow(
                bool(is_enabled),
                status,
                bool(is_signed),
                phone,
                _utc(created_at),
                tuple(claims[user_id]),
            )
            views[int(user_id)] = view_of(person)
        return views

    def claim_ids(self, user_id: int, *, only_open: bool = False) -> list[int]:
        """Return the ids of a person's claims, in order."""
        query = "SELECT id, status FROM claims WHERE user_id = %s ORDER BY id"
        return [
            int(claim_id)
            for claim_id, status in self._found(query, (user_id,))
            if not only_open or status not in ("complete", "cancelled")
        ]

    def pending_requirement_ids(self, user_id: int) -> list[str]:
        """Return the ids of a person's pending requirements, in order."""
        query = (
            "SELECT r.id FROM claim_requirements r JOIN claims c ON c.id = r.claim_id"
            " WHERE c.user_id = %s AND r.status = 'PENDING' ORDER BY r.id"
        )
        return [str(row[0]) for row in self._found(query, (user_id,))]

    def claims_from(self, claim_id: int, limit: int) -> list[tuple[int, int]]:
        """Return the ids of some claims and of their people, from that id on."""
        query = "SELECT id, user_id FROM claims WHERE id >= %s ORDER BY id LIMIT %s"
        return [(int(row[0]), int(row[1])) for row in self._found(query, (claim_id, limit))]

    def phone_number(self, user_id: int) -> str | None:
        """Return a person's number as it is written."""
        rows = self._found("SELECT phone_number FROM users WHERE id = %s", (user_id,))
        return rows[0][0] if rows else None

    def _rows(self, query: str, user_ids: Sequence[int]) -> list[tuple[Any, ...]]:
        if not user_ids:
            return []
        return self._found(query.format(", ".join(["%s"] * len(user_ids))), tuple(user_ids))

    def _found(self, query: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query, arguments)
            return list(cursor.fetchall())


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
