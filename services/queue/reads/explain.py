"""Explains why one user is called or not: gathers what is known and applies every rule."""

from datetime import datetime, timedelta

from dialler.queue.v1 import queue_pb2

from servicekit.clock import Clock
from servicekit.errors import FailedPrecondition, ServiceError, Unavailable
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.explanation import (
    AgentView,
    Subject,
    explain,
    is_callable,
    summary,
)
from services.queue.domain.facts import UserFacts
from services.queue.people.placing import contact_statuses
from services.queue.people.rulebook import Rulebook
from services.queue.people.user_context_client import UserContextClient
from services.queue.store import agents, assignments, contact_status, entries, pauses, reading
from services.queue.store.database import Database, Transaction
from services.queue.types import AgentId, State, UserId
from services.queue.wire import messages


class Explanations:
    """Reads only, also where the main app's facts of now differ from those applied."""

    def __init__(
        self, database: Database, rulebook: Rulebook, user_context: UserContextClient, clock: Clock
    ) -> None:
        self._database = database
        self._rulebook = rulebook
        self._user_context = user_context
        self._clock = clock

    async def explain(
        self, user_id: UserId, agent_id: AgentId | None
    ) -> queue_pb2.ExplainUserResponse:
        """Explain a user, for an agent if one is named.

        When the user cannot be read, whatever the reason, the facts last applied are used. When
        there are none, raises Unavailable (MAIN_APP_UNAVAILABLE) while the main app is unavailable,
        else FailedPrecondition (USER_UNREADABLE).
        """
        placement, now = self._rulebook.placement, self._clock.now()
        facts: UserFacts | None = None
        cause: ServiceError | None = None
        try:
            facts = (await self._user_context.read([user_id])).get(user_id)
        except ServiceError as error:
            # The answer shows it: `is_live` is false.
            cause = error
        async with self._database.statements() as tx:
            known = (await entries.read(tx, [user_id])).get(user_id)
            if facts is not None:
                # Where the user would be if these facts were applied now.
                assessment = placement.assessor.assess(facts, now)
                since = now - placement.calls_kept
                statuses = await contact_status.statuses(tx, [(user_id, assessment.phones)], since)
                entry = placement.apply_facts(known, assessment, now, statuses[user_id]).after
            elif known is not None:
                entry = placement.placed(known, now)
            else:
                raise _nothing_known(cause)
            subject = await self._subject(tx, entry, facts, placement, agent_id, now)
            is_ready = entry.state in (State.READY, State.RESERVED)
            ahead = await reading.people_ahead(tx, entry) if is_ready else 0
            longer = await reading.people_ready_longer(tx, entry) if is_ready else 0
        results = explain(subject, placement)
        return queue_pb2.ExplainUserResponse(
            user_id=user_id,
            summary=summary(subject, results),
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
            people_ready_longer=longer,
            longest_waiting_one_in=placement.rules.assignment.longest_waiting_one_in,
        )

    async def _subject(
        self,
        tx: Transaction,
        entry: Entry,
        facts: UserFacts | None,
        placement: Placement,
        agent_id: AgentId | None,
        now: datetime,
    ) -> Subject:
        preferred = None
        if entry.callback_agent_id is not None:
            preferred = await agents.find(tx, entry.callback_agent_id)
        holder = await assignments.holder_of(tx, entry.user_id, entry.lines)
        silence = timedelta(seconds=self._rulebook.rules.agents.presence_seconds)
        agent = None
        if agent_id is not None:
            found = await agents.find(tx, agent_id)
            agent = AgentView(agent_id, None, None, None)
            if found is not None:
                agent = AgentView(
                    agent_id, found.presence, found.allowed_queues, found.skipped_user_id
                )
        return Subject(
            entry=entry,
            facts=facts,
            status=(await contact_statuses(tx, [entry], placement, now))[entry.user_id],
            are_lines_in_call=holder is not None,
            is_preferred_agent_present=preferred is not None
            and preferred.presence.takes_calls
            and preferred.last_seen_at > now - silence,
            now=now,
            agent=agent,
            pauses=await pauses.in_force(tx, now),
        )


def _nothing_known(error: ServiceError | None) -> ServiceError:
    if isinstance(error, Unavailable):
        return Unavailable(
            "MAIN_APP_UNAVAILABLE",
            "the main app cannot be asked, and nothing is known here of the person",
            retry_after_seconds=error.retry_after_seconds,
            cause=error.metadata.get("cause", error.reason),
        )
    return FailedPrecondition(
        "USER_UNREADABLE",
        "the person cannot be read from the main app, and nothing is known here of them",
        cause=error.reason if error is not None else "NO_ANSWER",
    )
