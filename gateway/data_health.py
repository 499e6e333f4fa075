"""In one line: is the data fresh, and if not, why not."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from gateway.reconciliations import Freshness, FreshnessMode

if TYPE_CHECKING:
    from gateway.pipeline import Ingest

# Changes take a second or so; a capture that is heard this long before it is applied is behind.
LATE = timedelta(seconds=30)


class DataHealth(BaseModel):
    """Whether what desks see is what the main app has."""

    fresh: bool = Field(description="True while changes are applied as they happen.")
    summary: str = Field(description="One line for people: whether data is fresh, and why not.")


def data_health(
    ingest: "Ingest | None", freshness: Freshness | None, unavailable: dict[str, str]
) -> DataHealth:
    """Return the verdict; claims stay right whatever it is, each is checked against MySQL."""
    why_not = _why_not(ingest, freshness, unavailable)
    if why_not is not None:
        return DataHealth(fresh=False, summary=why_not)
    through = f" up to {ingest.applied_through}" if ingest and ingest.applied_through else ""
    return DataHealth(fresh=True, summary=f"Fresh: changes of the main app are applied{through}.")


def _why_not(
    ingest: "Ingest | None", freshness: Freshness | None, unavailable: dict[str, str]
) -> str | None:
    if freshness is None:
        reason = unavailable.get("freshness", "UNKNOWN")
        return f"Unknown: the reconciler cannot be asked ({reason})."
    if freshness.mode is FreshnessMode.BATCH:
        return (
            f"Batch: change capture is away ({freshness.reason}) since {freshness.since}; "
            f"everybody was last compared at {freshness.verified_at or 'no time yet'}."
        )
    if ingest is None:
        reason = unavailable.get("ingest", "UNKNOWN")
        return f"Unknown: the ingest cannot be asked ({reason})."
    if ingest.downstream_away:
        return "Late: user_context or queue cannot be reached; changes wait in SQS."
    if ingest.dead_letter_alarm or ingest.paused:
        return "Late: the ingest is paused; changes wait in SQS."
    alive, through = _moment(ingest.capture_alive_at), _moment(ingest.applied_through)
    if alive is not None and through is not None and alive - through > LATE:
        return (
            f"Late: changes are applied up to {ingest.applied_through}, {ingest.backlog_messages} "
            "messages wait."
        )
    return None


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
