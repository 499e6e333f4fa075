"""Whether the right person was handed out: none who comes first is passed over, and none starves.

A person is passed over for a moment while a claim under way holds them. So a person counts as
starved who comes first, has been ready for longer than the services may take to notice, and is
passed over at three different moments while nothing happens to them.
"""

import heapq
from collections.abc import Sequence
from datetime import datetime, timedelta

from simulation.checker import hours
from simulation.checker.findings import Report
from simulation.checker.holds import may_hold_until
from simulation.checker.hours import LONG_AGO
from simulation.checker.people import PersonState
from simulation.checker.rules import FROZEN_SCORE, PREFERRED_FOR
from simulation.checker.state import CheckerState
from simulation.history import CALLBACKS, OUTSTANDING, UNSIGNED, ClaimRecord

DEFAULT_ORDER = (CALLBACKS, UNSIGNED, OUTSTANDING)
MOMENTS_PASSED_OVER = 3

_SHORTLY = timedelta(minutes=10)
_ALMOST_FROZEN = FROZEN_SCORE - 1.0


class Ladder:
    """Those of one queue who are surely ready, the first at the top.

    A person's entry is worth nothing once the person's `version` is another one.
    """

    def __init__(self, state: CheckerState) -> None:
        self._state = state
        self._coming: list[tuple[datetime, int, int]] = []
        self._ready: list[tuple[float, int, int]] = []

    def put(self, person: PersonState, when: datetime) -> None:
        """Look at the person from that moment on."""
        heapq.heappush(self._coming, (when, person.user_id, person.version))

    def first(self, now: datetime, other_than: int | None) -> PersonState | None:
        """Return the first who is surely ready now."""
        while self._coming and self._coming[0][0] <= now:
            _, user_id, version = heapq.heappop(self._coming)
            person = self._state.people[user_id]
            if person.version == version:
                heapq.heappush(self._ready, (person.key.high, -user_id, version))
        set_aside = None
        found = None
        while self._ready and found is None:
            _, negative_id, version = self._ready[0]
            person = self._state.people[-negative_id]
            if person.version == version and person.user_id == other_than:
                set_aside = heapq.heappop(self._ready)
            elif person.version == version and self._is_ready(person, now):
                found = person
            else:
                heapq.heappop(self._ready)
        if set_aside is not None:
            heapq.heappush(self._ready, set_aside)
        return found

    def _is_ready(self, person: PersonState, now: datetime) -> bool:
        when = surely_ready_at(self._state, person, now)
        if when is None:
            return False
        if when > now:
            self.put(person, when)
        return when <= now


class OrderCheck:
    """Watches who is handed out while others wait."""

    def __init__(self, state: CheckerState, report: Report) -> None:
        self._state = state
        self._report = report
        self._ladders = {UNSIGNED: Ladder(state), OUTSTANDING: Ladder(state)}
        # Callbacks by when they must be offered, and those for which that has come.
        self._agreed: list[tuple[datetime, int, int]] = []
        self._due: set[int] = set()

    def touch(self, person: PersonState, now: datetime) -> None:
        """Reckon anew with a person to whom something has happened."""
        person.version += 1
        person.times_passed_over.clear()
        self._due.discard(person.user_id)
        if person.callback is not None:
            due_at = person.callback.due_at + self._state.delays.promotion
            heapq.heappush(self._agreed, (due_at, person.user_id, person.version))
            return
        when = surely_ready_at(self._state, person, now)
        if when is not None and person.view.matter is not None:
            self._ladders[person.view.matter].put(person, when)

    def check(self, claimed: ClaimRecord, given: PersonState | None, queue: str | None) -> None:
        """Check the answer to a claim: a person of a queue, or none."""
        now = claimed.at
        opened = hours.opened_at(now)
        if opened is None or now < opened + self._state.delays.promotion:
            return
        agent = self._state.agents[claimed.agent_id]
        asked = [
            it for it in claimed.queues or DEFAULT_ORDER if not agent.limits or it in agent.limits
        ]
        self._check_callbacks(
            claimed,
            given if queue == CALLBACKS else None,
            queue,
            own_only=CALLBACKS not in asked,
        )
        if queue != CALLBACKS:
            others = [it for it in asked if it != CALLBACKS]
            self._check_ordinary(claimed, others, given, queue)

    def _check_ordinary(
        self,
        claimed: ClaimRecord,
        asked: Sequence[str],
        given: PersonState | None,
        queue: str | None,
    ) -> None:
        skipped = self._state.agents[claimed.agent_id].skipped_user_id
        for each in asked:
            first = self._ladders[each].first(claimed.at, skipped)
            is_last = each == queue
            if first is not None and first is not given:
                comes_first = not is_last or given is None or _is_before(first, given)
                self._judge(first, claimed, comes_first=comes_first)
                if is_last and given is not None:
                    self._check_skip(claimed, given)
            else:
                self._report.checks["no person passed over"] += 1
            if is_last:
                return

    def _check_skip(self, claimed: ClaimRecord, given: PersonState) -> None:
        """Another person of that queue waits."""
        agent = self._state.agents[claimed.agent_id]
        self._report.check(
            "not again after a skip",
            agent.skipped_user_id != given.user_id,
            claimed.at,
            f"person {given.user_id} again to {claimed.agent_id}, who has just skipped them",
        )

    def _check_callbacks(
        self, claimed: ClaimRecord, given: PersonState | None, queue: str | None, *, own_only: bool
    ) -> None:
        """Check callbacks due: `own_only` for an agent limited to other queues."""
        allowed = self._state.delays.promotion
        given_due = (
            given.callback.due_at if given is not None and given.callback is not None else None
        )
        while self._agreed and self._agreed[0][0] <= claimed.at:
            _, user_id, version = heapq.heappop(self._agreed)
            if self._state.people[user_id].version == version:
                self._due.add(user_id)
        for user_id in self._due:
            person = self._state.people[user_id]
            if person is given or not self._is_callback_ready(person, claimed):
                continue
            if own_only and not self._prefers(person, claimed.agent_id):
                continue
            due_at = person.callback.due_at if person.callback is not None else claimed.at
            is_earlier = queue != CALLBACKS or (
                given_due is not None and due_at + allowed < given_due
            )
            self._judge(person, claimed, comes_first=is_earlier)

    def _is_callback_ready(self, person: PersonState, claimed: ClaimRecord) -> bool:
        callback = person.callback
        if callback is None:
            return False
        # The preferred agent's minutes begin when the person can first be called; the numbers
        # that the person had before may have kept that off until they changed.
        holds = max(may_hold_until(self._state, person), person.phone_known_by)
        since = hours.next_open(max(callback.due_at, holds))
        prefers = callback.preferred_agent_id
        if prefers and prefers != claimed.agent_id:
            since += PREFERRED_FOR
        if claimed.at < since + self._state.delays.promotion:
            return False
        when = _free_at(self._state, person, claimed.at)
        return when is not None and when <= claimed.at

    @staticmethod
    def _prefers(person: PersonState, agent_id: str) -> bool:
        callback = person.callback
        return callback is not None and callback.preferred_agent_id == agent_id

    def _judge(self, person: PersonState, claimed: ClaimRecord, *, comes_first: bool) -> None:
        if comes_first:
            person.times_passed_over.add(claimed.at)
        starved = len(person.times_passed_over) >= MOMENTS_PASSED_OVER
        words = f"person {person.user_id} ({person.view.matter}) for {claimed.agent_id}"
        if comes_first and starved:
            # Once for each time a person is passed over.
            person.times_passed_over.clear()
        self._report.check(
            "no person passed over", not (comes_first and starved), claimed.at, words
        )


def _is_before(first: PersonState, given: PersonState) -> bool:
    if first.key.is_surely_before(given.key):
        return True
    fresh_at = first.key.fresh_at
    is_tie = fresh_at is not None and fresh_at == given.key.fresh_at
    return is_tie and first.user_id > given.user_id


def surely_ready_at(state: CheckerState, person: PersonState, now: datetime) -> datetime | None:
    """Return from when on the person is ready whatever the checker does not know; None for never.

    Never unless something happens, that is.
    """
    view = person.view
    if view.matter is None or person.callback is not None or person.is_stopped:
        return None
    if person.key.highest_score(now) >= _ALMOST_FROZEN:
        return None
    free_at = _free_at(state, person, now)
    if free_at is None:
        return None
    waits_until = max(person.next_call_by, person.cools_until) + state.delays.promotion
    return max(free_at, waits_until)


def _free_at(state: CheckerState, person: PersonState, now: datetime) -> datetime | None:
    """Return from when on nothing keeps the person from any call, callbacks included."""
    phones = person.view.phones
    if not person.view.is_contactable or person.is_stopped:
        return None
    if not state.sure_lines_of(phones) or any(state.phone_stops[it].may_stop for it in phones):
        return None
    until = max(person.known_by, may_hold_until(state, person))
    if person.held is not None:
        until = max(until, person.held.end)
    for phone in state.lines_of(phones):
        for other in state.others_with(phone, person):
            if other.held is not None and other.held.is_live(now):
                until = max(until, now + _SHORTLY)
    return until if until == LONG_AGO else until + state.delays.promotion
