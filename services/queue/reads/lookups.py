"""What an agent looks up: users by phone number, the calls of one user, and the rules in force."""

from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Any

from dialler.queue.v1 import queue_pb2

from servicekit.errors import InvalidArgument
from servicekit.paging import cut_page
from servicekit.phone_numbers import possible_numbers_in
from services.queue.domain import pages
from services.queue.people.rulebook import Rulebook
from services.queue.rules import hash_of
from services.queue.store import call_events, history, person_phones, reading
from services.queue.store.database import Database
from services.queue.types import (
    Action,
    CallbackState,
    ContactBlock,
    Conversion,
    Outcome,
    Queue,
    Reason,
    UserId,
)
from services.queue.wire import messages

# Details of a person's history that are numbers of an enum.
_ENUMS: Mapping[str, type[IntEnum] | type[IntFlag]] = {
    "queue": Queue,
    "outcome": Outcome,
    "former_outcome": Outcome,
    "callback_state": CallbackState,
    "objection": ContactBlock,
    "conversion": Conversion,
}


def _words(name: str, value: Any) -> str:
    return str(_ENUMS[name](value).name).lower() if name in _ENUMS else str(value)


class Lookups:
    """Reads only."""

    def __init__(self, database: Database, rulebook: Rulebook) -> None:
        self._database = database
        self._rulebook = rulebook

    async def by_phone(self, phone_e164: str, limit: int) -> queue_pb2.FindUsersByPhoneResponse:
        """Return the users who have the number; raises InvalidArgument (PHONE_NOT_VALID)."""
        if possible_numbers_in(phone_e164) != (phone_e164,):
            raise InvalidArgument("PHONE_NOT_VALID", "not a phone number in E.164")
        async with self._database.statements() as tx:
            found = await person_phones.people_with(tx, phone_e164, pages.page_size(limit))
        return queue_pb2.FindUsersByPhoneResponse(user_ids=found)

    async def calls(self, user_id: UserId, size: int, token: str) -> queue_pb2.ListCallsResponse:
        """Return a page of a user's calls; raises InvalidArgument (PAGE_TOKEN_INVALID)."""
        filters = ["calls", user_id]
        before = pages.moment_from(token, filters)
        limit = pages.page_size(size)
        async with self._database.statements() as tx:
            found = await reading.calls(tx, user_id, before, limit + 1)
            events = await call_events.of_assignments(tx, [it.assignment_id for it in found])
        shown, next_token = cut_page(
            found,
            limit,
            lambda last: pages.moment_token(last.ended_at, last.assignment_id, filters),
        )
        return queue_pb2.ListCallsResponse(
            calls=[
                queue_pb2.Call(
                    assignment_id=str(it.assignment_id),
                    agent_id=it.agent_id,
                    queue=messages.queue_number(it.queue),
                    outcome=messages.outcome_number(it.outcome),
                    ended_at=messages.timestamp(it.ended_at),
                    callback_at=messages.timestamp(it.callback_at),
                    notes=it.notes,
                    disposition=it.disposition or "",
                    direction=messages.direction_number(it.direction),
                    events=map(messages.call_event_message, events[it.assignment_id]),
                )
                for it in shown
            ],
            next_page_token=next_token,
        )

    async def history(
        self, user_id: UserId, size: int, token: str
    ) -> queue_pb2.ListHistoryResponse:
        """Return a page of a user's history; raises InvalidArgument (PAGE_TOKEN_INVALID)."""
        filters = ["history", user_id]
        before = pages.moment_from(token, filters)
        limit = pages.page_size(size)
        async with self._database.statements() as tx:
            found = await history.page(tx, user_id, before, limit + 1)
        shown, next_token = cut_page(
            found, limit, lambda last: pages.moment_token(last.at, last.entry_id, filters)
        )
        return queue_pb2.ListHistoryResponse(
            entries=[
                queue_pb2.HistoryEntry(
                    at=messages.timestamp(it.at),
                    kind=queue_pb2.HistoryKind.Value(f"HISTORY_KIND_{it.kind.name}"),
                    actor_id=it.actor_id,
                    notes=it.notes,
                    details={name: _words(name, value) for name, value in it.details.items()},
                )
                for it in shown
            ],
            next_page_token=next_token,
        )

    def reference(self) -> queue_pb2.GetReferenceResponse:
        """Return the rules in force that the agent's screen needs."""
        rules = self._rulebook.rules
        return queue_pb2.GetReferenceResponse(
            outcomes=[
                queue_pb2.OutcomeRule(
                    outcome=messages.outcome_number(outcome),
                    sets_score=rule.score.set,
                    adds_points=rule.score.add,
                    next_call_hours=rule.next_call_hours,
                    callback=queue_pb2.CallbackRule.Value(f"CALLBACK_RULE_{rule.callback.name}"),
                    notes_required=rule.notes_required,
                    stops_calls=rule.block is not None,
                    is_conversation=rule.is_conversation,
                    holds_number=rule.holds_number,
                    until_phone_changes=rule.until_phone_changes,
                )
                for outcome, rule in ((it, rules.outcomes[it]) for it in Outcome)
            ],
            rules_hash=hash_of(rules),
            reasons=list(Reason),
            actions=list(Action),
            callback_longest_days=rules.calls.callback_longest_days,
            notes_longest_characters=rules.calls.notes_longest_characters,
            attempts_per_day=rules.calls.attempts_per_day,
            attempts_per_period=rules.calls.attempts_per_period,
            period_days=rules.calls.period_days,
            lease_seconds=rules.assignment.lease_seconds,
            amend_minutes=rules.assignment.amend_minutes,
            company_time_zone=rules.calls.company_time_zone,
            unreported_rest_minutes=rules.calls.unreported_rest_minutes,
            dispositions=[
                queue_pb2.Disposition(
                    code=it.code, label=it.label, outcome=messages.outcome_number(it.outcome)
                )
                for it in rules.dispositions
            ],
            agents_may_choose=rules.agents.may_choose,
        )
