"""The rules in force: read at the start, and anew when their file changes."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from servicekit.clock import Clock
from servicekit.errors import ServiceError, Unavailable
from services.queue import metrics
from services.queue.domain.entries import Placement
from services.queue.domain.pauses import QueuePause
from services.queue.domain.ranking import Ranking, continued
from services.queue.domain.rules import Rules
from services.queue.people.time_zones import MissingZones
from services.queue.rules import DEFAULT_PATH, hash_of, parse_rules
from services.queue.store import pauses, rule_editions
from services.queue.store.database import Database
from services.queue.store.rule_editions import RuleEdition

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RulesReading:
    """Whether the rules changed."""

    is_changed: bool


class Rulebook:
    """Holds the rules in force; a part that is started and stopped.

    A caller takes `placement` once for each piece of work, so that one piece never mixes two
    editions. A file that is not valid changes nothing, is logged once and counted.
    """

    def __init__(self, path: Path | None, database: Database, clock: Clock) -> None:
        """Raises OSError when the file cannot be read and ValueError when it is not valid."""
        self._path = path or DEFAULT_PATH
        self._database = database
        self._clock = clock
        self._text = self._path.read_text(encoding="utf-8")
        self._refused: str | None = None
        self._rules = parse_rules(self._text)
        self._placement: Placement | None = None
        self._changed: list[Callable[[], None]] = []
        self._missing_zones = MissingZones()

    @property
    def rules(self) -> Rules:
        """The rules as last read."""
        return self._rules

    @property
    def placement(self) -> Placement:
        """The rules in force; raises Unavailable until their offset is read from PostgreSQL."""
        if self._placement is None:
            raise Unavailable("RULES_NOT_READY", "the rules are not in force yet")
        return self._placement

    def on_change(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever other rules are in force."""
        self._changed.append(changed)

    async def start(self) -> None:
        """Put the rules into force if PostgreSQL answers; else `run_once` does so."""
        try:
            self._placement = await self._in_force(self._rules)
        except ServiceError as error:
            _log.warning("rules_not_in_force", extra={"error": str(error)})

    async def stop(self) -> None:
        """Do nothing."""

    async def run_once(self, now: datetime) -> RulesReading:
        """Read the file again and put it into force if it has changed and is valid."""
        if self._placement is None:
            self._placement = await self._in_force(self._rules)
        await self.read_pauses(now)
        text = await asyncio.to_thread(self._path.read_text, encoding="utf-8")
        if text in (self._text, self._refused):
            return RulesReading(is_changed=False)
        try:
            rules = parse_rules(text)
        except ValueError as error:
            self._refused = text
            metrics.RULES.labels("refused").inc()
            _log.error("rules_refused", extra={"error": str(error)})
            return RulesReading(is_changed=False)
        self._placement = await self._in_force(rules)
        self._rules, self._text, self._refused = rules, text, None
        metrics.RULES.labels("in_force").inc()
        _log.info("rules_in_force")
        for changed in self._changed:
            changed()
        return RulesReading(is_changed=True)

    async def read_pauses(self, now: datetime) -> None:
        """Read the pauses, by which callbacks are agreed; claims read them by themselves."""
        async with self._database.statements() as tx:
            found = await pauses.not_over(tx, now)
        if self._placement is not None and self._placement.pauses != found:
            placement = self._placement
            self._placement = self._placed_by(placement.rules, placement.ranking.offset, found)

    async def _in_force(self, rules: Rules) -> Placement:
        now, rules_hash = self._clock.now(), hash_of(rules)
        rate = Ranking(rules.score).points_per_week
        async with self._database.transaction() as tx:
            await rule_editions.guard(tx)
            edition = await rule_editions.latest(tx)
            if edition is None:
                # No person has been placed by any other rules.
                edition = RuleEdition(rules_hash, rate, 0.0, is_applied=True)
                await rule_editions.begin(tx, edition, now)
            elif edition.rules_hash != rules_hash:
                offset = continued(edition.rank_offset, edition.points_per_week, rate, now)
                edition = RuleEdition(rules_hash, rate, offset, is_applied=False)
                await rule_editions.begin(tx, edition, now)
            found = await pauses.not_over(tx, now)
        return self._placed_by(rules, edition.rank_offset, found)

    def _placed_by(
        self, rules: Rules, rank_offset: float, found: Sequence[QueuePause]
    ) -> Placement:
        return Placement(rules, rank_offset, self._missing_zones.note, found)
