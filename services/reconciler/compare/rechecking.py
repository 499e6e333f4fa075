"""Tells drift from changes that are still in flight."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto

from servicekit.errors import ServiceError
from services.reconciler.compare.snapshots import SnapshotReader
from services.reconciler.domain.drift import (
    Difference,
    UserSnapshot,
    lasting_differences,
    needs_recheck,
)
from services.reconciler.domain.runs import RunPhase
from services.reconciler.run_context import RunContext

# A user who keeps changing is rechecked this often, then refreshed without a drift report.
_ROUNDS = 3
_POLL_SECONDS = 0.5
# Each poll reaches another replica of the ingest, of which there are no more than this.
_POLLS_THAT_AGREE = 6


class _WatermarkState(Enum):
    """How the ingest's watermark compares with a moment; UNKNOWN when the ingest has none."""

    APPLIED = auto()
    BEHIND = auto()
    UNKNOWN = auto()


@dataclass(slots=True)
class Findings:
    """The drifted users and their differences; `others` are refreshed without a drift report.

    The last read of `gone` found no row in the main app.
    """

    drifted: dict[int, set[Difference]] = field(default_factory=dict)
    others: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    unsettled: int = 0

    def discard_drift(self) -> None:
        """Report no drift: it is not known whether changes are still in flight."""
        self.others |= self.drifted.keys()
        self.unsettled += len(self.drifted)
        self.drifted = {}


class Rechecking:
    """Reads candidates again once the changes in flight at the first read have arrived."""

    def __init__(
        self, context: RunContext, *, shortest_seconds: float, longest_seconds: float
    ) -> None:
        self._context = context
        self._snapshots = SnapshotReader(context)
        self._shortest_seconds = shortest_seconds
        self._longest_seconds = longest_seconds

    async def recheck(self, candidates: Iterable[int]) -> Findings:
        """Return which candidates have drifted, and which others need a refresh."""
        report, clock = self._context.report, self._context.clock
        await report.enter(RunPhase.RECHECKING, _ROUNDS)
        findings = Findings()
        read_at = clock.now()
        before = await self._read(candidates, findings)
        findings.others = {it for it, found in before.items() if not found.differences()}
        before = {it: found for it, found in before.items() if it not in findings.others}
        for _ in range(_ROUNDS):
            if not before or not await self._is_applied(read_at):
                break
            read_at = clock.now()
            moving: dict[int, UserSnapshot] = {}
            for user_id, found in (await self._read(before, findings)).items():
                if drift := lasting_differences(before[user_id], found):
                    findings.drifted[user_id] = drift
                else:
                    moving[user_id] = found
            before = moving
            await report.step()
        findings.others |= before.keys()
        findings.unsettled = len(before)
        return findings

    async def _read(self, user_ids: Iterable[int], findings: Findings) -> dict[int, UserSnapshot]:
        """Return the snapshots that still need a recheck or a refresh."""
        found = await self._snapshots.read(user_ids)
        findings.gone -= found.keys()
        findings.gone |= {user_id for user_id, each in found.items() if each.rows is None}
        return {user_id: each for user_id, each in found.items() if needs_recheck(each)}

    async def _is_applied(self, read_at: datetime) -> bool:
        """Return once every change committed before `read_at` should have been applied.

        False after the longest wait, if the ingest is then behind that moment or does not answer.
        An ingest without a watermark leaves the decision to the clock.
        """
        await asyncio.sleep(self._shortest_seconds)
        if not self._context.upstreams.is_watching:
            return True
        given_up_at = read_at + timedelta(seconds=self._longest_seconds)
        agreeing = 0
        while True:
            state = _WatermarkState.UNKNOWN
            try:
                status = await self._context.upstreams.ingest_status()
            except ServiceError:
                state = _WatermarkState.BEHIND
            else:
                if status is not None and status.applied_through is not None:
                    is_applied = status.applied_through >= read_at
                    state = _WatermarkState.APPLIED if is_applied else _WatermarkState.BEHIND
            agreeing = agreeing + 1 if state is _WatermarkState.APPLIED else 0
            if agreeing >= _POLLS_THAT_AGREE:
                return True
            if self._context.clock.now() >= given_up_at:
                return state is not _WatermarkState.BEHIND
            await asyncio.sleep(_POLL_SECONDS if not agreeing else 0)
