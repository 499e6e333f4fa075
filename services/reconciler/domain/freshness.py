"""Whether changes arrive by change capture, or full runs replace it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class FreshnessMode(StrEnum):
    """Where the suite's freshness comes from."""

    CHANGE_CAPTURE = "CHANGE_CAPTURE"
    BATCH = "BATCH"


class CaptureSwitch(StrEnum):
    """The operator's setting for change capture."""

    AUTO = "auto"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Freshness:
    """The mode and since when it holds; `reason` says in UPPER_SNAKE why it is BATCH."""

    mode: FreshnessMode
    since: datetime
    reason: str = ""
    capture_alive_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class IngestStatus:
    """The status of one replica of the ingest.

    It has applied everything it received that was committed before `applied_through`.
    """

    capture_alive_at: datetime | None
    applied_through: datetime | None
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class CaptureSigns:
    """The signs of change capture: the operator's switch, and the ingest's last answer.

    `watched_since` is when this replica first asked the ingest; `status` is None when the ingest
    could not be asked.
    """

    switch: CaptureSwitch
    is_watched: bool
    watched_since: datetime
    status: IngestStatus | None
    capture_alive_at: datetime | None


def next_freshness(
    before: Freshness, signs: CaptureSigns, now: datetime, silence: timedelta
) -> Freshness:
    """Return the freshness from now on; the same mode and reason keep their beginning.

    Capture that is not watched is taken to work. Silence counts from the last sign of life, or from
    when watching began. A pause counts at once, since nothing is applied meanwhile.
    """
    mode, reason = FreshnessMode.BATCH, ""
    # A sign from the far future is ignored: it would hide silence until its time has come.
    known = (signs.capture_alive_at, before.capture_alive_at)
    alive_at = next((at for at in known if at is not None and at <= now + silence), None)
    is_silent = now - max(signs.watched_since, alive_at or signs.watched_since) > silence
    is_batch_since_the_last_sign = before.mode is FreshnessMode.BATCH and (
        alive_at is None or alive_at <= before.since
    )
    if signs.switch is CaptureSwitch.OFF:
        reason = "CAPTURE_OFF"
    elif signs.is_watched and signs.status is not None and signs.status.is_paused:
        reason = "INGEST_PAUSED"
    elif signs.is_watched and is_silent:
        reason = "INGEST_UNREACHABLE" if signs.status is None else "CAPTURE_SILENT"
    elif signs.is_watched and is_batch_since_the_last_sign:
        # That watching has only begun is no sign that capture works.
        reason = before.reason
    else:
        mode = FreshnessMode.CHANGE_CAPTURE
    if (mode, reason) == (before.mode, before.reason):
        return Freshness(mode, before.since, reason, alive_at)
    return Freshness(mode, now, reason, alive_at)
