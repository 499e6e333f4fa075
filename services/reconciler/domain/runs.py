"""What a run is and how it advances."""

from collections import Counter
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType
from uuid import UUID

from services.reconciler.domain.drift import Difference

RunId = NewType("RunId", UUID)

MAX_FAILED_IDS = 20


class RunKind(StrEnum):
    """What a run compares or does."""

    FULL = "FULL"
    CHANGED = "CHANGED"
    WARMING = "WARMING"
    HOUSEKEEPING = "HOUSEKEEPING"

    @property
    def compares(self) -> bool:
        """True for the kinds that compare users with the main app."""
        return self in {RunKind.FULL, RunKind.CHANGED}


class RunPhase(StrEnum):
    """What a run is doing."""

    UNSPECIFIED = "UNSPECIFIED"
    READING = "READING"
    COMPARING = "COMPARING"
    RECHECKING = "RECHECKING"
    REPAIRING = "REPAIRING"
    FILLING = "FILLING"


class RunState(StrEnum):
    """The state of a run."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def is_ended(self) -> bool:
        """True for the final states."""
        return self in {RunState.SUCCEEDED, RunState.FAILED}


@dataclass(slots=True)
class RunFigures:
    """What a run has done so far; `phase_done` of `phase_total` is the progress of its phase.

    `failed_user_ids` are the first users who could not be refreshed or applied. `users_withheld`
    users are gone from the main app and stay as they are, because they are implausibly many. `done`
    counts what runs without a comparison did, by name.
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
    users_withheld: int = 0
    failed_user_ids: list[int] = field(default_factory=list)
    rows_read: int = 0
    mysql_statements: int = 0
    mysql_seconds: float = 0.0
    drift: Counter[Difference] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)

    def enter(self, phase: RunPhase, total: int = 0) -> None:
        """Begin a phase of `total` steps."""
        self.phase, self.phase_done, self.phase_total = phase, 0, total

    def begin_again(self) -> None:
        """Reset the counts that a new attempt at the same run counts again."""
        self.users_checked = self.users_unsettled = self.users_failed = self.users_withheld = 0
        self.failed_user_ids = []

    def count_failed(self, user_id: int) -> None:
        """Count a user who could not be refreshed."""
        self.users_failed += 1
        if len(self.failed_user_ids) < MAX_FAILED_IDS:
            self.failed_user_ids.append(user_id)


# The names of the figures that are plain numbers.
COUNTS: Final = tuple(it.name for it in fields(RunFigures) if it.type in {int, float})


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as stored; `allow_gone` lets any number of users count as gone."""

    run_id: RunId
    kind: RunKind
    state: RunState
    reason: str
    requested_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    figures: RunFigures
    error: str
    allow_gone: bool = False


def verdict(figures: RunFigures) -> tuple[RunState, str]:
    """Return the final state of a run that has done everything, and its error text."""
    if not figures.users_failed:
        return RunState.SUCCEEDED, ""
    ids = ", ".join(map(str, figures.failed_user_ids))
    more = ", ..." if figures.users_failed > len(figures.failed_user_ids) else ""
    return RunState.FAILED, f"{figures.users_failed} people could not be looked at: {ids}{more}"
