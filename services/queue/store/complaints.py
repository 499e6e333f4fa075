"""Statements on complaints."""

from dataclasses import dataclass
from datetime import datetime

from services.queue.store.database import Transaction, statement
from services.queue.types import UserId


@dataclass(frozen=True, slots=True)
class Complaint:
    """A person's latest complaints together; `closed_at` is None while one is open."""

    opened_at: datetime
    closed_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Return whether it is still handled."""
        return self.closed_at is None


async def latest_of(tx: Transaction, user_id: UserId) -> Complaint | None:
    """Return the person's latest complaint that is kept."""
    row = (await tx.execute(_LATEST, {"user_id": user_id})).one_or_none()
    return None if row is None else Complaint(*row)


_LATEST = statement(
    "SELECT opened_at, closed_at FROM queue.complaints WHERE user_id = :user_id FOR UPDATE"
)


async def write(tx: Transaction, user_id: UserId, complaint: Complaint, actor_id: str) -> None:
    """Keep this as the person's latest complaint."""
    await tx.execute(
        _WRITE,
        {
            "user_id": user_id,
            "opened_at": complaint.opened_at,
            "closed_at": complaint.closed_at,
            "noted_by": actor_id,
        },
    )


_WRITE = statement(
    """
    INSERT INTO queue.complaints (user_id, opened_at, closed_at, noted_by)
    VALUES (:user_id, :opened_at, :closed_at, :noted_by)
    ON CONFLICT (user_id) DO UPDATE
    SET opened_at = excluded.opened_at, closed_at = excluded.closed_at,
        noted_by = excluded.noted_by
    """
)
