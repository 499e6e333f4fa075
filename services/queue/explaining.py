"""Gathers all that is known of one person and has it explained."""

from datetime import datetime, timedelta

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import Unavailable
from services.queue import messages
from services.queue.domain.entries import Entry, Placement, phone_after
from services.queue.domain.explanation import (
    AgentView,
    Case,
    explain,
    is_callable,
    is_kept_since,
    summary,
)
from services.queue.domain.facts import UserFacts
from services.queue.domain.terms import AgentId, State, UserId
from services.queue.main_app import MainApp
from services.queue.rulebook import Rulebook
from services.queue.store import agents, assignments, claims, entries, reading, suppressions
from services.queue.store.agents import Agent
from services.queue.store.database import Database, Transaction


class Explaining:
    """Reads; changes nothing, whatever the main app says now."""

    def __init__(
        self, database: Database, rulebook: Rulebook, main_app: MainApp, clock: Clock
    ) -> None:
        self._database = database
        self._rulebook = rulebook
        self._main_app = main_app
        self._clock = clock

    async def explain(
        self, user_id: UserId, agent_id: AgentId | None
    ) -> queue_pb2.ExplainUserResponse:
        """Explain a person, for an agent if one is named.

        While the main app is away the facts last applied are used; raises Unavailable when there
        are none.
        """
        placement, now = self._rulebook.placement, self._clock.now()
        facts = await self._facts(user_id)
        async with self._database.statements() as tx:
            known = (await entries.read(tx, [user_id])).get(user_id)
            if known is None and facts is None:
                raise Unavailable("MAIN_APP_UNAVAILABLE", "nothing is known of the person")
            entry = await _as_of_now(tx, known, facts, placement, now)
            case = await self._case(tx, entry, facts, placement, agent_id, now)
            is_ready = entry.state in (State.READY, State.RESERVED)
            ahead = await reading.people_ahead(tx, entry) if is_ready else 0
        results = explain(case, placement)
        return queue_pb2.ExplainUserResponse(
            user_id=user_id,
            summary=summary(case, results),
            state=messages.state_number(entry.state),
            queue=messages.queue_number(entry.queue),
            is_callable_now=is_callable(results),
            is_live=facts is not None,
            rules=[
                queue_pb2.RuleResult(
                    rule=it.rule,
                    is_passed=it.is_passed,
                    inputs=it.inputs,
                    words=it.words,
                    what_would_change_it=it.what_would_change_it,
                )
                for it in results
            ],
            factors=[
                queue_pb2.ScoreFactor(factor=it.name, points=it.points, words=it.words)
                for it in placement.ranking.factors(entry, now)
            ],
            score=placement.score(entry, now),
            people_ahead=ahead,
        )

    async def _facts(self, user_id: UserId) -> UserFacts | None:
        try:
            return (await self._main_app.read([user_id])).get(user_id)
        except Unavailable:
            # Said in the answer: `is_live` is false.
            return None

    async def _case(
        self,
        tx: Transaction,
        entry: Entry,
        facts: UserFacts | None,
        placement: Placement,
        agent_id: AgentId | None,
        now: datetime,
    ) -> Case:
        period = timedelta(days=placement.rules.calls.period_days)
        preferred = entry.callback_agent_id
        preferred_agent = await agents.find(tx, preferred) if preferred is not None else None
        is_kept = is_kept_since(entry, placement, now)
        return Case(
            entry=entry,
            facts=facts,
            calls=await assignments.calls_since(tx, entry.user_id, now - period),
            is_phone_in_call=await claims.is_phone_in_call(tx, entry.user_id, entry.phone_e164),
            is_preferred_agent_present=is_kept and self._is_present(preferred_agent, now),
            now=now,
            agent=await self._agent(tx, agent_id) if agent_id is not None else None,
        )

    def _is_present(self, agent: Agent | None, now: datetime) -> bool:
        silence = timedelta(seconds=self._rulebook.rules.agents.presence_seconds)
        return (
            agent is not None and agent.presence.takes_calls and agent.last_seen_at > now - silence
        )

    async def _agent(self, tx: Transaction, agent_id: AgentId) -> AgentView:
        found = await agents.find(tx, agent_id)
        if found is None:
            return AgentView(agent_id, None, None, None)
        return AgentView(agent_id, found.presence, found.allowed_queues, found.skipped_user_id)


async def _as_of_now(
    tx: Transaction,
    known: Entry | None,
    facts: UserFacts | None,
    placement: Placement,
    now: datetime,
) -> Entry:
    """Return where the person would stand if these facts were applied now."""
    if facts is None:
        if known is None:
            raise ValueError("nothing is known of the person")
        return placement.placed(known, now)
    assessment = placement.assessor.assess(facts, now)
    phone = phone_after(known, assessment)
    standing = None
    if phone is not None:
        since = now - placement.shared_phone_rest
        standings = await suppressions.standings(tx, [(facts.user_id, phone)], since)
        standing = standings.get(facts.user_id)
    return placement.apply_facts(known, assessment, now, standing).after
