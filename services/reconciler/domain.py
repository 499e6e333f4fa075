"""What a run is and how it advances."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

RunId = NewType("RunId", UUID)

MAX_FAILED_IDS = 20


class RunKind(StrEnum):
    """What a run looks at."""

    FULL = "FULL"


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


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come: everybody up to and including `last_user_id` has been looked at.

    `failed_user_ids` are the first of those who could not be refreshed, or applied.
    """

    users_checked: int = 0
    users_moved: int = 0
    users_failed: int = 0
    failed_user_ids: tuple[int, ...] = ()
    last_user_id: int = 0
    max_user_id: int = 0

    def after(self, page: "Page", result: "PageResult") -> "Progress":
        """Return the progress once a page, the next in order, is done."""
        failed = (*self.failed_user_ids, *result.failed_user_ids)[:MAX_FAILED_IDS]
        return Progress(
            users_checked=self.users_checked + len(page.user_ids),
            users_moved=self.users_moved + result.users_moved,
            users_failed=self.users_failed + len(result.failed_user_ids),
            failed_user_ids=failed,
            last_user_id=page.user_ids[-1],
            max_user_id=max(self.max_user_id, page.max_user_id),
        )


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
    progress: Progress
    error: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the main app's people, in rising order."""

    user_ids: Sequence[int]
    max_user_id: int


@dataclass(frozen=True, slots=True)
class PageResult:
    """What came of a page, or of a part of it."""

    users_moved: int = 0
    failed_user_ids: tuple[int, ...] = ()

    def __add__(self, other: "PageResult") -> "PageResult":
        return PageResult(
            self.users_moved + other.users_moved, self.failed_user_ids + other.failed_user_ids
        )


def verdict(progress: Progress) -> tuple[RunState, str]:
    """Return the end of a run that has looked at everybody, and its error text."""
    if not progress.users_failed:
        return RunState.SUCCEEDED, ""
    ids = ", ".join(map(str, progress.failed_user_ids))
    more = ", ..." if progress.users_failed > len(progress.failed_user_ids) else ""
    return RunState.FAILED, f"{progress.users_failed} people could not be looked at: {ids}{more}"


def retry_seconds(
    failures: int, first_seconds: float, longest_seconds: float, luck: float
) -> float:
    """Return the pause after so many failures in a row; `luck` in [0, 1) spreads it."""
    full = min(longest_seconds, first_seconds * 2.0 ** min(max(failures - 1, 0), 30))
    return full * (0.5 + luck / 2.0)
