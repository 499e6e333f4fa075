"""Statements on amended reports, and the form in which the effects of a report are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from services.queue.domain.amending import CallEffects, ReportEffects, without_notes
from services.queue.domain.callbacks import Callback
from services.queue.domain.outcomes import CallReport
from services.queue.store.database import Transaction, statement
from services.queue.types import AgentId, CallbackState, ContactBlock, Outcome, UserId


@dataclass(frozen=True, slots=True)
class ReportVersion:
    """A version of a report that was replaced, by whom, when and why."""

    amendment_id: UUID
    assignment_id: UUID
    user_id: UserId
    actor_id: str
    amended_at: datetime
    reason: str
    report: CallReport | None


def effects_json(effects: ReportEffects) -> str:
    """Return the effects as they are kept."""
    return orjson.dumps(
        {
            "before": _fields(effects.before),
            "after": _fields(effects.after),
            "is_counted": effects.is_counted,
            "callback_before": without_notes(effects.callback_before),
            "callback_after": without_notes(effects.callback_after),
            "made": without_notes(effects.made),
            "suppression_id": effects.suppression_id,
        },
        # The driver has a UUID of its own.
        default=str,
    ).decode()


def _fields(effects: CallEffects) -> dict[str, Any]:
    return effects._asdict() | {"block": int(effects.block)}


def effects_of(text: str) -> ReportEffects:
    """Return the effects that were kept."""
    kept = orjson.loads(text)
    suppression_id = kept["suppression_id"]
    return ReportEffects(
        before=_effects(kept["before"]),
        after=_effects(kept["after"]),
        is_counted=kept["is_counted"],
        callback_before=_callback(kept["callback_before"]),
        callback_after=_callback(kept["callback_after"]),
        made=_callback(kept["made"]),
        suppression_id=None if suppression_id is None else UUID(suppression_id),
    )


def _moment(text: str | None) -> Any:
    return None if text is None else datetime.fromisoformat(text)


def _effects(kept: Mapping[str, Any]) -> CallEffects:
    outcome = kept["last_outcome"]
    moments = ("rest_until", "aged_from", "last_contact_at", "last_spoken_at")
    return CallEffects(
        **(
            {name: kept[name] for name in CallEffects._fields}
            | {name: _moment(kept[name]) for name in moments}
            | {
                "block": ContactBlock(kept["block"]),
                "last_outcome": None if outcome is None else Outcome(outcome),
            }
        )
    )


def _callback(kept: Mapping[str, Any] | None) -> Callback | None:
    if kept is None:
        return None
    moments = ("scheduled_for", "created_at", "closed_at")
    return Callback(
        **(
            dict(kept)
            | {name: _moment(kept[name]) for name in moments}
            | {
                "callback_id": UUID(kept["callback_id"]),
                "state": CallbackState(kept["state"]),
            }
        )
    )


async def kept_effects(tx: Transaction, assignment_id: UUID) -> ReportEffects | None:
    """Return the effects of the report of a locked assignment; None when none are kept."""
    text = (await tx.execute(_KEPT, {"assignment_id": assignment_id})).scalar_one_or_none()
    return None if text is None else effects_of(text)


_KEPT = statement(
    "SELECT CAST(report_effects AS text) FROM queue.assignments"
    " WHERE assignment_id = :assignment_id"
)


async def amend(
    tx: Transaction, replaced: ReportVersion, report: CallReport | None, effects: ReportEffects
) -> None:
    """Keep the version that is replaced, and write the report and its effects."""
    old = replaced.report
    await tx.execute(
        _INSERT,
        {
            "amendment_id": replaced.amendment_id,
            "assignment_id": replaced.assignment_id,
            "user_id": replaced.user_id,
            "actor_id": replaced.actor_id,
            "amended_at": replaced.amended_at,
            "reason": replaced.reason,
            **_report_values(old),
        },
    )
    values = {"assignment_id": replaced.assignment_id, **_report_values(report)}
    await tx.execute(_UPDATE_ATTEMPT, values)
    await tx.execute(
        _UPDATE_EFFECTS,
        {"assignment_id": replaced.assignment_id, "effects": effects_json(effects)},
    )


def _report_values(report: CallReport | None) -> dict[str, Any]:
    return {
        "outcome": report and report.outcome,
        "notes": "" if report is None else report.notes,
        "callback_at": report and report.callback_at,
        "disposition": report and report.disposition,
    }


_INSERT = statement(
    """
    INSERT INTO queue.amendments (amendment_id, assignment_id, user_id, actor_id, amended_at,
        reason, outcome, notes, callback_at, disposition)
    VALUES (:amendment_id, :assignment_id, :user_id, :actor_id, :amended_at,
        :reason, :outcome, :notes, :callback_at, :disposition)
    """
)
_UPDATE_ATTEMPT = statement(
    """
    UPDATE queue.attempts SET outcome = :outcome, notes = :notes, callback_at = :callback_at,
        disposition = :disposition
    WHERE assignment_id = :assignment_id
    """
)
_UPDATE_EFFECTS = statement(
    "UPDATE queue.assignments SET report_effects = CAST(:effects AS jsonb)"
    " WHERE assignment_id = :assignment_id"
)


async def credit_again(
    tx: Transaction,
    user_id: UserId,
    since: datetime,
    called_at: datetime,
    spoken: tuple[AgentId | None, datetime | None],
    credited_for: timedelta,
    conversations: Sequence[Outcome],
) -> None:
    """Credit conversions from a call on to the agent who had spoken with the person by then.

    Only those until the next conversation that an agent has reported.
    """
    agent_id, spoken_at = spoken
    await tx.execute(
        _CREDIT_AGAIN,
        {
            "user_id": user_id,
            "since": since,
            "called_at": called_at,
            "agent_id": agent_id,
            "spoken_at": spoken_at,
            "credited_for": credited_for,
            "conversations": [int(it) for it in conversations],
        },
    )


_CREDIT_AGAIN = statement(
    """
    UPDATE queue.conversions AS conversion SET agent_id = CASE
        WHEN CAST(:spoken_at AS timestamptz)
            > conversion.recorded_at - CAST(:credited_for AS interval)
        THEN CAST(:agent_id AS text) END
    WHERE conversion.user_id = :user_id AND conversion.recorded_at >= :since
        AND NOT EXISTS (SELECT FROM queue.attempts AS later
            LEFT JOIN queue.assignments AS held USING (assignment_id)
            WHERE later.user_id = :user_id AND later.ended_at > :called_at
                AND later.outcome = ANY(CAST(:conversations AS smallint[]))
                AND coalesce(held.started_at, later.ended_at) <= conversion.recorded_at)
    """
)


async def reported(
    tx: Transaction, agent_id: AgentId, since: datetime, until: datetime, limit: int
) -> list[tuple[UUID, UserId, Outcome, datetime]]:
    """Return calls that an agent has reported in a time, with effects that are kept, latest first.

    `until` is left out; nothing is locked.
    """
    values = {"agent_id": agent_id, "since": since, "until": until, "limit": limit}
    rows = (await tx.execute(_REPORTED, values)).all()
    return [(row[0], UserId(row[1]), Outcome(row[2]), row[3]) for row in rows]


_REPORTED = statement(
    """
    SELECT call.assignment_id, call.user_id, call.outcome, call.ended_at
    FROM queue.attempts AS call JOIN queue.assignments AS held USING (assignment_id)
    WHERE call.agent_id = :agent_id AND call.ended_at >= :since AND call.ended_at < :until
        AND call.outcome IS NOT NULL AND held.report_effects IS NOT NULL
    ORDER BY call.ended_at DESC, call.assignment_id DESC LIMIT :limit
    """
)


async def later_outcomes(tx: Transaction, user_id: UserId, after: datetime) -> list[Outcome]:
    """Return the outcomes of the person's calls after a moment."""
    rows = await tx.execute(_LATER_OUTCOMES, {"user_id": user_id, "after": after})
    return [Outcome(it) for it in rows.scalars()]


_LATER_OUTCOMES = statement(
    "SELECT DISTINCT outcome FROM queue.attempts"
    " WHERE user_id = :user_id AND ended_at > :after AND outcome IS NOT NULL"
)
