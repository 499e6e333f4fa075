"""The explanation and the placement never disagree, and every answer is of use."""

from hypothesis import given

from services.queue.domain.entries import ContactStatus, Entry
from services.queue.domain.explanation import Subject, explain, is_callable, summary
from services.queue.types import AgentId, State
from tests.unit.queue.test_placement import NOW, PLACEMENT, entries


def _case(entry: Entry) -> Subject:
    return Subject(
        entry=entry,
        facts=None,
        status=ContactStatus(),
        are_lines_in_call=False,
        is_preferred_agent_present=False,
        now=NOW,
    )


@given(entry=entries())
def test_a_person_who_is_explained_as_callable_is_ready_and_no_other_person_is(
    entry: Entry,
) -> None:
    placed = PLACEMENT.placed(entry, NOW)
    is_offered = placed.state in (State.READY, State.RESERVED)
    assert is_callable(explain(_case(placed), PLACEMENT)) == is_offered


@given(entry=entries())
def test_a_rule_that_fails_says_what_would_change_it_and_one_that_passes_does_not(
    entry: Entry,
) -> None:
    case = _case(PLACEMENT.placed(entry, NOW))
    results = explain(case, PLACEMENT)
    for result in results:
        assert result.words
        assert bool(result.what_would_change_it) != result.is_passed
        assert "7700" not in str(result)
    assert summary(case, results)


@given(entry=entries())
def test_a_person_who_is_held_is_explained_by_the_agent(entry: Entry) -> None:
    held = entry._replace(state=State.ASSIGNED, agent_id=AgentId("ann"))
    case = _case(held)
    results = explain(case, PLACEMENT)
    assert not is_callable(results)
    assert summary(case, results) == "Agent ann holds the person."
