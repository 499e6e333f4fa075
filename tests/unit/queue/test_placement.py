"""A person's placement follows from the entry alone, whatever led to it."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.queue.domain.entries import Entry, Placement
from services.queue.domain.facts import ClaimFacts, UserFacts
from services.queue.store.rebuilding import EMPTY_WHEN_NEW
from services.queue.types import (
    AgentId,
    ContactBlock,
    Hold,
    Outcome,
    PhoneBlock,
    Queue,
    Reason,
    State,
    UserId,
)
from tests.fakes.rules import load_rules

PLACEMENT = Placement(load_rules())
NOW = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
_FACTS = UserFacts(
    UserId(7),
    True,
    1,
    is_enabled=True,
    claims=(ClaimFacts(None, NOW - timedelta(days=9)),),
    created_at=NOW - timedelta(days=9),
    phones=("+447700900007",),
)
PERSON = PLACEMENT.apply_facts(None, PLACEMENT.assessor.assess(_FACTS, NOW), NOW).after

_moments = st.none() | st.timedeltas(timedelta(days=-3), timedelta(days=3)).map(lambda it: NOW + it)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    eligible = draw(
        st.sampled_from(
            [
                (Queue.UNSIGNED_USERS, Reason.NO_SIGNATURE),
                (Queue.OUTSTANDING_REQUESTS, Reason.REQUIREMENT_PENDING),
                (None, Reason.NOTHING_OUTSTANDING),
                (None, Reason.USER_DISABLED),
            ]
        )
    )
    callback_at = draw(_moments)
    return PERSON._replace(
        eligible_queue=eligible[0],
        eligible_reason=eligible[1],
        outcome_points=draw(st.floats(0, 250)),
        rest_until=draw(_moments),
        capped_until=draw(_moments),
        cap=draw(st.sampled_from([Hold.DAILY_CAP, Hold.PERIOD_CAP, Hold.UNREPORTED_CALL])),
        phone_free_at=draw(_moments),
        phone_block=PhoneBlock(draw(st.integers(0, 3))),
        callback_id=None if callback_at is None else UUID(int=1),
        callback_at=callback_at,
        block=ContactBlock(draw(st.integers(0, 3))),
        lines=draw(st.sampled_from([("+447700900007",), ()])),
        last_outcome=draw(st.none() | st.sampled_from(Outcome)),
        state=draw(st.sampled_from([State.READY, State.WAITING, State.OUT, State.RESERVED])),
        queue=draw(st.none() | st.sampled_from(Queue)),
        reserved_by=UUID(int=2),
        reserved_until=NOW,
    )


@given(entry=entries())
def test_placing_a_person_twice_is_placing_once(entry: Entry) -> None:
    placed = PLACEMENT.placed(entry, NOW)
    assert PLACEMENT.placed(placed, NOW) == placed


@given(entry=entries())
def test_no_person_is_offered_while_a_block_or_a_wait_lasts(entry: Entry) -> None:
    placed = PLACEMENT.placed(entry, NOW)
    is_barred = (
        bool(entry.block)
        or bool(entry.phone_block)
        or not entry.lines
        or entry.eligible_reason is Reason.USER_DISABLED
    )
    rests = entry.rest_until if entry.callback_at is None else entry.callback_at
    ahead = [it for it in (rests, entry.capped_until, entry.phone_free_at) if it and it > NOW]
    owes = entry.eligible_queue is not None or entry.callback_at is not None
    is_frozen = entry.callback_at is None and PLACEMENT.score(entry, NOW) >= 200
    if is_barred or not owes or is_frozen:
        assert placed.state in (State.OUT, State.SUPPRESSED)
        assert placed.queue is None
    elif ahead:
        assert (placed.state, placed.due_at) == (State.WAITING, max(ahead))
        assert placed.hold is not None
        assert placed.reserved_by is None
    else:
        assert placed.state in (State.READY, State.RESERVED)
        assert placed.hold is None
        assert placed.ready_since is not None
    if ContactBlock.DO_NOT_CONTACT in entry.block:
        assert (placed.state, placed.reason) == (State.SUPPRESSED, Reason.DO_NOT_CONTACT)


@given(entry=entries(), later=st.timedeltas(timedelta(0), timedelta(days=10)))
def test_a_person_who_waits_is_ready_when_the_moment_comes_and_not_before(
    entry: Entry, later: timedelta
) -> None:
    placed = PLACEMENT.placed(entry, NOW)
    if placed.state is not State.WAITING or placed.due_at is None:
        return
    then = PLACEMENT.placed(placed, NOW + later)
    if NOW + later < placed.due_at:
        assert then.state is State.WAITING
    else:
        assert then.state in (State.READY, State.OUT)


@given(entry=entries())
def test_a_due_callback_comes_by_its_time_alone(entry: Entry) -> None:
    placed = PLACEMENT.placed(entry, NOW)
    is_due = entry.callback_at is not None and entry.callback_at <= NOW
    assert (placed.queue is Queue.CALLBACKS and placed.state is State.READY) <= is_due
    if placed.queue is Queue.CALLBACKS and is_due and entry.callback_at is not None:
        sooner = entry._replace(
            callback_at=entry.callback_at - timedelta(seconds=1), outcome_points=199.0
        )
        assert PLACEMENT.placed(sooner, NOW).rank_key < placed.rank_key


@given(entry=entries())
def test_a_person_whom_an_agent_holds_stays_there(entry: Entry) -> None:
    held = entry._replace(state=State.ASSIGNED, agent_id=AgentId("agent"))
    assert PLACEMENT.placed(held, NOW) is held
    settled = PLACEMENT.settled(held, NOW)
    assert settled.agent_id is None
    assert settled.state is not State.ASSIGNED


@pytest.mark.parametrize("points", [0.0, 0, -0.0])
def test_a_score_of_zero_and_no_time_mean_now(points: float) -> None:
    entry = PERSON._replace(outcome_points=points, rest_until=None, state=State.OUT)
    assert PLACEMENT.placed(entry, NOW).state is State.READY


@given(
    claims=st.lists(st.builds(ClaimFacts, st.none() | st.just("CLOSED"), _moments), max_size=3),
    phones=st.sampled_from([(), ("+447700900007",), ("+447700900007", "+12015550123")]),
    status=st.sampled_from([None, "INACTIVE"]),
    is_enabled=st.booleans(),
    has_signature=st.booleans(),
    created_at=_moments,
)
def test_a_new_person_has_nothing_that_a_rebuild_does_not_stage(
    claims: list[ClaimFacts],
    phones: tuple[str, ...],
    status: str | None,
    is_enabled: bool,
    has_signature: bool,
    created_at: datetime | None,
) -> None:
    facts = _FACTS._replace(
        claims=tuple(claims),
        phones=phones,
        status=status,
        is_enabled=is_enabled,
        has_signature=has_signature,
        created_at=created_at,
    )
    new = PLACEMENT.apply_facts(None, PLACEMENT.assessor.assess(facts, NOW), NOW).after
    assert not any(getattr(new, name) for name in EMPTY_WHEN_NEW)
