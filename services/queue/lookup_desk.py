"""What a desk looks up: people by number, the calls of one, and the rules it must know."""

from dialler.queue.v1 import queue_pb2

from servicekit.errors import InvalidArgument
from services.queue import messages
from services.queue.domain import pages
from services.queue.domain.phone_numbers import listed_number
from services.queue.domain.terms import Action, Outcome, Reason, UserId
from services.queue.rulebook import Rulebook, hash_of
from services.queue.rules import Rules
from services.queue.store import lookup
from services.queue.store.database import Database
from services.queue.store.lookup import Call


class LookupDesk:
    """Reads; changes nothing."""

    def __init__(self, database: Database, rulebook: Rulebook) -> None:
        self._database = database
        self._rulebook = rulebook

    async def by_phone(self, phone_e164: str, limit: int) -> queue_pb2.FindUsersByPhoneResponse:
        """Return who has the number; raises InvalidArgument (PHONE_NOT_VALID)."""
        if not phone_e164.startswith("+") or listed_number(phone_e164) != phone_e164:
            raise InvalidArgument("PHONE_NOT_VALID", "not a phone number in E.164")
        async with self._database.statements() as tx:
            found = await lookup.people_with_phone(tx, phone_e164, pages.page_size(limit))
        return queue_pb2.FindUsersByPhoneResponse(user_ids=found)

    async def calls(self, user_id: UserId, size: int, token: str) -> queue_pb2.ListCallsResponse:
        """Return a page of a person's calls; raises InvalidArgument (PAGE_TOKEN_INVALID)."""
        listed = ["calls", user_id]
        before = pages.read_moment(token, listed)
        limit = pages.page_size(size)
        async with self._database.statements() as tx:
            found = await lookup.calls(tx, user_id, before, limit + 1)
        shown = found[:limit]
        next_token = ""
        if len(found) > limit:
            next_token = pages.written_moment(shown[-1].ended_at, shown[-1].assignment_id, listed)
        return queue_pb2.ListCallsResponse(
            calls=[_call_message(it) for it in shown], next_page_token=next_token
        )

    def reference(self) -> queue_pb2.GetReferenceResponse:
        """Return the rules in force that a desk must know."""
        rules = self._rulebook.rules
        return queue_pb2.GetReferenceResponse(
            outcomes=[_outcome_rule(rules, outcome) for outcome in Outcome],
            rules_hash=hash_of(rules),
            reasons=list(Reason),
            actions=list(Action),
            callback_longest_days=rules.calls.callback_longest_days,
            notes_longest_characters=rules.calls.notes_longest_characters,
            attempts_per_day=rules.calls.attempts_per_day,
            attempts_per_period=rules.calls.attempts_per_period,
            period_days=rules.calls.period_days,
            lease_seconds=rules.assignment.lease_seconds,
            company_time_zone=rules.calls.company_time_zone,
        )


def _call_message(call: Call) -> queue_pb2.Call:
    return queue_pb2.Call(
        assignment_id=str(call.assignment_id),
        agent_id=call.agent_id,
        queue=messages.queue_number(call.queue),
        outcome=messages.outcome_number(call.outcome),
        ended_at=messages.timestamp(call.ended_at),
        callback_at=messages.timestamp(call.callback_at),
        notes=call.notes,
    )


def _outcome_rule(rules: Rules, outcome: Outcome) -> queue_pb2.OutcomeRule:
    rule = rules.outcomes[outcome]
    return queue_pb2.OutcomeRule(
        outcome=messages.outcome_number(outcome),
        sets_score=rule.score.set,
        adds_points=rule.score.add,
        next_call_hours=rule.next_call_hours,
        callback=queue_pb2.CallbackRule.Value(f"CALLBACK_RULE_{rule.callback.name}"),
        notes_required=rule.notes_required,
        stops_calls=rule.block is not None,
    )
