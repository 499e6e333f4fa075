"""Telling drift from changes that are merely under way."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto

from servicekit.clock import Clock
from servicekit.errors import ServiceError
from services.reconciler.domain.drift import Difference, Look, is_suspect, lasting
from services.reconciler.domain.runs import RunPhase
from services.reconciler.looking import Looking
from services.reconciler.report import Report
from services.reconciler.upstreams import Upstreams

# Somebody who keeps changing is looked at so often; then they are refreshed and nobody is accused.
_ROUNDS = 3
_POLL_SECONDS = 0.5
# Each poll may reach another copy of the ingest.
_POLLS_THAT_AGREE = 3


class _Said(Enum):
    """What the ingest says of a moment; one that cannot be asked has nobody's word for it."""

    APPLIED = auto()
    BEHIND = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class Waits:
    """How long changes under way are waited for."""

    shortest_seconds: float
    longest_seconds: float


@dataclass(slots=True)
class Findings:
    """Who had drifted and how; `others` are refreshed all the same, without being accused."""

    drifted: dict[int, set[Difference]] = field(default_factory=dict)
    others: set[int] = field(default_factory=set)
    unsettled: int = 0

    def acquit(self) -> None:
        """Accuse nobody: it cannot be told whether changes are on their way."""
        self.others |= self.drifted.keys()
        self.unsettled += len(self.drifted)
        self.drifted = {}


class Rechecking:
    """Looks again once what was under way at the first look has arrived."""

    def __init__(
        self, upstreams: Upstreams, looking: Looking, report: Report, clock: Clock, waits: Waits
    ) -> None:
        self._upstreams = upstreams
        self._looking = looking
        self._report = report
        self._clock = clock
        self._waits = waits

    async def judge(self, suspects: Iterable[int]) -> Findings:
        """Return who had drifted, and who else needs to be refreshed."""
        await self._report.enter(RunPhase.RECHECKING, _ROUNDS)
        findings = Findings()
        looked_at = self._clock.now()
        looks = await self._suspect(suspects)
        for user_id in [it for it, look in looks.items() if not look.differences()]:
            del looks[user_id]
            findings.others.add(user_id)
        for _ in range(_ROUNDS):
            if not looks:
                break
            if not await self._has_arrived(looked_at):
                break
            looked_at = self._clock.now()
            looks = await self._judge_again(looks, findings)
            await self._report.step()
        findings.others |= looks.keys()
        findings.unsettled = len(looks)
        return findings

    async def _suspect(self, user_ids: Iterable[int]) -> dict[int, Look]:
        looks = await self._looking.look(user_ids)
        return {user_id: look for user_id, look in looks.items() if is_suspect(look)}

    async def _judge_again(self, before: dict[int, Look], findings: Findings) -> dict[int, Look]:
        """Note who had drifted; return those who still differ, but otherwise than before."""
        moving: dict[int, Look] = {}
        for user_id, look in (await self._suspect(before)).items():
            if drift := lasting(before[user_id], look):
                findings.drifted[user_id] = drift
            else:
                moving[user_id] = look
        return moving

    async def _has_arrived(self, looked_at: datetime) -> bool:
        """Return once what was committed before then should have been applied.

        False when it has been waited for as long as may be, and the ingest either says that it
        has not come so far, or does not answer. Where it cannot tell, the clock alone decides.
        """
        waits = self._waits
        await asyncio.sleep(waits.shortest_seconds)
        if not self._upstreams.is_watching:
            return True
        given_up_at = looked_at + timedelta(seconds=waits.longest_seconds)
        agreeing = 0
        while True:
            said = await self._said_of(looked_at)
            agreeing = agreeing + 1 if said is _Said.APPLIED else 0
            if agreeing >= _POLLS_THAT_AGREE:
                return True
            if self._clock.now() >= given_up_at:
                return said is not _Said.BEHIND
            await asyncio.sleep(_POLL_SECONDS if not agreeing else 0)

    async def _said_of(self, moment: datetime) -> _Said:
        try:
            pipeline = await self._upstreams.pipeline()
        except ServiceError:
            return _Said.BEHIND
        if pipeline is None or pipeline.applied_through is None:
            return _Said.NOTHING
        return _Said.APPLIED if pipeline.applied_through >= moment else _Said.BEHIND
