"""Statements on the scales that keep rank keys of different rates comparable."""

import zlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, bindparam

from services.queue.store.database import Transaction, statement


@dataclass(frozen=True, slots=True)
class RankScale:
    """Points that everybody gains in a week, and the offset of keys made with them."""

    points_per_week: float
    rank_offset: float


async def latest(tx: Transaction) -> RankScale | None:
    """Return the scale in force; others who would change it wait for the transaction's end."""
    await tx.execute(_GUARD)
    row = (await tx.execute(_LATEST)).one_or_none()
    return None if row is None else RankScale(row[0], row[1])


_GUARD = statement("SELECT pg_advisory_xact_lock(:scales)").bindparams(
    bindparam("scales", zlib.crc32(b"queue.rank_scales"), BigInteger)
)
_LATEST = statement(
    "SELECT points_per_week, rank_offset FROM queue.rank_scales ORDER BY rank_scale_id DESC LIMIT 1"
)


async def begin(tx: Transaction, scale: RankScale, now: datetime) -> None:
    """Put a scale into force."""
    await tx.execute(
        _BEGIN,
        {
            "points_per_week": scale.points_per_week,
            "rank_offset": scale.rank_offset,
            "now": now,
        },
    )


_BEGIN = statement(
    "INSERT INTO queue.rank_scales (points_per_week, rank_offset, began_at)"
    " VALUES (:points_per_week, :rank_offset, :now)"
)
