"""How facts and the passing of time move a person."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.queue.domain.caps import LineCall, PastCall
from services.queue.domain.entries import Application, ContactStatus, Entry, Placement
from services.queue.domain.facts import ClaimFacts, RequirementFacts, UserFacts
from services.queue.domain.outcomes import CallReport, applied
from services.queue.store import tables
from services.queue.store.entries import COLUMNS
from services.queue.types import (
    AgentId,
    Conversion,
    Outcome,
    Queue,
    Reason,
    State,
    UserId,
)
from tests.fakes.clock import FakeClock
from tests.fakes.rules import load_rules

PLACEMENT = Placement(load_rules())
NOW = FakeClock().now()
LONG_AGO = NOW - timedelta(days=90)
UNSIGNED, OUTSTANDING = Queue.UNSIGNED_USERS, Queue.OUTSTANDING_REQUESTS


def _facts(
    version: int = 1,
    *,
    has_signature: bool = False,
    requirement: str | None = "PENDING",
    is_enabled: bool = True,
    created_at: datetime | None = LONG_AGO,
    claimed_at: datetime | None = LONG_AGO,
    phone: str | None = "+447700900001",
    claim_status: str | None = None,
) -> UserFacts:
    needed = (RequirementFacts("proof_of_address", requirement, None),)
    return UserFacts(
        UserId(7),
        True,
        version,
        fingerprint=version,
        is_enabled=is_enabled,
        has_signature=has_signature,
        claims=(ClaimFacts(claim_status, claimed_at, needed),),
        phones=() if phone is None else (phone,),
        created_at=created_at,
    )


def _known(facts: UserFacts | None = None, now: datetime = NOW) -> Entry:
    return _apply(None, facts or _facts(), now).after


def _apply(before: Entry | None, facts: UserFacts, now: datetime) -> Application:
    return PLACEMENT.apply_facts(before, PLACEMENT.assessor.assess(facts, now), now)


def _called(entry: Entry, outcome: Outcome, now: datetime = NOW) -> Entry:
    report = CallReport(outcome, "notes")
    after = applied(report, entry, AgentId("agent"), None, PLACEMENT, now, is_counted=False).entry
    status = ContactStatus(entry.phones, calls=[PastCall(now)])
    return PLACEMENT.settled(PLACEMENT.with_status(after, status, now), now)


def test_a_person_registered_long_ago_may_be_called_at_once_with_a_score_of_zero() -> None:
    entry = _known()
    assert (entry.queue, entry.state, entry.reason) == (
        UNSIGNED,
        State.READY,
        Reason.NO_SIGNATURE,
    )
    assert PLACEMENT.score(entry, NOW) == 0.0
    assert (entry.due_at, entry.ready_since, entry.entered_at) == (None, NOW, NOW)


@pytest.mark.parametrize(
    ("created_ago", "claimed_ago", "cooled_in"),
    [
        (timedelta(0), timedelta(0), timedelta(hours=2)),
        (timedelta(days=9), timedelta(minutes=30), timedelta(minutes=90)),
        (timedelta(minutes=30), timedelta(days=9), timedelta(minutes=90)),
        (timedelta(minutes=30), None, timedelta(minutes=90)),
        (None, timedelta(minutes=30), timedelta(minutes=90)),
        (None, None, timedelta(hours=2)),
        (timedelta(hours=2), timedelta(hours=2), None),
    ],
)
def test_cooling_counts_from_the_later_of_registration_and_first_claim(
    created_ago: timedelta | None,
    claimed_ago: timedelta | None,
    cooled_in: timedelta | None,
) -> None:
    entry = _known(
        _facts(
            created_at=None if created_ago is None else NOW - created_ago,
            claimed_at=None if claimed_ago is None else NOW - claimed_ago,
        )
    )
    assert entry.due_at == (None if cooled_in is None else NOW + cooled_in)
    assert entry.state is (State.READY if cooled_in is None else State.WAITING)


def test_waiting_ends_when_the_moment_comes_and_not_before() -> None:
    entry = _known(_facts(created_at=NOW))
    due_at = NOW + timedelta(hours=2)
    assert PLACEMENT.placed(entry, due_at - timedelta(seconds=1)).state is State.WAITING
    ready = PLACEMENT.placed(entry, due_at)
    assert (ready.state, ready.ready_since) == (State.READY, due_at)


def test_moving_between_queues_is_a_fresh_start_that_keeps_a_later_call_time() -> None:
    called = _called(_known(), Outcome.NOT_INTERESTED)
    assert PLACEMENT.score(called, NOW) == 100.0
    later = NOW + timedelta(days=1)
    moved = _apply(called, _facts(2, has_signature=True), later)
    assert moved.conversion is Conversion.SIGNATURE_OBTAINED
    assert (moved.after.queue, moved.after.state) == (OUTSTANDING, State.WAITING)
    assert PLACEMENT.score(moved.after, later) == 0.0
    assert moved.after.due_at == called.due_at == NOW + timedelta(days=28)
    assert (moved.after.attempts, moved.after.attempts_in_case) == (1, 0)


def test_a_new_requirement_after_being_done_is_a_fresh_start() -> None:
    owing = _called(_known(_facts(has_signature=True)), Outcome.HUNG_UP)
    done = _apply(owing, _facts(2, has_signature=True, requirement="OK"), NOW)
    assert done.conversion is Conversion.REQUIREMENTS_MET
    assert (done.after.queue, done.after.state) == (None, State.OUT)
    again = _apply(done.after, _facts(3, has_signature=True), NOW)
    assert again.conversion is None
    assert (again.after.queue, again.after.case_number) == (OUTSTANDING, 2)
    assert PLACEMENT.score(again.after, NOW) == 0.0


def test_a_pause_in_contact_is_no_fresh_start_and_no_conversion() -> None:
    called = _called(_known(), Outcome.NOT_INTERESTED)
    barred = _apply(called, _facts(2, is_enabled=False), NOW)
    assert (barred.conversion, barred.after.queue) == (None, None)
    assert barred.after.reason is Reason.USER_DISABLED
    back = _apply(barred.after, _facts(3), NOW)
    assert (back.after.queue, back.after.case_number) == (UNSIGNED, 1)
    assert PLACEMENT.score(back.after, NOW) == 100.0


def test_nothing_moves_while_an_agent_holds_the_person() -> None:
    held = _known()._replace(state=State.ASSIGNED, agent_id=AgentId("a"))
    after = _apply(held, _facts(2, has_signature=True, requirement="OK"), NOW)
    assert after.conversion is Conversion.SIGNATURE_OBTAINED
    assert not after.is_moved
    assert after.is_context_changed
    assert (after.after.queue, after.after.state) == (UNSIGNED, State.ASSIGNED)
    settled = PLACEMENT.settled(after.after, NOW)
    assert (settled.queue, settled.state) == (None, State.OUT)
    assert settled.agent_id is None


@pytest.mark.parametrize("has_signature", [False, True])
def test_a_reservation_holds_only_while_the_person_belongs_there(has_signature: bool) -> None:
    reserved = _known()._replace(state=State.RESERVED, reserved_until=NOW)
    after = _apply(reserved, _facts(2, has_signature=has_signature), NOW).after
    assert after.state is (State.READY if has_signature else State.RESERVED)
    assert (after.reserved_until is None) == has_signature


def test_the_frozen_are_out_and_stay_out_until_a_fresh_start() -> None:
    entry = _known()
    weeks_40 = NOW + timedelta(weeks=40)
    assert PLACEMENT.placed(entry, weeks_40 - timedelta(hours=1)).state is State.READY
    frozen = PLACEMENT.placed(entry, weeks_40)
    assert (frozen.queue, frozen.state, frozen.reason) == (None, State.OUT, Reason.FROZEN)
    thawed = _apply(frozen, _facts(2, has_signature=True), weeks_40)
    assert thawed.conversion is Conversion.SIGNATURE_OBTAINED
    assert (thawed.after.queue, thawed.after.state) == (OUTSTANDING, State.READY)


def test_a_wrong_number_is_waited_for_until_there_is_another() -> None:
    wrong = _called(_known(), Outcome.BAD_NUMBER)
    assert wrong.due_at == NOW + timedelta(days=28)
    gone = _apply(wrong, _facts(2, phone=None), NOW).after
    assert (gone.state, gone.reason) == (State.OUT, Reason.NO_CALLABLE_NUMBER)
    called = ContactStatus(
        wrong.phones, line_calls=[LineCall(phone, wrong.user_id, NOW) for phone in wrong.phones]
    )
    again = PLACEMENT.assessor.assess(_facts(3), NOW)
    same = PLACEMENT.apply_facts(gone, again, NOW, called).after
    assert same.state is State.WAITING
    other = _apply(same, _facts(4, phone="+447700900002"), NOW).after
    assert (other.state, other.due_at) == (State.READY, None)
    assert PLACEMENT.score(other, NOW) == 50.0


def test_a_number_found_bad_is_not_called_for_its_other_holders() -> None:
    mine, other = "+447700900001", "+447700900002"
    entry, other_id = _known(), UserId(8)
    bad = LineCall(mine, other_id, NOW, Outcome.BAD_NUMBER)

    def free_at(*calls: LineCall, lines: tuple[str, ...] = (mine,)) -> datetime | None:
        status = ContactStatus(lines, line_calls=calls)
        return PLACEMENT.with_status(entry, status, NOW).phone_free_at

    held, rested = NOW + timedelta(days=28), NOW + timedelta(hours=2)
    assert free_at(bad) == held
    # A call without a report tells nothing of the number; a later one that has one does.
    later = NOW + timedelta(minutes=1)
    assert free_at(bad, LineCall(mine, other_id, later)) == held
    answered = LineCall(mine, other_id, later, Outcome.HUNG_UP)
    assert free_at(bad, answered) == later + timedelta(hours=2)
    assert free_at(bad, LineCall(mine, entry.user_id, later, Outcome.HUNG_UP)) == rested
    # Another number of the person is called all the same, until that one is bad, too.
    assert free_at(bad, lines=(mine, other)) == rested
    sooner = NOW - timedelta(days=1)
    both = (bad, LineCall(other, UserId(9), sooner, Outcome.BAD_NUMBER))
    assert free_at(*both, lines=(mine, other)) == sooner + timedelta(days=28)
    # It may be the right number of another holder.
    assert free_at(LineCall(mine, other_id, NOW, Outcome.WRONG_PERSON)) == rested


def test_another_number_lifts_no_other_wait() -> None:
    called = _called(_known(), Outcome.NO_ANSWER)
    other = _apply(called, _facts(2, phone="+447700900002"), NOW).after
    assert other.due_at == NOW + timedelta(hours=4)


def test_who_is_gone_is_out_without_a_conversion() -> None:
    gone = UserFacts(UserId(7), exists=False, version=2)
    after = _apply(_known(), gone, NOW)
    assert (after.conversion, after.after.state) == (None, State.OUT)
    assert after.after.reason is Reason.USER_NOT_FOUND
    assert _apply(after.after, _facts(3), NOW).after.case_number == 2


_readings = st.lists(
    st.builds(
        _facts,
        has_signature=st.booleans(),
        requirement=st.sampled_from(["PENDING", "APPROVED", None]),
        is_enabled=st.booleans(),
        claim_status=st.sampled_from([None, "complete"]),
        phone=st.sampled_from(["+447700900001", "+447700900002", None]),
    ),
    min_size=1,
    max_size=6,
)


@given(readings=_readings, data=st.data())
def test_readings_in_any_order_and_number_end_in_the_same_place(
    readings: list[UserFacts], data: st.DataObject
) -> None:
    """As the service does it: a version that is not above the one applied is ignored."""
    versions = [facts._replace(version=i + 1) for i, facts in enumerate(readings)]
    shuffled = data.draw(st.permutations(versions + data.draw(st.lists(st.sampled_from(versions)))))
    ends = []
    for order in (versions, shuffled):
        entry: Entry | None = None
        for facts in order:
            if entry is None or entry.facts_version < facts.version:
                entry = _apply(entry, facts, NOW).after
        assert entry is not None
        where = (entry.queue, entry.state, entry.reason, entry.open_case_queue, entry.due_at)
        ends.append((*where, entry.rank_key, entry.facts_version, entry.eligible_queue))
    assert ends[0] == ends[1]


def test_the_columns_of_an_entry_are_its_fields() -> None:
    of_other_code = {"phone_e164", "state_version"}
    assert {name for name, _ in COLUMNS} | of_other_code == set(tables.entries.c.keys())
