"""Whether changes arrive by themselves, or runs have to stand in."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class FreshnessMode(StrEnum):
    """Where the suite's freshness comes from."""

    CHANGE_CAPTURE = "CHANGE_CAPTURE"
    BATCH = "BATCH"


class CaptureSwitch(StrEnum):
    """What the operator says of change capture."""

    AUTO = "auto"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Freshness:
    """The mode, since when, and why when it is not change capture, UPPER_SNAKE."""

    mode: FreshnessMode
    since: datetime
    reason: str = ""
    capture_alive_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a copy of the ingest says of itself.

    Everything it received of what was committed before `applied_through` has been applied.
    """

    capture_alive_at: datetime | None
    applied_through: datetime | None
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class Signs:
    """What is known of change capture: how the switch stands, and what the ingest said last.

    `watched_since` is when the ingest was first asked by whoever judges now; `None` for
    `pipeline` when it could not be asked.
    """

    switch: CaptureSwitch
    is_watched: bool
    watched_since: datetime
    pipeline: Pipeline | None
    capture_alive_at: datetime | None


def judged(before: Freshness, signs: Signs, now: datetime, silence: timedelta) -> Freshness:
    """Return the freshness from now on; the same mode and reason keep their beginning.

    Capture that cannot be watched is taken to work. Silence counts from the last sign of life, or
    from when we began to listen; being paused counts at once, since nothing is applied meanwhile.
    """
    mode, reason = FreshnessMode.BATCH, ""
    alive_at = signs.capture_alive_at or before.capture_alive_at
    is_silent = now - max(signs.watched_since, alive_at or signs.watched_since) > silence
    if signs.switch is CaptureSwitch.OFF:
        reason = "CAPTURE_OFF"
    elif signs.is_watched and signs.pipeline is not None and signs.pipeline.is_paused:
        reason = "INGEST_PAUSED"
    elif signs.is_watched and is_silent:
        reason = "INGEST_UNREACHABLE" if signs.pipeline is None else "CAPTURE_SILENT"
    elif signs.is_watched and _is_waiting(before, alive_at):
        # Having just begun to listen is no sign that capture works.
        reason = before.reason
    else:
        mode = FreshnessMode.CHANGE_CAPTURE
    if (mode, reason) == (before.mode, before.reason):
        return Freshness(mode, before.since, reason, alive_at)
    return Freshness(mode, now, reason, alive_at)


def _is_waiting(before: Freshness, alive_at: datetime | None) -> bool:
    """Return whether there has been no sign of life since the batch runs began to stand in."""
    is_batch = before.mode is FreshnessMode.BATCH
    return is_batch and (alive_at is None or alive_at <= before.since)
