"""What happens in the main app during the week, seeded, and written down for the checker.

All of it goes through one thread, so that no other writer changes what it has just read back.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from devstack.changes import Cursor, MainApp
from devstack.vocabulary import LENDERS
from servicekit.clock import Clock
from simulation.history import OUTSTANDING, UNSIGNED, Truth, View, Window
from simulation.main_app_rows import MainAppRows
from simulation.phone_fields import any_number, changed_field, written

# Of a hundred changes, those to people whom agents have just been handed, or soon will be.
_TO_THE_CALLED = 12
_TO_THE_NEXT = 20
# Of a thousand, those kept out of the binlog.
_UNSEEN = 8

_MIX = {
    "requirement_completed": 22,
    "login": 15,
    "requirement_added": 14,
    "signed": 8,
    "claim_added": 7,
    "claim_changed_quietly": 6,
    "claim_ended": 5,
    "phone_changed": 5,
    "person_added": 5,
    "status_changed": 4,
    "enabled_changed": 3,
    "signature_rejected": 2,
    "claim_deleted": 1,
    "claim_moved": 1,
    "claims_changed_in_bulk": 1,
    "person_deleted": 1,
}


class Pool:
    """People one of whom is picked at random, the same one for the same choices before."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._places: dict[int, int] = {}

    def put(self, user_id: int, *, belongs: bool) -> None:
        """Take the person in, or see that they are out."""
        if belongs and user_id not in self._places:
            self._places[user_id] = len(self._ids)
            self._ids.append(user_id)
        elif not belongs and user_id in self._places:
            place, last = self._places.pop(user_id), self._ids.pop()
            if last != user_id:
                self._ids[place] = last
                self._places[last] = place

    def pick(self, rng: Random) -> int | None:
        """Return a person; None if there is none."""
        return rng.choice(self._ids) if self._ids else None


@dataclass(slots=True)
class ChangingPopulation:
    """The present view of every person, and which changes each may have."""

    views: dict[int, View]
    pools: dict[str, Pool] = field(default_factory=dict)
    # Handed out lately, the latest last.
    called: deque[int] = field(default_factory=lambda: deque(maxlen=60))
    # At the heads of the queues a while ago.
    next: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pools = {name: Pool() for name in ("all", "barred", UNSIGNED, OUTSTANDING, "signed")}
        for user_id, view in self.views.items():
            self.sort(user_id, view)

    def sort(self, user_id: int, view: View) -> None:
        """Take over a person's view."""
        self.views[user_id] = view
        self.pools["all"].put(user_id, belongs=view.exists)
        self.pools["barred"].put(user_id, belongs=view.exists and not view.is_contactable)
        self.pools["signed"].put(user_id, belongs=view.is_signed)
        for matter in (UNSIGNED, OUTSTANDING):
            self.pools[matter].put(user_id, belongs=view.matter == matter)


class MainAppChanges:
    """Makes changes one after the other and tells what they came to."""

    def __init__(
        self,
        writer_url: str,
        unlogged_url: str,
        population: ChangingPopulation,
        clock: Clock,
        seed: int,
        told: Callable[[Truth], None],
    ) -> None:
        self._clock = clock
        self._rng = Random(f"{seed}/changes")
        self._told = told
        self._population = population
        self._app = MainApp(writer_url, self._set_time)
        self._unlogged = MainApp(unlogged_url, self._set_time_unlogged)
        self._rows = MainAppRows(writer_url)
        self.made: Counter[str] = Counter()

    def close(self) -> None:
        """End the connections."""
        self._app.close()
        self._unlogged.close()
        self._rows.close()

    def make(self, wanted: Sequence[tuple[str, int]], random_ones: int) -> None:
        """Make the changes wanted, of a kind to a person each, and so many random ones."""
        for kind, user_id in wanted:
            self._make(kind, user_id)
        for _ in range(random_ones):
            self._make_random()

    def _set_time(self, cursor: Cursor) -> None:
        """Rows are stamped with the simulated time, as is the binlog."""
        cursor.execute("SET timestamp = %s", (self._clock.now().timestamp(),))

    def _set_time_unlogged(self, cursor: Cursor) -> None:
        cursor.execute("SET sql_log_bin = 0")
        self._set_time(cursor)

    def _make_random(self) -> None:
        (kind,) = self._rng.choices(list(_MIX), weights=list(_MIX.values()))
        pool = _POOLS.get(kind, "all")
        user_id = self._population.pools[pool].pick(self._rng)
        called, coming = list(self._population.called), self._population.next
        roll = self._rng.randrange(100)
        if called and roll < _TO_THE_CALLED:
            user_id = self._rng.choice(called)
        elif coming and roll < _TO_THE_CALLED + _TO_THE_NEXT:
            user_id = self._rng.choice(coming)
        if user_id is not None:
            self._make(kind, user_id)

    def _make(self, kind: str, user_id: int) -> None:
        is_captured = self._rng.randrange(1000) >= _UNSEEN
        app = self._app if is_captured else self._unlogged
        at, began = self._clock.now(), time.perf_counter()
        change = _CHANGES[kind]
        concerned = change(self, app, user_id)
        window = Window(began, time.perf_counter())
        self.made[kind] += 1
        self._tell(at, window, concerned, is_captured=is_captured)

    def _tell(
        self, at: datetime, window: Window, user_ids: Iterable[int], *, is_captured: bool
    ) -> None:
        """Read back what has become of those concerned."""
        views = self._rows.views(sorted(set(user_ids)))
        for user_id, view in views.items():
            if self._population.views.get(user_id) == view:
                continue
            self._population.sort(user_id, view)
            self._told(Truth(at, window, user_id, view, is_captured))

    def _sign(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        app.sign(user_id)
        return (user_id,)

    def _unsign(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        app.unsign(user_id)
        return (user_id,)

    def _log_in(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        app.log_in(user_id)
        return (user_id,)

    def _complete(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        pending = self._rows.pending_requirement_ids(user_id)
        count = len(pending) if self._rng.random() < 0.5 else 1
        for requirement_id in pending[:count]:
            app.complete_requirement(requirement_id)
        return (user_id,)

    def _require(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        claims = self._rows.claim_ids(user_id, only_open=True)
        if claims:
            kind = self._rng.choice(("proof_of_address", "bank_statement", "cfa", "id_document"))
            reason = "base requirement for claim." if self._rng.random() < 0.3 else None
            app.add_requirement(self._rng.choice(claims), kind, reason)
        return (user_id,)

    def _add_claim(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        if self._population.views[user_id].exists:
            app.add_claim(user_id, self._rng.choice(self._rng.choice(LENDERS)))
        return (user_id,)

    def _change_claim(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        claims = self._rows.claim_ids(user_id)
        if claims:
            status = self._rng.choice((None, "pending", "in_progress"))
            app.set_claim_status_quietly(self._rng.choice(claims), status)
        return (user_id,)

    def _end_claims(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        claims = self._rows.claim_ids(user_id, only_open=True)
        if claims and self._rng.random() < 0.6:
            claims = [self._rng.choice(claims)]
        if claims:
            app.update_claims(claims, self._rng.choice(("complete", "cancelled")))
        return (user_id,)

    def _change_phone(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        views = self._population.views
        other = self._population.pools["all"].pick(self._rng)
        phones = views[other].phones if other is not None else ()
        neighbour = self._rng.choice(phones) if phones else None
        app.change_phone(user_id, changed_field(self._rng, views[user_id].phones, neighbour))
        return (user_id,)

    def _add_person(self, app: MainApp, _: int) -> tuple[int, ...]:
        number = written(self._rng, any_number(self._rng))
        return (app.add_person(phone_number=number),)

    def _change_status(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        barred = self._population.pools["barred"].pick(self._rng)
        if barred is not None and self._rng.random() < 0.5:
            app.set_status(barred, self._rng.choice((None, "active")))
            return (barred,)
        app.set_status(user_id, "inactive")
        return (user_id,)

    def _change_enabled(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        barred = self._population.pools["barred"].pick(self._rng)
        if barred is not None and self._rng.random() < 0.5:
            app.set_enabled(barred, enabled=True)
            return (barred,)
        app.set_enabled(user_id, enabled=False)
        return (user_id,)

    def _delete_claim(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        claims = self._rows.claim_ids(user_id)
        if claims:
            app.delete_claim(self._rng.choice(claims))
        return (user_id,)

    def _move_claim(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        claims, other = self._rows.claim_ids(user_id), self._population.pools["all"].pick(self._rng)
        if not claims or other is None:
            return (user_id,)
        app.move_claim(self._rng.choice(claims), other)
        return (user_id, other)

    def _change_many_claims(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        claims = self._rows.claims_from(user_id * 10, self._rng.randint(5, 50))
        if claims:
            app.update_claims([claim_id for claim_id, _ in claims], "in_progress")
        return tuple(user for _, user in claims)

    def _delete_person(self, app: MainApp, user_id: int) -> tuple[int, ...]:
        app.delete_person(user_id)
        return (user_id,)


# The people among whom a random one is chosen, where it is not every person.
_POOLS = {
    "requirement_completed": OUTSTANDING,
    "signed": UNSIGNED,
    "signature_rejected": "signed",
}
_CHANGES: dict[str, Callable[[MainAppChanges, MainApp, int], tuple[int, ...]]] = {
    "requirement_completed": MainAppChanges._complete,
    "login": MainAppChanges._log_in,
    "requirement_added": MainAppChanges._require,
    "signed": MainAppChanges._sign,
    "claim_added": MainAppChanges._add_claim,
    "claim_changed_quietly": MainAppChanges._change_claim,
    "claim_ended": MainAppChanges._end_claims,
    "phone_changed": MainAppChanges._change_phone,
    "person_added": MainAppChanges._add_person,
    "status_changed": MainAppChanges._change_status,
    "enabled_changed": MainAppChanges._change_enabled,
    "signature_rejected": MainAppChanges._unsign,
    "claim_deleted": MainAppChanges._delete_claim,
    "claim_moved": MainAppChanges._move_claim,
    "claims_changed_in_bulk": MainAppChanges._change_many_claims,
    "person_deleted": MainAppChanges._delete_person,
}
