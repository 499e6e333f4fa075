"""Statements on the editions of the rules, which keep rank keys of different rates comparable."""

import zlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, bindparam

from services.queue.store.database import Transaction, statement


@dataclass(frozen=True, slots=True)
class RuleEdition:
    """One edition of the rules: the points that every person gains in a week, and the offset of the
    rank keys made with it. `is_applied` tells that all people have been placed by it.
    """

    rules_hash: str
    points_per_week: float
    rank_offset: float
    is_applied: bool


async def latest(tx: Transaction) -> RuleEdition | None:
    """Return the edition in force, if there has been any."""
    row = (await tx.execute(_LATEST)).one_or_none()
    return None if row is None else RuleEdition(*row)


async def guard(tx: Transaction) -> None:
    """Keep other transactions from putting an edition into force until the end of this one."""
    await tx.execute(_GUARD)


_GUARD = statement("SELECT pg_advisory_xact_lock(:editions)").bindparams(
    bindparam("editions", zlib.crc32(b"queue.rule_editions"), BigInteger)
)
_LATEST = statement(
    "SELECT rules_hash, points_per_week, rank_offset, applied_at IS NOT NULL"
    " FROM queue.rule_editions ORDER BY rule_edition_id DESC LIMIT 1"
)


async def begin(tx: Transaction, edition: RuleEdition, now: datetime) -> None:
    """Put an edition into force."""
    await tx.execute(
        _BEGIN,
        {
            "rules_hash": edition.rules_hash,
            "points_per_week": edition.points_per_week,
            "rank_offset": edition.rank_offset,
            "now": now,
            "applied_at": now if edition.is_applied else None,
        },
    )


_BEGIN = statement(
    """
    INSERT INTO queue.rule_editions
        (rules_hash, points_per_week, rank_offset, began_at, applied_at)
    VALUES (:rules_hash, :points_per_week, :rank_offset, :now, :applied_at)
    """
)


async def mark_applied(tx: Transaction, rules_hash: str, now: datetime) -> None:
    """Note that all people have been placed by these rules, if they are still in force."""
    await tx.execute(_MARK_APPLIED, {"rules_hash": rules_hash, "now": now})


_MARK_APPLIED = statement(
    """
    UPDATE queue.rule_editions SET applied_at = :now
    WHERE rules_hash = :rules_hash AND applied_at IS NULL
        AND rule_edition_id = (SELECT max(rule_edition_id) FROM queue.rule_editions)
    """
)
