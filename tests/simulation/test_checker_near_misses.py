"""What is only just allowed is no fault to the checker."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from simulation.checker import check
from simulation.checker.testing import OWES_SIGNATURE, SIGNED, Story
from simulation.history import (
    CALLBACKS,
    UNSIGNED,
    AgentLimited,
    Claimed,
    PresenceSet,
    Truth,
    Window,
)


def _just_before_closing(story: Story) -> None:
    story.at(19, 59).gets("ann", 4)


def _at_opening_after_the_clocks_went_forward(story: Story) -> None:
    story.history.began_at = story.now = datetime(2026, 3, 28, 6, tzinfo=UTC)
    story.now = datetime(2026, 3, 30, 7, tzinfo=UTC)
    story.gets("ann", 4)


def _at_the_next_call(story: Story) -> None:
    story.at(9).calls("ann", 4)
    story.later(240).gets("ann", 4)


def _cooled(story: Story) -> None:
    story.at(10)
    story.becomes(9, OWES_SIGNATURE._replace(registered_at=story.now, first_claim_at=story.now))
    story.later(120).gets("ann", 9)


def _signed_while_handed_out(story: Story) -> None:
    given = story.at(9).gets("ann", 4)
    claimed = story.history.records[-1]
    assert isinstance(claimed, Claimed)
    began, ended = claimed.window
    story.add(Truth(given.started_at, Window(began + 0.1, ended - 0.1), 4, SIGNED))
    story.later(1).converts(4, "ann", "signature_obtained")


def _number_rested(story: Story) -> None:
    shared = OWES_SIGNATURE._replace(phone="7700900001")
    story.history.people |= {3: shared, 4: shared}
    story.at(9).calls("ann", 4)
    story.later(120).gets("bob", 3)


def _another_number_after_a_bad_one(story: Story) -> None:
    story.at(9).calls("ann", 4, "bad_number")
    story.later(60).becomes(4, OWES_SIGNATURE._replace(phone="7700900001"))
    story.later(1).gets("ann", 4)


def _seen_by_nobody_for_half_an_hour(story: Story) -> None:
    story.history.people[4] = OWES_SIGNATURE._replace(is_contactable=False)
    story.history.people |= dict.fromkeys((1, 2, 3), SIGNED)
    story.at(9).becomes(4, OWES_SIGNATURE)
    for _ in range(5):
        story.later(5).gets_nobody("ann")


def _callback_closed_while_nobody_may_call(story: Story) -> None:
    agreed = story.at(9).gets("ann", 4)
    record = story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    assert record.open_callback is not None
    story.later(30).becomes(4, OWES_SIGNATURE._replace(is_contactable=False))
    story.later(31).ends_callback(record.open_callback.callback_id, "closed", "USER_DISABLED")
    story.later(60).becomes(4, OWES_SIGNATURE)
    story.at(10, day=1).gets("ann", 4)


def _missed_callback_called_off_beside_an_open_one(story: Story) -> None:
    agreed = story.at(9).gets("ann", 4)
    first = story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    assert first.open_callback is not None
    for minutes in (60, 16):
        again = story.later(minutes).gets("ann", 4, CALLBACKS)
        story.later(1).reports(again, "no_answer", is_retried=minutes == 60)
    story.ends_callback(first.open_callback.callback_id, "missed", "NO_ANSWER", misses=2)
    made = story.schedules(4, story.now + timedelta(days=1))
    story.later(1).calls_off(first.open_callback)
    story.later(24 * 60).gets("ann", 4, CALLBACKS)
    assert made.callback_id != first.open_callback.callback_id


def _number_got_in_the_middle_of_a_call(story: Story) -> None:
    story.history.people[4] = OWES_SIGNATURE._replace(phone="7700900001")
    story.history.people[3] = OWES_SIGNATURE._replace(phone="7700900002")
    given = story.at(9).gets("ann", 4)
    story.later(1).becomes(4, OWES_SIGNATURE._replace(phone="7700900002"))
    story.gets("bob", 3)
    story.reports(given, "no_answer")


def _preferred_agent_may_take_no_callbacks(story: Story) -> None:
    agreed = story.at(9).gets("ann", 4)
    story.later(1).reports(agreed, "call_back", callback_at=story.now + timedelta(hours=1))
    story.later(1).add(AgentLimited(story.now, story.window(), "ann", (UNSIGNED,)))
    story.later(60).add(PresenceSet(story.now, story.window(), "ann", "available"))
    story.later(0.5).gets("bob", 4, CALLBACKS)


NEAR_MISSES: list[Callable[[Story], None]] = [
    _just_before_closing,
    _at_opening_after_the_clocks_went_forward,
    _at_the_next_call,
    _cooled,
    _signed_while_handed_out,
    _number_rested,
    _another_number_after_a_bad_one,
    _seen_by_nobody_for_half_an_hour,
    _callback_closed_while_nobody_may_call,
    _missed_callback_called_off_beside_an_open_one,
    _number_got_in_the_middle_of_a_call,
    _preferred_agent_may_take_no_callbacks,
]


@pytest.mark.parametrize("tell", NEAR_MISSES, ids=[it.__name__.strip("_") for it in NEAR_MISSES])
def test_what_is_just_allowed_is_found_in_order(tell: Callable[[Story], None]) -> None:
    story = Story(1, 2, 3, 4)
    tell(story)
    assert check(story.told()).examples == []
