"""The checker finds one fault of each kind, and none where there is none."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from simulation.checker import check
from simulation.checker.testing import OWES_SIGNATURE, SIGNED, Story
from simulation.history import (
    CALLBACKS,
    AgentLimited,
    CallbackRow,
    History,
    Lifted,
    PhonesImported,
    PresenceSet,
    Recorded,
    Suppressed,
)


def _broken(history: History) -> set[str]:
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
    story.add(Suppressed(story.now, story.window(), 4))
    story.later(1).add(Lifted(story.now, story.window(), 4))
    story.at(15).calls("ann", 4)
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
    story.at(19, 59).add(Lifted(story.now, story.window(), 1))
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
    story.at(9).add(Suppressed(story.now, story.window(), 1))
    story.later(1).gets("ann", 1)


def _after_do_not_contact(story: Story) -> None:
    story.at(9).calls("ann", 1, "do_not_contact")
    story.at(9, day=1).gets("ann", 1)


def _after_no_claim(story: Story) -> None:
    story.at(9).calls("ann", 1, "no_claim")
    story.at(9, day=1).gets("ann", 1)


def _listed_number(story: Story) -> None:
    story.history.people[1] = OWES_SIGNATURE._replace(phone="7700900001")
    phones = frozenset({"7700900001"})
    story.at(9).add(PhonesImported(story.now, story.window(), phones))
    story.later(1).gets("ann", 1)


def _number_of_somebody_suppressed(story: Story) -> None:
    shared = OWES_SIGNATURE._replace(phone="7700900001")
    story.history.people |= {1: shared, 2: shared}
    story.at(9).calls("ann", 1, "do_not_contact")
    story.at(14).gets("ann", 2)


def _number_called_lately(story: Story) -> None:
    shared = OWES_SIGNATURE._replace(phone="7700900001")
    story.history.people |= {1: shared, 2: shared}
    story.at(9).calls("ann", 1)
    story.later(119).gets("bob", 2)


def _number_in_a_call(story: Story) -> None:
    shared = OWES_SIGNATURE._replace(phone="7700900001")
    story.history.people |= {1: shared, 2: shared}
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
        Recorded(
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
        story.later(1).gets_nobody("ann")


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
    story.at(9).calls("ann", 1)
    story.later(5).becomes(1, SIGNED)
    story.later(1).converts(1, "bob", "signature_obtained")


def _nobody_though_somebody_waits(story: Story) -> None:
    story.at(9)
    for _ in range(3):
        story.later(1).gets_nobody("ann")


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
    limits = ("outstanding_requests",)
    story.at(9).add(AgentLimited(story.now, story.window(), "ann", limits))
    story.later(1).gets("ann", 4)


def _frozen(story: Story) -> None:
    story.at(9).calls("ann", 1, "not_interested")
    story.at(11, day=29).calls("ann", 1, "not_interested")
    story.at(11, day=58).gets("ann", 1)


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
    ("suppressed number", _number_of_somebody_suppressed),
    ("shared number", _number_called_lately),
    ("shared number", _number_in_a_call),
    ("one agent a person", _two_agents),
    ("one person an agent", _two_people),
    ("no double assignment", _double_assignment_in_the_table),
    ("no secret hand-outs", _secret_hand_out),
    ("hand-outs in the table", _hand_out_missing),
    ("no life after the lease", _heartbeat_after_the_lease),
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
    ("nobody passed over", _callback_not_offered),
    ("nobody passed over", _callback_after_others),
    ("preferred agent first", _callback_given_to_another),
    ("not again after a skip", _again_after_a_skip),
    ("conversions once each", _conversion_lost),
    ("conversions once each", _conversion_doubled),
    ("conversions once each", _conversion_of_another_kind),
    ("no conversion made up", _conversion_made_up),
    ("conversion credited", _conversion_credited_to_another),
    ("nobody passed over", _nobody_though_somebody_waits),
    ("nobody passed over", _worse_score_first),
    ("nobody passed over", _older_before_newer),
    ("agent is there", _on_a_break),
    ("agent's queues", _from_a_queue_not_allowed),
    ("frozen", _frozen),
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
