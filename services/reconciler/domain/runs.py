"""What a run is and how it advances."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

from services.reconciler.domain.drift import Difference

RunId = NewType("RunId", UUID)

MAX_FAILED_IDS = 20


class RunKind(StrEnum):
    """What a run looks at."""

    FULL = "FULL"
    CHANGED = "CHANGED"
    WARMING = "WARMING"
    HOUSEKEEPING = "HOUSEKEEPING"


class RunPhase(StrEnum):
    """What a run is doing."""

    UNSPECIFIED = "UNSPECIFIED"
    READING = "READING"
    COMPARING = "COMPARING"
    RECHECKING = "RECHECKING"
    REPAIRING = "REPAIRING"


class RunState(StrEnum):
    """How far a run is."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def is_ended(self) -> bool:
        """True for the states that nothing follows."""
        return self in {RunState.SUCCEEDED, RunState.FAILED}


@dataclass(slots=True)
class Figures:
    """What a run has done so far; `phase_done` of `phase_total` is how far its phase is.

    `failed_user_ids` are the first of those who could not be refreshed, or applied. `done` is what
    runs that compare nothing did, by name.
    """

    phase: RunPhase = RunPhase.UNSPECIFIED
    phase_done: int = 0
    phase_total: int = 0
    users_checked: int = 0
    users_refreshed: int = 0
    users_moved: int = 0
    users_drifted: int = 0
    users_unsettled: int = 0
    users_failed: int = 0
    failed_user_ids: list[int] = field(default_factory=list)
    rows_read: int = 0
    mysql_statements: int = 0
    mysql_seconds: float = 0.0
    drift: Counter[Difference] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)

    def enter(self, phase: RunPhase, total: int = 0) -> None:
        """Begin a phase of so many steps."""
        self.phase, self.phase_done, self.phase_total = phase, 0, total

    def begin_again(self) -> None:
        """Forget what an attempt that goes over the same people counts anew."""
        self.users_checked = self.users_unsettled = self.users_failed = 0
        self.failed_user_ids = []

    def count_failed(self, user_id: int) -> None:
        """Count somebody who could not be looked at."""
        self.users_failed += 1
        if len(self.failed_user_ids) < MAX_FAILED_IDS:
            self.failed_user_ids.append(user_id)


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as stored."""

    run_id: RunId
    kind: RunKind
    state: RunState
    reason: str
    requested_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    figures: Figures
    error: str


def verdict(figures: Figures) -> tuple[RunState, str]:
    """Return the end of a run that has looked at everybody, and its error text."""
    if not figures.users_failed:
        return RunState.SUCCEEDED, ""
    ids = ", ".join(map(str, figures.failed_user_ids))
    more = ", ..." if figures.users_failed > len(figures.failed_user_ids) else ""
    return RunState.FAILED, f"{figures.users_failed} people could not be looked at: {ids}{more}"


def retry_seconds(
    failures: int, first_seconds: float, longest_seconds: float, luck: float
) -> float:
    """Return the pause after so many failures in a row; `luck` in [0, 1) spreads it."""
    full = min(longest_seconds, first_seconds * 2.0 ** min(max(failures - 1, 0), 30))
    return full * (0.5 + luck / 2.0)
