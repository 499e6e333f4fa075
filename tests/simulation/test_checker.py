"""The checker finds one fault of each kind, and none where there is none."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from simulation.checker import check
from simulation.checker.testing import OWES_SIGNATURE, OWN_NUMBER, SIGNED, Story
from simulation.history import (
    CALLBACKS,
    OUTSTANDING,
    UNSIGNED,
    AgentLimited,
    AttemptRow,
    CallbackRow,
    OutcomeRecord,
    PresenceSet,
    WeekHistory,
)

SHARED = OWES_SIGNATURE._replace(phones=("7700900001",))


def _broken(history: WeekHistory) -> set[str]:
    report = check(history)
    return set(report.broken)


def _ordinary_day() -> Story:
    """Calls, a callback kept, a skip, a lapsed lease, a signature, a suppression lifted."""
    story = Story(1, 2, 3, 4).at(9)
    story.calls("ann", 4)
    skipped = story.later(1).gets("ann", 3)
    story.later(1).gives_back(skipped)
    story.calls("ann", 2, "hung_up")
    agreed = story.later(1).gets("bob", 1)
    story.later(1).talks(agreed)
    kept = story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=2))
    story.gets("bob", 3)
    kept_for = story.later(121).gets("bob", 1, CALLBACKS)
    story.later(1).reports(kept_for, "going_to_complete")
    assert kept.open_callback is not None
    story.ends_callback(kept.open_callback.callback_id, "done", "CALLED")
    story.later(5).becomes(2, SIGNED)
    story.later(1).converts(2, "ann", "signature_obtained")
    story.objects(4)
    story.later(1).lifts(4)
    story.at(15).calls("ann", 4)
    story.later(1).objects(phone="7700900077")
    story.later(1).lifts(phone="7700900077")
    return story


def test_an_ordinary_day_is_found_in_order() -> None:
    report = check(_ordinary_day().told())
    assert report.examples == []
    assert report.checks.total() > 100


def _wrong_call(story: Story) -> None:
    story.at(10).becomes(1, SIGNED)
    story.later(1).converts(1, None, "signature_obtained")
    story.later(1).gets("ann", 1)


def _too_late_in_the_day(story: Story) -> None:
    story.at(20).gets("ann", 1)


def _too_early_in_the_day(story: Story) -> None:
    story.at(7, 59).gets("ann", 1)


def _on_sunday(story: Story) -> None:
    story.at(11, day=6).gets("ann", 1)


def _on_the_late_summer_bank_holiday(story: Story) -> None:
    story.at(11, day=84).gets("ann", 1)


def _four_times_a_day(story: Story) -> None:
    for hour in (8, 12, 16):
        story.at(hour, 5).calls("ann", 1)
    story.at(19, 59).lifts(1)
    story.gets("ann", 1)


def _eleven_times_in_28_days(story: Story) -> None:
    for number in range(11):
        story.at(9 + 5 * (number % 2), day=number // 2).calls("ann", 1)


def _before_the_next_call(story: Story) -> None:
    story.at(9).calls("ann", 1)
    story.later(239).gets("ann", 1)


def _while_cooling(story: Story) -> None:
    story.at(10)
    new = OWES_SIGNATURE._replace(registered_at=story.now, first_claim_at=story.now)
    story.becomes(9, new)
    story.later(119).gets("ann", 9)


def _callback_too_early(story: Story) -> None:
    agreed = story.at(9).gets("ann", 1)
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    story.later(59).gets("ann", 1, CALLBACKS)


def _ordinary_call_before_callback(story: Story) -> None:
    agreed = story.at(9).gets("ann", 1)
    story.later(1).reports(agreed, "might_complete", callback_at=story.now + timedelta(hours=1))
    story.later(61).gets("ann", 1)


def _suppressed(story: Story) -> None:
    story.at(9).objects(1)
    story.later(1).gets("ann", 1)


def _after_do_not_contact(story: Story) -> None:
    story.at(9).calls("ann", 1, "do_not_contact")
    story.at(9, day=1).gets("ann", 1)


def _after_no_claim(story: Story) -> None:
    story.at(9).calls("ann", 1, "no_claim")
    story.at(9, day=1).gets("ann", 1)


def _listed_number(story: Story) -> None:
    story.begins_as(OWES_SIGNATURE._replace(phones=("7700900001",)), 1)
    story.at(9).imports("7700900001")
    story.later(1).gets("ann", 1)


def _number_of_a_suppressed_person(story: Story) -> None:
    story.begins_as(SHARED, 1, 2)
    story.at(9).calls("ann", 1, "do_not_contact")
    story.at(14).gets("ann", 2)


def _number_called_lately(story: Story) -> None:
    story.begins_as(SHARED, 1, 2)
    story.at(9).calls("ann", 1)
    story.later(119).gets("bob", 2)


def _number_found_bad_for_another(story: Story) -> None:
    story.begins_as(SHARED, 1, 2)
    story.at(9).calls("ann", 1, "bad_number")
    story.at(9, day=1).gets("bob", 2)


def _number_in_a_call(story: Story) -> None:
    story.begins_as(SHARED, 1, 2)
    story.at(9).gets("ann", 1)
    story.later(1).gets("bob", 2)


def _two_agents(story: Story) -> None:
    story.at(9).gets("ann", 1)
    story.later(1).gets("bob", 1)


def _two_people(story: Story) -> None:
    story.at(9).gets("ann", 2)
    story.later(1).gets("ann", 1)


def _double_assignment_in_the_table(story: Story) -> None:
    given = story.at(9).gets("ann", 1)
    story.add(PresenceSet(story.now, story.window(), "bob", "available"))
    row = story.assignments[given.assignment_id]
    story.assignments["other"] = row._replace(assignment_id="other", agent_id="bob")


def _secret_hand_out(story: Story) -> None:
    given = story.at(9).gets("ann", 1)
    row = story.assignments[given.assignment_id]
    story.assignments["other"] = row._replace(assignment_id="other", user_id=2, agent_id="bob")


def _hand_out_missing(story: Story) -> None:
    story.assignments.pop(story.at(9).gets("ann", 1).assignment_id)


def _heartbeat_after_the_lease(story: Story) -> None:
    given = story.at(9).gets("ann", 1)
    story.later(3).talks(given)


def _outcome_after_another_took_over(story: Story) -> None:
    given = story.at(9).gets("ann", 1)
    story.later(3).gets("bob", 1)
    story.later(1).reports(given, "no_answer")


def _two_outcomes(story: Story) -> None:
    given = story.at(9).calls("ann", 1)
    story.add(
        OutcomeRecord(
            story.now,
            story.window(),
            given.assignment_id,
            "ann",
            story.identity(),
            "hung_up",
            "",
        )
    )


def _outcome_lost(story: Story) -> None:
    story.at(9).calls("ann", 1)
    story.attempts.clear()


def _outcome_doubled(story: Story) -> None:
    story.at(9).calls("ann", 1)
    story.attempts *= 2


def _outcome_altered(story: Story) -> None:
    story.at(9).calls("ann", 1)
    story.attempts = [row._replace(outcome="hung_up") for row in story.attempts]


def _outcome_made_up(story: Story) -> None:
    given = story.at(9).calls("ann", 1)
    other = story.attempts[0]._replace(assignment_id="other")
    assert given.user_id == other.user_id
    story.attempts.append(other)


def _outcome_without_effect(story: Story) -> None:
    story.at(9).calls("ann", 1)
    story.entries[1] = story.entries[1]._replace(attempts=0, last_outcome=None)


def _callback_not_made(story: Story) -> None:
    story.at(9).calls("ann", 1, "call_back")


def _callback_lost(story: Story) -> None:
    agreed = story.at(9).gets("ann", 1)
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(days=3))
    story.callbacks.clear()


def _callback_closed_for_nothing(story: Story) -> None:
    agreed = story.at(9).gets("ann", 1)
    record = story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    assert record.open_callback is not None
    story.later(90).ends_callback(record.open_callback.callback_id, "closed", "USER_DISABLED")


def _callback_done_without_a_call(story: Story) -> None:
    agreed = story.at(9).gets("ann", 1)
    record = story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    assert record.open_callback is not None
    story.later(90).ends_callback(record.open_callback.callback_id, "done", "CALLED")


def _two_callbacks(story: Story) -> None:
    for number in ("one", "two"):
        story.callbacks[number] = CallbackRow(
            number, 1, "open", story.now + timedelta(days=3), 0, None, ""
        )


def _callback_not_offered(story: Story) -> None:
    agreed = story.at(9).gets("ann", 1)
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    story.at(10, 30)
    for _ in range(4):
        story.later(1).gets_no_person("ann")


def _callback_after_others(story: Story) -> None:
    agreed = story.at(9).gets("ann", 1)
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    story.at(10, 30)
    for user_id in (2, 3, 4):
        story.later(1).calls("ann", user_id)


def _callback_given_to_another(story: Story) -> None:
    agreed = story.at(9).gets("ann", 1)
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    story.later(61).add(PresenceSet(story.now, story.window(), "ann", "available"))
    story.later(0.5).gets("bob", 1, CALLBACKS)


def _again_after_a_skip(story: Story) -> None:
    given = story.at(9).gets("ann", 4)
    story.later(1).gives_back(given)
    story.later(1).gets("ann", 4)


def _conversion_lost(story: Story) -> None:
    story.at(9).becomes(1, SIGNED)


def _conversion_doubled(story: Story) -> None:
    story.at(9).becomes(1, SIGNED)
    story.later(1).converts(1, None, "signature_obtained")
    story.later(1).converts(1, None, "signature_obtained")


def _conversion_of_another_kind(story: Story) -> None:
    story.at(9).becomes(1, SIGNED)
    story.later(1).converts(1, None, "claims_ended")


def _conversion_made_up(story: Story) -> None:
    story.at(9, day=1).converts(1, None, "signature_obtained")


def _conversion_credited_to_another(story: Story) -> None:
    story.at(9).calls("ann", 1, "hung_up")
    story.later(5).becomes(1, SIGNED)
    story.later(1).converts(1, "bob", "signature_obtained")


def _no_person_though_one_waits(story: Story) -> None:
    story.at(9)
    for _ in range(3):
        story.later(1).gets_no_person("ann")


def _worse_score_first(story: Story) -> None:
    story.at(9).calls("ann", 4)
    story.calls("ann", 3, "hung_up")
    story.calls("ann", 2)
    story.calls("ann", 1)
    # Four hours on 3 has a point more than the others, and is called first all the same.
    story.at(14)
    for _ in range(3):
        given = story.later(1).gets("ann", 3)
        story.gives_back(given, "forced")


def _older_before_newer(story: Story) -> None:
    story.at(9)
    for user_id in (1, 2, 3):
        story.later(1).calls("ann", user_id)


def _on_a_break(story: Story) -> None:
    story.at(9).add(PresenceSet(story.now, story.window(), "ann", "break"))
    story.later(1).gets("ann", 4)


def _from_a_queue_not_allowed(story: Story) -> None:
    limits = (OUTSTANDING,)
    story.at(9).add(AgentLimited(story.now, story.window(), "ann", limits))
    story.later(1).gets("ann", 4)


def _callback_of_another_agent_for_a_limited_one(story: Story) -> None:
    agreed = story.at(9).gets("bob", 4)
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    story.add(AgentLimited(story.now, story.window(), "ann", (UNSIGNED,)))
    story.later(120).gets("ann", 4, CALLBACKS)


def _callback_of_a_limited_agent_given_to_another(story: Story) -> None:
    agreed = story.at(9).gets("ann", 4)
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    story.later(1).add(AgentLimited(story.now, story.window(), "ann", (OUTSTANDING,)))
    story.later(60).add(PresenceSet(story.now, story.window(), "ann", "available"))
    story.later(0.5).gets("bob", 4, CALLBACKS)


def _own_callback_not_offered_to_a_limited_agent(story: Story) -> None:
    agreed = story.at(9).gets("ann", 4)
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    story.add(AgentLimited(story.now, story.window(), "ann", (OUTSTANDING,)))
    story.later(65)
    for _ in range(4):
        story.later(1).gets_no_person("ann")


def _number_of_a_call_in_which_the_person_objected(story: Story) -> None:
    """The person had another number by the time the agent told of it; the other keeps this one."""
    story.begins_as(SHARED, 1, 2)
    given = story.at(9).gets("ann", 1)
    story.later(1).gives_back(given)
    story.later(1).becomes(1, OWES_SIGNATURE)
    story.later(60).reports(given, "do_not_contact", is_attempt=False)
    story.later(60).gets("bob", 2)


def _frozen(story: Story) -> None:
    story.at(9).calls("ann", 1, "not_interested")
    story.at(11, day=29).calls("ann", 1, "not_interested")
    story.at(11, day=58).gets("ann", 1)


def _fourth_call_of_a_line(story: Story) -> None:
    """Two people with one number, who have had two and one calls."""
    story.begins_as(SHARED, 1, 2)
    for hour, user_id in ((8, 1), (11, 2), (14, 1)):
        story.at(hour, 5).calls("ann", user_id)
    story.at(17).gets("ann", 2)


def _eleventh_call_of_a_line(story: Story) -> None:
    story.begins_as(SHARED, 1, 2)
    for number in range(11):
        story.at(9 + 5 * (number % 2), day=number // 2).calls("ann", 1 + number % 2)


def _unreported_call_without_a_rest(story: Story) -> None:
    story.at(9).talks_and_vanishes("ann", 1)
    story.later(29.5).gets("bob", 1)


def _callback_without_a_rest_after_an_unreported_call(story: Story) -> None:
    agreed = story.at(9).gets("ann", 1)
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    story.later(60).talks_and_vanishes("ann", 1, CALLBACKS)
    story.later(5).gets("ann", 1, CALLBACKS)


def _unreported_call_taken_by_force_without_a_rest(story: Story) -> None:
    given = story.at(9).gets("ann", 1)
    story.later(1).talks(given)
    story.later(1).gives_back(given, "forced")
    story.later(29).gets("bob", 1)


def _unreported_calls_not_counted(story: Story) -> None:
    for hour in (8, 10, 12):
        story.at(hour, 5).talks_and_vanishes("ann", 1)
    story.at(14).gets("ann", 1)


def _unreported_call_not_counted_for_the_line(story: Story) -> None:
    story.begins_as(SHARED, 1, 2)
    story.at(8, 5).talks_and_vanishes("ann", 1)
    for hour, user_id in ((11, 2), (14, 1)):
        story.at(hour).calls("ann", user_id)
    story.at(17).gets("ann", 2)


def _number_called_lately_without_a_report(story: Story) -> None:
    story.begins_as(SHARED, 1, 2)
    story.at(9).talks_and_vanishes("ann", 1)
    story.later(119).gets("bob", 2)


def _unreported_call_forgotten(story: Story) -> None:
    story.at(9).talks_and_vanishes("ann", 1)
    story.attempts.clear()


def _unreported_call_made_up(story: Story) -> None:
    given = story.at(9).gets("ann", 1)
    story.later(2)
    story.attempts.append(AttemptRow(given.assignment_id, 1, "ann", "", "", story.now))


def _report_too_late(story: Story) -> None:
    given = story.at(9).talks_and_vanishes("ann", 1)
    story.later(70).reports(given, "hung_up")


def _late_report_without_effect(story: Story) -> None:
    given = story.at(9).talks_and_vanishes("ann", 1)
    story.later(50).reports(given, "no_answer")
    # Four hours from the end of the lease, not from the report.
    story.at(13, 5).gets("ann", 1)


def _second_number_listed(story: Story) -> None:
    story.begins_as(OWES_SIGNATURE._replace(phones=("7700900001", "1134960018")), 1)
    story.at(9).imports("1134960018")
    story.later(1).gets("ann", 1)


def _list_refused(story: Story) -> None:
    story.at(9).imports("1134960018", error="LIST_TRUNCATED")


def _second_number_called_lately(story: Story) -> None:
    story.begins_as(OWES_SIGNATURE._replace(phones=("7700900002", "7700900001")), 1)
    story.begins_as(SHARED, 2)
    story.at(9).calls("ann", 1)
    story.later(119).gets("bob", 2)


def _no_number(story: Story) -> None:
    story.begins_as(OWES_SIGNATURE._replace(phones=()), 1)
    story.at(9).gets("ann", 1)


def _number_removed(story: Story) -> None:
    story.at(9).becomes(1, OWES_SIGNATURE._replace(phones=()))
    story.later(1).gets("ann", 1)


def _placeholder_called(story: Story) -> None:
    story.begins_as(SHARED, *range(1, 22))
    story.at(9).gets("ann", 1)


def _placeholder_taken_for_a_line(story: Story) -> None:
    """Only 4 is not called, whose placeholder is that of person 1, who was."""
    placeholder = OWES_SIGNATURE._replace(phones=("7700900001", OWN_NUMBER))
    story.begins_as(placeholder, *range(1, 31))
    story.at(9)
    for user_id in range(30, 4, -1):
        story.calls("ann", user_id)
    for _ in range(4):
        story.later(1).gets_no_person("ann")


def _line_of_twenty_taken_for_a_placeholder(story: Story) -> None:
    story.begins_as(SHARED, *range(1, 21))
    story.at(9).calls("ann", 1)
    story.later(5).gets("ann", 2)


def _line_of_twenty_taken_for_no_number(story: Story) -> None:
    story.begins_as(SHARED, *range(1, 21))
    story.at(9)
    for _ in range(4):
        story.later(1).gets_no_person("ann")


def _objection_refused_after_the_lease(story: Story) -> None:
    given = story.at(9).talks_and_vanishes("ann", 1)
    story.later(31).gets("bob", 1)
    story.later(1).reports(given, "do_not_contact", error="ASSIGNMENT_NOT_LIVE")


def _objection_lost_after_the_lease(story: Story) -> None:
    given = story.at(9).talks_and_vanishes("ann", 1)
    other = story.later(31).gets("bob", 1)
    story.later(1).reports(given, "do_not_contact", is_attempt=False)
    story.later(1).reports(other, "no_answer")
    story.at(15).gets("bob", 1)


def _objection_lost_after_an_outcome(story: Story) -> None:
    given = story.at(9).calls("ann", 1)
    story.later(1).reports(given, "do_not_contact", is_attempt=False)
    story.at(15).gets("bob", 1)


def _objection_not_stored(story: Story) -> None:
    given = story.at(9).calls("ann", 1)
    story.later(1).reports(given, "do_not_contact", is_attempt=False)
    story.objections.clear()


def _objection_of_an_agent_refused(story: Story) -> None:
    story.at(9).objects(1, error="PERMISSION_DENIED")


def _bare_number_called(story: Story) -> None:
    story.begins_as(SHARED, 1)
    story.at(9).objects(phone="7700900001")
    story.later(1).gets("ann", 1)


def _bare_number_called_once_a_person_has_it(story: Story) -> None:
    story.at(9).objects(phone="7700900001")
    story.later(60).becomes(1, OWES_SIGNATURE._replace(phones=("7700900009", "7700900001")))
    story.later(60).gets("ann", 1)


def _bare_number_lifted_with_a_person(story: Story) -> None:
    story.begins_as(SHARED, 1)
    story.at(9).objects(1)
    story.objects(phone="7700900001")
    story.later(1).lifts(1, "objection")
    story.later(1).gets("ann", 1)


def _bare_number_not_stored(story: Story) -> None:
    story.at(9).objects(phone="7700900001")
    story.objections.clear()


def _listed_number_lifted_with_an_objection(story: Story) -> None:
    story.begins_as(SHARED, 1)
    story.at(9).imports("7700900001")
    story.objects(1)
    story.later(1).lifts(1, "objection")
    story.later(1).gets("ann", 1)


def _objection_and_no_claim(story: Story) -> None:
    given = story.at(9).gets("ann", 1)
    story.later(1).objects(1)
    story.later(1).reports(given, "no_claim")


def _objection_lost_by_no_claim(story: Story) -> None:
    _objection_and_no_claim(story)
    story.objections.clear()


def _objection_lifted_with_no_claim(story: Story) -> None:
    _objection_and_no_claim(story)
    story.later(1).lifts(1, "no_claim")
    story.later(1).gets("ann", 1)


def _no_claim_lifted_with_an_objection(story: Story) -> None:
    _objection_and_no_claim(story)
    story.later(1).lifts(1, "objection")
    story.later(1).gets("ann", 1)


def _both_lifted_without_a_word_which(story: Story) -> None:
    _objection_and_no_claim(story)
    story.later(1).lifts(1)


def _callback_agreed_for_closed_hours(story: Story) -> None:
    agreed = story.at(19, 50).gets("ann", 1)
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(minutes=9))


def _callback_scheduled_for_closed_hours(story: Story) -> None:
    story.at(9)
    story.schedules(1, story.now + timedelta(hours=11))


def _callback_refused_for_open_hours(story: Story) -> None:
    story.at(9)
    moment = story.now + timedelta(hours=10, minutes=59)
    story.schedules(1, moment, error="CALLBACK_OUTSIDE_HOURS")


def _outcome_recorded_though_refused(story: Story) -> None:
    given = story.at(19, 50).gets("ann", 1)
    moment = story.now + timedelta(minutes=20)
    story.reports(given, "might_complete", callback_at=moment, error="CALLBACK_OUTSIDE_HOURS")
    row = AttemptRow(given.assignment_id, 1, "ann", "might_complete", "", story.now)
    story.attempts.append(row)


def _retry_made_for_closed_hours(story: Story) -> None:
    agreed = story.at(9).gets("ann", 1)
    moment = story.now + timedelta(hours=10, minutes=45)
    story.later(1).reports(agreed, "call_back", callback_at=moment)
    kept = story.at(19, 50).gets("ann", 1, CALLBACKS)
    story.later(1).reports(kept, "no_answer", is_retried=True)


def _preferred_minutes_from_the_agreed_time(story: Story) -> None:
    """The line rests until 12:03; the callback was agreed for 10:05."""
    story.begins_as(SHARED, 1, 2)
    agreed = story.at(8).gets("ann", 1)
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(minutes=124))
    story.at(10, 2).calls("bob", 2)
    story.at(12, 3).add(PresenceSet(story.now, story.window(), "ann", "available"))
    story.later(0.5).gets("bob", 1, CALLBACKS)


def _preferred_minutes_over_before_opening(story: Story) -> None:
    story.at(9).calls("ann", 1)
    story.at(14).calls("ann", 1)
    agreed = story.at(19).gets("ann", 1)
    # After the third call of the day nothing is due before the next one.
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(minutes=30))
    story.at(8, day=1).add(PresenceSet(story.now, story.window(), "ann", "available"))
    story.later(0.5).gets("bob", 1, CALLBACKS)


def _conversion_credited_without_a_word_spoken(story: Story) -> None:
    story.at(9).calls("ann", 1, "no_answer")
    story.later(5).becomes(1, SIGNED)
    story.later(1).converts(1, "ann", "signature_obtained")


def _conversion_credited_after_90_days(story: Story) -> None:
    story.at(9).calls("ann", 1, "hung_up")
    story.at(10, day=91).becomes(1, SIGNED)
    story.later(1).converts(1, "ann", "signature_obtained")


def _conversion_credited_to_a_silent_holder(story: Story) -> None:
    given = story.at(9).gets("ann", 1)
    story.later(1).becomes(1, SIGNED)
    story.converts(1, "ann", "signature_obtained")
    story.later(1).reports(given, "no_answer")


def _conversion_before_a_late_objection_not_credited(story: Story) -> None:
    story.at(9).calls("bob", 1, "hung_up")
    given = story.at(14).gets("ann", 1)
    story.later(1).becomes(1, SIGNED)
    story.converts(1, "bob", "signature_obtained")
    story.later(1)
    story.attempts.append(
        AttemptRow(given.assignment_id, 1, "ann", "do_not_contact", "", story.now)
    )
    story.entries[1] = story.entries[1]._replace(attempts=2)
    story.later(75).reports(given, "do_not_contact", is_attempt=False)


def _conversion_not_credited_to_the_holder(story: Story) -> None:
    story.at(9).calls("bob", 1, "hung_up")
    given = story.at(14).gets("ann", 1)
    story.later(1).becomes(1, SIGNED)
    story.converts(1, "bob", "signature_obtained")
    story.later(0.5).reports(given, "completed_form")


FAULTS: list[tuple[str, Callable[[Story], None]]] = [
    ("no wrong call", _wrong_call),
    ("calling hours", _too_late_in_the_day),
    ("calling hours", _too_early_in_the_day),
    ("calling hours", _on_sunday),
    ("calling hours", _on_the_late_summer_bank_holiday),
    ("attempts a day", _four_times_a_day),
    ("attempts in 28 days", _eleven_times_in_28_days),
    ("next call", _before_the_next_call),
    ("cooling", _while_cooling),
    ("callback's hour", _callback_too_early),
    ("callback agreed", _ordinary_call_before_callback),
    ("suppression", _suppressed),
    ("suppression", _after_do_not_contact),
    ("ended calls", _after_no_claim),
    ("suppressed number", _listed_number),
    ("suppressed number", _number_of_a_suppressed_person),
    ("shared number", _number_called_lately),
    ("shared number", _number_in_a_call),
    ("bad number", _number_found_bad_for_another),
    ("one agent a person", _two_agents),
    ("one person an agent", _two_people),
    ("no double assignment", _double_assignment_in_the_table),
    ("no secret hand-outs", _secret_hand_out),
    ("hand-outs in the table", _hand_out_missing),
    ("no heartbeat after the lease", _heartbeat_after_the_lease),
    ("late outcome", _outcome_after_another_took_over),
    ("one outcome a call", _two_outcomes),
    ("no outcome lost or doubled", _outcome_lost),
    ("no outcome lost or doubled", _outcome_doubled),
    ("no outcome lost or doubled", _outcome_altered),
    ("no outcome made up", _outcome_made_up),
    ("outcomes took effect", _outcome_without_effect),
    ("callbacks kept after a call", _callback_not_made),
    ("no callback lost", _callback_lost),
    ("callbacks end for a reason", _callback_closed_for_nothing),
    ("callbacks end for a reason", _callback_done_without_a_call),
    ("one callback a person", _two_callbacks),
    ("no person passed over", _callback_not_offered),
    ("no person passed over", _callback_after_others),
    ("preferred agent first", _callback_given_to_another),
    ("not again after a skip", _again_after_a_skip),
    ("conversions once each", _conversion_lost),
    ("conversions once each", _conversion_doubled),
    ("conversions once each", _conversion_of_another_kind),
    ("no conversion made up", _conversion_made_up),
    ("conversion credited", _conversion_credited_to_another),
    ("no person passed over", _no_person_though_one_waits),
    ("no person passed over", _worse_score_first),
    ("no person passed over", _older_before_newer),
    ("agent is there", _on_a_break),
    ("agent's queues", _from_a_queue_not_allowed),
    ("agent's queues", _callback_of_another_agent_for_a_limited_one),
    ("preferred agent first", _callback_of_a_limited_agent_given_to_another),
    ("no person passed over", _own_callback_not_offered_to_a_limited_agent),
    ("frozen", _frozen),
    ("suppressed number", _number_of_a_call_in_which_the_person_objected),
    ("attempts a day of a line", _fourth_call_of_a_line),
    ("attempts in 28 days of a line", _eleventh_call_of_a_line),
    ("rest after an unreported call", _unreported_call_without_a_rest),
    ("rest after an unreported call", _callback_without_a_rest_after_an_unreported_call),
    ("rest after an unreported call", _unreported_call_taken_by_force_without_a_rest),
    ("attempts a day", _unreported_calls_not_counted),
    ("attempts a day of a line", _unreported_call_not_counted_for_the_line),
    ("shared number", _number_called_lately_without_a_report),
    ("unreported calls kept", _unreported_call_forgotten),
    ("no outcome made up", _unreported_call_made_up),
    ("late outcome", _report_too_late),
    ("next call", _late_report_without_effect),
    ("suppressed number", _second_number_listed),
    ("list taken over", _list_refused),
    ("shared number", _second_number_called_lately),
    ("number to call", _no_number),
    ("number to call", _number_removed),
    ("number to call", _placeholder_called),
    ("no person passed over", _placeholder_taken_for_a_line),
    ("shared number", _line_of_twenty_taken_for_a_placeholder),
    ("no person passed over", _line_of_twenty_taken_for_no_number),
    ("objection taken", _objection_refused_after_the_lease),
    ("suppression", _objection_lost_after_the_lease),
    ("suppression", _objection_lost_after_an_outcome),
    ("no objection lost", _objection_not_stored),
    ("objection taken", _objection_of_an_agent_refused),
    ("objection to a number", _bare_number_called),
    ("objection to a number", _bare_number_called_once_a_person_has_it),
    ("objection to a number", _bare_number_lifted_with_a_person),
    ("no objection lost", _bare_number_not_stored),
    ("suppressed number", _listed_number_lifted_with_an_objection),
    ("no objection lost", _objection_lost_by_no_claim),
    ("suppression", _objection_lifted_with_no_claim),
    ("ended calls", _no_claim_lifted_with_an_objection),
    ("several stand", _both_lifted_without_a_word_which),
    ("callback hours", _callback_agreed_for_closed_hours),
    ("callback hours", _callback_scheduled_for_closed_hours),
    ("callback hours", _callback_refused_for_open_hours),
    ("no outcome made up", _outcome_recorded_though_refused),
    ("callbacks kept after a call", _retry_made_for_closed_hours),
    ("preferred agent first", _preferred_minutes_from_the_agreed_time),
    ("preferred agent first", _preferred_minutes_over_before_opening),
    ("conversion credited", _conversion_credited_without_a_word_spoken),
    ("conversion credited", _conversion_credited_after_90_days),
    ("conversion credited", _conversion_credited_to_a_silent_holder),
    ("conversion credited", _conversion_before_a_late_objection_not_credited),
    ("conversion credited", _conversion_not_credited_to_the_holder),
]


@pytest.mark.parametrize(
    ("rule", "plant"), FAULTS, ids=[plant.__name__.strip("_") for _, plant in FAULTS]
)
def test_a_planted_fault_is_found(rule: str, plant: Callable[[Story], None]) -> None:
    story = Story(1, 2, 3, 4)
    plant(story)
    assert rule in _broken(story.told())


def test_every_rule_has_a_fault_planted() -> None:
    planted = {rule for rule, _ in FAULTS}
    checked = set(check(_ordinary_day().told()).checks)
    assert checked - planted <= {"known person", "same answer again"}
