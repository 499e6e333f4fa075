"""The table of outcomes: score, next call, effect; and what no agent may report."""

from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from servicekit.errors import InvalidArgument
from services.queue.domain.entries import Entry, Placement
from services.queue.domain.facts import ClaimFacts, UserFacts
from services.queue.domain.outcomes import CallReport, applied, check, outcome_of, skipped
from services.queue.rules import DispositionSection
from services.queue.types import AgentId, Outcome, Queue, Reason, State, UserId
from tests.fakes.clock import FakeClock
from tests.fakes.rules import load_rules

PLACEMENT = Placement(load_rules())
NOW = FakeClock().now()
AGENT = AgentId("agent")


def _held(score: float = 0.0) -> Entry:
    facts = UserFacts(
        UserId(7),
        True,
        1,
        is_enabled=True,
        claims=(ClaimFacts(None, NOW - timedelta(days=9)),),
        created_at=NOW - timedelta(days=9),
        phones=("+447700900007",),
    )
    entry = _apply(None, facts, NOW)
    return entry._replace(state=State.ASSIGNED, agent_id=AGENT, outcome_points=score)


def _apply(before: Entry | None, facts: UserFacts, now: datetime) -> Entry:
    return PLACEMENT.apply_facts(before, PLACEMENT.assessor.assess(facts, now), now).after


def _applied(report: CallReport, entry: Entry) -> Entry:
    """Where the person stands after the call, with the callback it has made."""
    after = applied(report, entry, AGENT, None, PLACEMENT, NOW, is_counted=False)
    held = after.entry
    if after.new_callback is not None:
        held = held._replace(
            callback_id=UUID(int=1),
            callback_at=after.new_callback.scheduled_for,
            callback_agent_id=after.new_callback.preferred_agent_id,
        )
    return PLACEMENT.settled(held, NOW)


_NOT_SPOKEN = (
    Outcome.NO_ANSWER,
    Outcome.MISSED_CALL,
    Outcome.BAD_NUMBER,
    Outcome.VOICEMAIL_LEFT,
    Outcome.VOICEMAIL_NOT_LEFT,
    Outcome.WRONG_PERSON,
    Outcome.DECEASED,
    Outcome.LANGUAGE_BARRIER,
)


# The domain's own table: score before 10, hours to the next call (None: at once), then the state.
@pytest.mark.parametrize(
    ("outcome", "score", "hours", "state"),
    [
        (Outcome.COMPLETED_FORM, 0, 1, State.WAITING),
        (Outcome.GOING_TO_COMPLETE, 0, 72, State.WAITING),
        (Outcome.MIGHT_COMPLETE, 12, 24, State.WAITING),
        (Outcome.CALL_BACK, 0, 24, State.WAITING),
        (Outcome.NO_ANSWER, 11, 4, State.WAITING),
        (Outcome.MISSED_CALL, 0, 0, State.READY),
        (Outcome.HUNG_UP, 12, 4, State.WAITING),
        (Outcome.BAD_NUMBER, 60, 28 * 24, State.WAITING),
        (Outcome.NO_CLAIM, 210, None, State.OUT),
        (Outcome.NOT_INTERESTED, 110, 28 * 24, State.WAITING),
        (Outcome.DO_NOT_CONTACT, 210, None, State.SUPPRESSED),
        (Outcome.VOICEMAIL_LEFT, 11, 24, State.WAITING),
        (Outcome.VOICEMAIL_NOT_LEFT, 11, 4, State.WAITING),
        (Outcome.WRONG_PERSON, 60, 28 * 24, State.WAITING),
        (Outcome.DECEASED, 210, None, State.SUPPRESSED),
        (Outcome.LANGUAGE_BARRIER, 12, 72, State.WAITING),
    ],
)
def test_every_outcome_of_the_table(
    outcome: Outcome, score: float, hours: int | None, state: State
) -> None:
    after = _applied(CallReport(outcome, "asked us to"), _held(10))
    assert PLACEMENT.score(after, NOW) == score
    assert after.due_at == (None if hours is None else NOW + timedelta(hours=hours))
    assert after.state is state
    spoke = outcome not in _NOT_SPOKEN
    agent_id = AGENT if spoke else None
    assert (after.attempts, after.last_outcome, after.last_agent_id) == (1, outcome, agent_id)
    assert (after.last_contact_at, after.agent_id) == (NOW, None)
    out = state in (State.OUT, State.SUPPRESSED)
    # The person rang us: an immediate callback.
    is_due = outcome is Outcome.MISSED_CALL
    expected = Queue.CALLBACKS if is_due else Queue.UNSIGNED_USERS
    assert after.queue is (None if out else expected)


def test_what_ends_calls_is_not_undone_by_facts() -> None:
    for outcome, reason in (
        (Outcome.NO_CLAIM, Reason.NO_CLAIM_REPORTED),
        (Outcome.DO_NOT_CONTACT, Reason.DO_NOT_CONTACT),
        (Outcome.DECEASED, Reason.DECEASED),
    ):
        after = _applied(CallReport(outcome, "notes"), _held())
        facts = UserFacts(
            UserId(7), True, 2, is_enabled=True, has_signature=False, claims=(ClaimFacts(None),)
        )
        later = _apply(after, facts, NOW + timedelta(days=99))
        assert (later.queue, later.reason) == (None, reason)


def test_attempts_add_points_from_the_sixth_and_more_from_the_eleventh() -> None:
    entry = _held()
    scores = []
    for _ in range(12):
        entry = _applied(CallReport(Outcome.NO_ANSWER), entry)
        scores.append(PLACEMENT.score(entry, NOW))
    # Each call adds 1 for no answer; see the rules for the rest.
    assert scores == [1, 2, 3, 4, 5, 7, 9, 11, 13, 15, 19, 23]


def test_a_score_that_is_set_is_exactly_that_whatever_the_attempts() -> None:
    entry = _held(80)._replace(attempts_in_case=14, attempts=14)
    after = _applied(CallReport(Outcome.GOING_TO_COMPLETE), entry)
    assert PLACEMENT.score(after, NOW) == 0.0


def test_a_score_at_the_limit_freezes() -> None:
    after = _applied(CallReport(Outcome.NOT_INTERESTED), _held(100))
    assert (after.state, after.reason, after.queue) == (State.OUT, Reason.FROZEN, None)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome.CALL_BACK,
        Outcome.GOING_TO_COMPLETE,
        Outcome.MIGHT_COMPLETE,
        Outcome.LANGUAGE_BARRIER,
    ],
)
def test_a_time_the_person_gave_replaces_the_default(outcome: Outcome) -> None:
    at = NOW + timedelta(hours=30)
    report = CallReport(outcome, callback_at=at)
    check(report, PLACEMENT, PLACEMENT.calling_hours.open_at, NOW)
    assert _applied(report, _held()).due_at == at


@pytest.mark.parametrize(
    ("outcome", "notes", "callback_at", "reason"),
    [
        (Outcome.DO_NOT_CONTACT, "", None, "NOTES_REQUIRED"),
        (Outcome.DECEASED, "", None, "NOTES_REQUIRED"),
        (Outcome.DO_NOT_CONTACT, "  \n", None, "NOTES_REQUIRED"),
        (Outcome.NO_ANSWER, "x" * 10_001, None, "NOTES_TOO_LONG"),
        (Outcome.NO_ANSWER, "a\0b", None, "NOTES_INVALID"),
        (Outcome.NO_ANSWER, "", NOW + timedelta(hours=1), "CALLBACK_NOT_ALLOWED"),
        (Outcome.CALL_BACK, "", NOW, "CALLBACK_NOT_IN_FUTURE"),
        (Outcome.CALL_BACK, "", NOW - timedelta(seconds=1), "CALLBACK_NOT_IN_FUTURE"),
        (Outcome.CALL_BACK, "", NOW + timedelta(days=366), "CALLBACK_TOO_FAR"),
    ],
)
def test_what_no_agent_may_report(
    outcome: Outcome, notes: str, callback_at: datetime | None, reason: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check(
            CallReport(outcome, notes, callback_at), PLACEMENT, PLACEMENT.calling_hours.open_at, NOW
        )
    assert raised.value.reason == reason


def test_longest_notes_and_absent_notes_are_allowed() -> None:
    check(
        CallReport(Outcome.DO_NOT_CONTACT, "x" * 10_000),
        PLACEMENT,
        PLACEMENT.calling_hours.open_at,
        NOW,
    )
    check(CallReport(Outcome.CALL_BACK), PLACEMENT, PLACEMENT.calling_hours.open_at, NOW)


@pytest.mark.parametrize(("score", "after"), [(0, 1), (3.5, 4), (198.2, 199), (199.5, 199.5)])
def test_a_skip_goes_to_the_back_of_its_score_and_freezes_no_person(
    score: float, after: float
) -> None:
    entry = PLACEMENT.settled(skipped(_held(score), PLACEMENT, NOW), NOW)
    assert PLACEMENT.score(entry, NOW) == after
    assert (entry.state, entry.attempts) == (State.READY, 0)


def test_a_disposition_stands_for_its_outcome() -> None:
    named = DispositionSection(
        code="moved_abroad", label="Moved abroad", outcome=Outcome.NOT_INTERESTED
    )
    rules = replace(PLACEMENT.rules, dispositions=(named,))
    assert outcome_of(None, "moved_abroad", rules) is Outcome.NOT_INTERESTED
    assert outcome_of(Outcome.NOT_INTERESTED, "moved_abroad", rules) is Outcome.NOT_INTERESTED
    assert outcome_of(Outcome.HUNG_UP, "", rules) is Outcome.HUNG_UP
    for outcome, code, reason in (
        (None, "", "OUTCOME_MISSING"),
        (Outcome.HUNG_UP, "moved_abroad", "DISPOSITION_MISMATCH"),
        (Outcome.HUNG_UP, "hung_up", "DISPOSITION_UNKNOWN"),
    ):
        with pytest.raises(InvalidArgument) as raised:
            outcome_of(outcome, code, rules)
        assert raised.value.reason == reason
