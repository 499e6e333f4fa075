"""Statements on the audit of who saw and changed whom."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson

from services.queue.store.database import Transaction, statement
from services.queue.store.writing import Write, write
from services.queue.types import Action, AgentId, UserId

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An actor saw or changed a person; `user_id` is None when no single person is concerned.

    `notes` are those of a forced release or the reason of an amendment, for as long as they are
    kept.
    """

    audit_id: int
    at: datetime
    actor_id: str
    action: str
    user_id: UserId | None
    details: Mapping[str, str]
    notes: str | None


async def note(
    tx: Transaction,
    actor_id: str,
    action: str,
    user_ids: Sequence[UserId | None],
    now: datetime,
    **details: str,
) -> None:
    """Keep what an actor did, once for each person; `details` hold no personal data.

    It is logged, too: the log outlives a database that is restored to an earlier moment.
    """
    if isinstance(action, Action):
        for user_id in user_ids:
            log(actor_id, action, user_id, now, details)
    kept = orjson.dumps(details).decode()
    await write(tx, _NOTE, [(now, actor_id, action, user_id, kept) for user_id in user_ids])


def log(
    actor_id: str,
    action: Action,
    user_id: UserId | None,
    at: datetime,
    details: Mapping[str, str],
) -> None:
    """Log what an actor did, in the form that `services.queue.recover` reads."""
    deed = {"at": at, "actor_id": actor_id, "action": action, "user_id": user_id}
    _log.info("audit", extra={**deed, "details": dict(details)})


async def is_noted(
    tx: Transaction, actor_id: str, action: str, user_id: UserId | None, at: datetime
) -> bool:
    """Return whether this was kept."""
    values = {"actor_id": actor_id, "action": action, "user_id": user_id, "at": at}
    return bool((await tx.execute(_IS_NOTED, values)).scalar_one())


async def skips_last_hour(
    tx: Transaction, now: datetime, agent_id: AgentId | None = None
) -> dict[AgentId, int]:
    """Return how many people agents have skipped, without agents who skipped none."""
    since = now - timedelta(hours=1)
    values = {"agent_id": agent_id, "action": Action.SKIPPED, "since": since}
    return {AgentId(row[0]): row[1] for row in (await tx.execute(_SKIPS, values)).all()}


_SKIPS = statement(
    "SELECT actor_id, count(*) FROM queue.audit WHERE at > :since AND action = :action"
    " AND (CAST(:agent_id AS text) IS NULL OR actor_id = :agent_id) GROUP BY actor_id"
)
_IS_NOTED = statement(
    "SELECT EXISTS (SELECT FROM queue.audit WHERE at = :at AND actor_id = :actor_id"
    " AND action = :action AND user_id IS NOT DISTINCT FROM CAST(:user_id AS bigint))"
)
_NOTE = Write(
    "audited",
    (
        ("at", "timestamptz"),
        ("actor_id", "text"),
        ("action", "text"),
        ("user_id", "bigint"),
        ("details", "text"),
    ),
    """
    INSERT INTO queue.audit (at, actor_id, action, user_id, details)
    SELECT at, actor_id, action, user_id, CAST(details AS jsonb) FROM {given} ORDER BY position
    """,
)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are asked for; None for any."""

    user_id: UserId | None = None
    actor_id: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def page(
    tx: Transaction, asked: AuditFilter, before: int | None, limit: int
) -> list[AuditEntry]:
    """Return up to `limit` entries before a position, the latest first."""
    rows = await tx.execute(
        _PAGE,
        {
            "user_id": asked.user_id,
            "actor_id": asked.actor_id,
            "action": asked.action,
            "since": asked.since,
            "until": asked.until,
            "before": before,
            "limit": limit,
        },
    )
    return [
        AuditEntry(row[0], row[1], row[2], row[3], row[4], orjson.loads(row[5]), row[6])
        for row in rows.all()
    ]


_PAGE = statement(
    """
    SELECT audit_id, at, actor_id, action, user_id, CAST(details AS text),
        CASE action WHEN 'FORCED_RELEASE' THEN (SELECT ended.end_notes
            FROM queue.assignments AS ended
            WHERE ended.assignment_id = CAST(details ->> 'assignment_id' AS uuid))
        WHEN 'OUTCOME_AMENDED' THEN (SELECT replaced.reason FROM queue.amendments AS replaced
            WHERE replaced.amendment_id = CAST(details ->> 'amendment_id' AS uuid)) END
    FROM queue.audit
    WHERE (CAST(:user_id AS bigint) IS NULL OR user_id = :user_id)
        AND (CAST(:actor_id AS text) IS NULL OR actor_id = :actor_id)
        AND (CAST(:action AS text) IS NULL OR action = :action)
        AND (CAST(:since AS timestamptz) IS NULL OR at >= :since)
        AND (CAST(:until AS timestamptz) IS NULL OR at < :until)
        AND (CAST(:before AS bigint) IS NULL OR audit_id < :before)
    ORDER BY audit_id DESC LIMIT :limit
    """
)
