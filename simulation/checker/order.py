"""Whether the right one was handed out: nobody who comes first was passed over, nobody starves.

People are passed over for a moment while a claim under way has them in its hands. So whoever comes
first, has been ready for longer than the services may take to notice, and is passed over at three
different moments with nothing happening to them in between, counts as starved.
"""

import heapq
from collections.abc import Sequence
from datetime import datetime, timedelta

from simulation.checker import hours
from simulation.checker.findings import Report
from simulation.checker.people import LONG_AGO, Person
from simulation.checker.rules import FROZEN_SCORE, PREFERRED_FOR, SHARED_PHONE
from simulation.checker.state import State
from simulation.history import CALLBACKS, OUTSTANDING, UNSIGNED, Claimed

DEFAULT_ORDER = (CALLBACKS, UNSIGNED, OUTSTANDING)
MOMENTS_PASSED_OVER = 3

_SHORTLY = timedelta(minutes=10)
_ALMOST_FROZEN = FROZEN_SCORE - 1.0


class Ladder:
    """Those of one queue who are surely ready, the first at the top.

    A person's entry is worth nothing once the person's `version` is another one.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._coming: list[tuple[datetime, int, int]] = []
        self._ready: list[tuple[float, int, int]] = []

    def put(self, person: Person, when: datetime) -> None:
        """Look at the person from that moment on."""
        heapq.heappush(self._coming, (when, person.user_id, person.version))

    def first(self, now: datetime, other_than: int | None) -> Person | None:
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

    def _is_ready(self, person: Person, now: datetime) -> bool:
        when = surely_ready_at(self._state, person, now)
        if when is None:
            return False
        if when > now:
            self.put(person, when)
        return when <= now


class Order:
    """Watches who is handed out while others wait."""

    def __init__(self, state: State, report: Report) -> None:
        self._state = state
        self._report = report
        self._ladders = {UNSIGNED: Ladder(state), OUTSTANDING: Ladder(state)}
        # Callbacks by when they must be offered, and those for which that has come.
        self._agreed: list[tuple[datetime, int, int]] = []
        self._due: set[int] = set()

    def touch(self, person: Person, now: datetime) -> None:
        """Reckon anew with somebody to whom something has happened."""
        person.version += 1
        person.times_passed_over.clear()
        self._due.discard(person.user_id)
        if person.callback is not None:
            due_at = person.callback.due_at + self._state.patience.promotion
            heapq.heappush(self._agreed, (due_at, person.user_id, person.version))
            return
        when = surely_ready_at(self._state, person, now)
        if when is not None and person.view.matter is not None:
            self._ladders[person.view.matter].put(person, when)

    def check(self, claimed: Claimed, given: Person | None, queue: str | None) -> None:
        """Check what a claim was answered: a person of a queue, or nobody."""
        now = claimed.at
        opened = hours.opened_at(now)
        if opened is None or now < opened + self._state.patience.promotion:
            return
        agent = self._state.agents[claimed.agent_id]
        asked = [
            it for it in claimed.queues or DEFAULT_ORDER if not agent.limits or it in agent.limits
        ]
        if CALLBACKS in asked:
            self._check_callbacks(claimed, given if queue == CALLBACKS else None, queue)
        if queue != CALLBACKS:
            others = [it for it in asked if it != CALLBACKS]
            self._check_ordinary(claimed, others, given, queue)

    def _check_ordinary(
        self, claimed: Claimed, asked: Sequence[str], given: Person | None, queue: str | None
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
                self._report.checks["nobody passed over"] += 1
            if is_last:
                return

    def _check_skip(self, claimed: Claimed, given: Person) -> None:
        """Somebody else of that queue waits."""
        agent = self._state.agents[claimed.agent_id]
        self._report.check(
            "not again after a skip",
            agent.skipped_user_id != given.user_id,
            claimed.at,
            f"person {given.user_id} again to {claimed.agent_id}, who has just skipped them",
        )

    def _check_callbacks(self, claimed: Claimed, given: Person | None, queue: str | None) -> None:
        patience = self._state.patience.promotion
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
            due_at = person.callback.due_at if person.callback is not None else claimed.at
            is_earlier = queue != CALLBACKS or (
                given_due is not None and due_at + patience < given_due
            )
            self._judge(person, claimed, comes_first=is_earlier)

    def _is_callback_ready(self, person: Person, claimed: Claimed) -> bool:
        callback = person.callback
        if callback is None:
            return False
        since = callback.due_at
        prefers = callback.preferred_agent_id
        if prefers and prefers != claimed.agent_id:
            since += PREFERRED_FOR
        if claimed.at < since + self._state.patience.promotion:
            return False
        when = _free_at(self._state, person, claimed.at)
        return when is not None and when <= claimed.at

    def _judge(self, person: Person, claimed: Claimed, *, comes_first: bool) -> None:
        if comes_first:
            person.times_passed_over.add(claimed.at)
        starved = len(person.times_passed_over) >= MOMENTS_PASSED_OVER
        words = f"person {person.user_id} ({person.view.matter}) for {claimed.agent_id}"
        if comes_first and starved:
            # Once for each time somebody is left standing.
            person.times_passed_over.clear()
        self._report.check("nobody passed over", not (comes_first and starved), claimed.at, words)


def _is_before(first: Person, given: Person) -> bool:
    if first.key.is_surely_before(given.key):
        return True
    fresh_at = first.key.fresh_at
    is_tie = fresh_at is not None and fresh_at == given.key.fresh_at
    return is_tie and first.user_id > given.user_id


def surely_ready_at(state: State, person: Person, now: datetime) -> datetime | None:
    """Return from when on the person is ready whatever the checker does not know; None for never.

    Never unless something happens, that is.
    """
    view = person.view
    if view.matter is None or person.callback is not None or person.is_blocked:
        return None
    if person.key.highest_score(now) >= _ALMOST_FROZEN:
        return None
    free_at = _free_at(state, person, now)
    if free_at is None:
        return None
    waits_until = max(person.next_call_by, person.cools_until) + state.patience.promotion
    return max(free_at, waits_until)


def _free_at(state: State, person: Person, now: datetime) -> datetime | None:
    """Return from when on nothing keeps the person from any call, callbacks included."""
    if not person.view.is_contactable or person.suppressed is not None:
        return None
    phones = {person.view.phone, person.last_phone}
    if any(it in state.suppressed_phones or it in state.doubtful_phones for it in phones):
        return None
    until = max(person.known_by, person.capped_until(now), LONG_AGO)
    if person.held is not None:
        until = max(until, person.held.end)
    for other in state.sharers(person):
        if other.held is not None and other.held.is_live(now):
            until = max(until, now + _SHORTLY)
        if other.attempts:
            until = max(until, other.attempts[-1] + SHARED_PHONE)
    return until if until == LONG_AGO else until + state.patience.promotion
