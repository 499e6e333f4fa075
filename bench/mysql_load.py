"""What the main app's MySQL is asked for a thousand calls, beside desks that poll it.

MariaDB counts by account, so that the main app's own statements stay out of the figures.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from bench.measurement import BenchResult, summarise
from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.mysql_connection import Connection, connect
from devstack.stack import Stack, wait_until

ROUNDS = 3
CALLS = 334
"""Calls a round; the rounds together make the thousand."""
AGENTS = 20
CHANGES = 300
CHANGES_PER_SECOND = 10.0
POLLS = 100
POLL_SECONDS = 1.0
"""How often a desk polls. Not above what 99 in 100 changes take to reach our desks
(`change_latency` in results.json), so that the polled desk is at best as fresh."""
CALL_SECONDS = 300.0
"""How long an agent is with one person. A desk polls all that time; idle ones are not counted."""
QUIET_SECONDS = 2.0
SETTLE_SECONDS = 120.0

_OPEN = "(c.status IS NULL OR c.status NOT IN ('complete', 'cancelled'))"
_LIST = f"""
SELECT u.id, u.first_name, u.last_name, u.phone_number, u.created_at FROM users u
WHERE u.is_enabled = 1 AND (u.status IS NULL OR u.status <> 'inactive')
  AND u.current_signature_file_id IS NULL
  AND EXISTS (SELECT 1 FROM claims c WHERE c.user_id = u.id AND {_OPEN})
ORDER BY u.id DESC LIMIT 25
"""
_CONTEXT = (
    "SELECT id, first_name, last_name, phone_number, status, current_user_address_id,"
    " current_signature_file_id FROM users WHERE id = %s",
    "SELECT id, type, status, lender, solicitor FROM claims WHERE user_id = %s",
    "SELECT r.id, r.claim_id, r.type, r.status FROM claim_requirements r"
    " JOIN claims c ON c.id = r.claim_id WHERE c.user_id = %s",
    "SELECT v.id, v.claim_id, v.vehicle_registration FROM claim_vehicle_packages v"
    " JOIN claims c ON c.id = v.claim_id WHERE c.user_id = %s",
    "SELECT a.id, a.full_address FROM user_addresses a"
    " JOIN users u ON u.current_user_address_id = a.id WHERE u.id = %s",
)
# Without an index on updated_at, which raw updates leave alone anyway, only a look at every row
# finds what has changed: this is the least of it.
_SWEEP = tuple(
    f"SELECT COUNT(*), BIT_XOR(CRC32(CONCAT_WS('#', {columns}))) FROM {table}"
    for table, columns in (
        ("users", "id, is_enabled, status, phone_number, current_signature_file_id, updated_at"),
        ("claims", "id, user_id, status, lender, updated_at"),
        ("claim_requirements", "id, claim_id, type, status, updated_at"),
        ("claim_vehicle_packages", "id, claim_id, status, updated_at"),
        ("user_addresses", "id, user_id, post_code, updated_at"),
    )
)


@dataclass(frozen=True)
class MysqlLoad:
    """What one account has asked of MySQL."""

    statements: float
    rows_read: float
    busy_seconds: float

    def __sub__(self, other: MysqlLoad) -> MysqlLoad:
        return MysqlLoad(
            self.statements - other.statements,
            self.rows_read - other.rows_read,
            self.busy_seconds - other.busy_seconds,
        )

    def times(self, factor: float) -> MysqlLoad:
        """The load of so many times as much work."""
        return MysqlLoad(
            self.statements * factor, self.rows_read * factor, self.busy_seconds * factor
        )


class Meter:
    """Reads what the account `dialler`, the only one of ours that reads, has done so far."""

    def __init__(self, admin: Connection) -> None:
        self._admin = admin
        with admin.cursor() as cursor:
            cursor.execute("SET GLOBAL userstat = ON")

    def read(self) -> MysqlLoad:
        """Everything since the counters began: reads, and their BEGIN, COMMIT and SET."""
        with self._admin.cursor() as cursor:
            cursor.execute(
                "SELECT select_commands + update_commands + other_commands, rows_read, busy_time"
                " FROM information_schema.user_statistics WHERE user = 'dialler'"
            )
            row = cursor.fetchone() or (0, 0, 0.0)
        return MysqlLoad(float(row[0]), float(row[1]), float(row[2]))

    def measure(self, work: Callable[[], object]) -> MysqlLoad:
        """Return what ``work`` asked of MySQL, and what it left to be done for a moment after."""
        before = self.read()
        work()
        self.settle()
        return self.read() - before

    def settle(self) -> None:
        """Return once nothing but health checks is asked."""
        wait_until(self._is_quiet, SETTLE_SECONDS, "MySQL comes to rest")

    def _is_quiet(self) -> bool:
        before = self.read()
        time.sleep(QUIET_SECONDS)
        return (self.read() - before).rows_read == 0


async def measure(stack: Stack) -> list[BenchResult]:
    """Statements, rows and time in the server for 1,000 calls: ours beside desks that poll."""
    return await asyncio.to_thread(_measure, stack)


def _measure(stack: Stack) -> list[BenchResult]:
    ours: list[MysqlLoad] = []
    polled: list[MysqlLoad] = []
    with stack.mariadb.connect() as admin, _desks(stack) as desks:
        meter = Meter(admin)
        meter.settle()
        for _ in range(ROUNDS):
            polls = meter.measure(lambda: _poll(stack))
            polled.append(polls.times(1_000 * CALL_SECONDS / POLL_SECONDS / POLLS))
            ours.append(meter.measure(lambda: _call(desks)).times(1_000 / CALLS))
        _forget_contexts(stack)
        cold = meter.measure(lambda: _call(desks)).times(1 / CALLS)
        changes = meter.measure(lambda: _change(stack)).times(1 / CHANGES)
        sweep = meter.measure(lambda: _sweep(stack))
    conditions = (
        f"{stack.users:,} people; a call is a claim, its context and an outcome "
        f"({cold.statements:.1f} statements instead when no context is cached); besides, each "
        f"change of the main app costs {changes.statements:.1f} statements, "
        f"{changes.rows_read:.0f} rows, {changes.busy_seconds * 1e3:.2f} ms; a poller shared by "
        f"all desks needs {sweep.statements:.0f} statements, {sweep.rows_read:,.0f} rows and "
        f"{sweep.busy_seconds * 1e3:,.0f} ms each time"
    )
    floor_name = (
        f"a desk polling its list and context every {POLL_SECONDS:g} s, {CALL_SECONDS:.0f} s a call"
    )

    def result(quantity: str, unit: str, of: Callable[[MysqlLoad], float]) -> BenchResult:
        return summarise(
            f"mysql_load_{quantity}",
            [of(each) for each in ours],
            [of(each) for each in polled],
            unit=unit,
            conditions=conditions,
            floor_name=floor_name,
        )

    return [
        result("statements", "statements/1,000 calls", lambda load: load.statements),
        result("rows", "rows read/1,000 calls", lambda load: load.rows_read),
        result("time", "s in MySQL/1,000 calls", lambda load: load.busy_seconds),
    ]


@contextmanager
def _desks(stack: Stack) -> Iterator[Sequence[Desk]]:
    desks = [Desk(stack.addresses, "agent") for _ in range(AGENTS)]
    try:
        yield desks
    finally:
        for desk in desks:
            desk.client.close()


def _call(desks: Sequence[Desk]) -> None:
    """One call after the other: agents who claim together would share statements."""
    for desk in itertools.islice(itertools.cycle(desks), CALLS):
        assignment = desk.claim()["assignment"]
        if assignment is None:
            raise RuntimeError("no person is left to call; take more people")
        desk.get(f"/v1/people/{assignment['user_id']}/context")
        desk.record(assignment["assignment_id"], "no_answer").raise_for_status()


def _change(stack: Stack) -> None:
    """Changes one by one, as the main app's users make them, of the kinds they make."""
    pause = threading.Event()
    chance = random.Random(4)
    with MainApp(stack.addresses.mysql_writer) as app:
        for _ in range(CHANGES):
            app.random_change(chance)
            pause.wait(1 / CHANGES_PER_SECOND)


def _forget_contexts(stack: Stack) -> None:
    with redis.Redis.from_url(stack.addresses.redis) as cache:
        for key in cache.scan_iter("ctx:*", count=1_000):
            cache.delete(key)


def _poll(stack: Stack) -> None:
    chance = random.Random(4)
    with connect(stack.addresses.mysql_reader) as connection, connection.cursor() as cursor:
        # Else MariaDB gathers the claims of all users for a list of 25, which a poller would avoid.
        cursor.execute("SET optimizer_switch = 'semijoin=off,materialization=off'")
        for _ in range(POLLS):
            cursor.execute(_LIST)
            cursor.fetchall()
            user_id = chance.randint(1, stack.users)
            for statement in _CONTEXT:
                cursor.execute(statement, (user_id,))
                cursor.fetchall()


def _sweep(stack: Stack) -> None:
    with connect(stack.addresses.mysql_reader) as connection, connection.cursor() as cursor:
        for statement in _SWEEP:
            cursor.execute(statement)
            cursor.fetchall()
