"""One UPDATE of 50,000 claims, absorbed while single changes go on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.bare_binlog import read_rows
from bench.measurement import BenchResult, summarise
from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.stack import DIALLER, Stack, wait_until

CLAIMS = 50_000
# About three claims each, and some people whom the UPDATE leaves alone.
USERS = 18_000
SINGLES = 400
ROUNDS = 2
PEOPLE_A_BATCH = 500
SINGLE_PAUSE_SECONDS = 0.05
PATIENCE_SECONDS = 120.0


@dataclass
class Singles:
    """Single changes: when each was committed and when its event came."""

    committed: dict[int, float] = field(default_factory=dict)
    seen: dict[int, float] = field(default_factory=dict)


async def measure(stack: Stack) -> list[BenchResult]:
    """Time to absorb, statements used, and how late the latest single change was.

    On a stack of its own, since it needs more people than the others.
    """
    return await asyncio.to_thread(_measure, stack.folder.parent / "burst")


def _measure(folder: Path) -> list[BenchResult]:
    with Stack(folder, users=USERS, report=lambda _: None) as stack:
        with Desk(stack.addresses, "supervisor", "bench") as desk:
            desk.await_reconciled()
        rounds = [_round(stack, number) for number in range(ROUNDS)]
    conditions = f"one UPDATE of {CLAIMS:,} claims of {rounds[0].people:,} people, one copy of each"
    floor_name = "a bare read of the same rows from the binlog"
    floors = [each.bare_seconds for each in rounds]
    pause = f"a single change every {SINGLE_PAUSE_SECONDS * 1000:.0f} ms meanwhile"
    return [
        summarise(
            "burst",
            [each.seconds for each in rounds],
            floors,
            unit="s",
            conditions=conditions,
            floor_name=floor_name,
        ),
        summarise(
            "burst_statements",
            [float(each.selects) for each in rounds],
            [each.people / PEOPLE_A_BATCH for each in rounds],
            unit="SELECTs in MySQL",
            conditions=conditions,
            floor_name=f"one for each {PEOPLE_A_BATCH} people",
        ),
        summarise(
            "burst_single_worst",
            [each.worst_seconds for each in rounds],
            floors,
            unit="s from commit to event",
            conditions=f"{conditions}; {pause}",
            floor_name=floor_name,
        ),
    ]


@dataclass(frozen=True)
class BurstRound:
    """What one burst came to, alone and then with single changes beside it."""

    people: int
    seconds: float
    selects: int
    worst_seconds: float
    bare_seconds: float


def _round(stack: Stack, number: int) -> BurstRound:
    rows = stack.main_app.rows("SELECT id, user_id FROM claims ORDER BY id LIMIT %s", (CLAIMS,))
    people = {int(row[1]) for row in rows}
    every_user = [int(row[0]) for row in stack.main_app.rows("SELECT id FROM users")]
    others = [each for each in every_user if each not in people][:SINGLES]
    last_claim_id = int(rows[-1][0])
    position, selects = _binlog_end(stack), _selects(stack)
    seconds, _ = _burst(stack, last_claim_id, len(people), f"alone-{number}")
    selects = _selects(stack) - selects
    bare_seconds = read_rows(stack.addresses.mysql_relay, position, len(rows))
    with _singles(stack, others) as singles:
        wait_until(lambda: len(singles.seen) > 5, 20, "single changes")
        took, began = _burst(stack, last_claim_id, len(people), f"beside-{number}")
    during = [
        singles.seen[each] - at
        for each, at in singles.committed.items()
        if began - 1 <= at <= began + took
    ]
    return BurstRound(len(people), seconds, selects, max(during), bare_seconds)


def _burst(stack: Stack, last_claim_id: int, people: int, name: str) -> tuple[float, float]:
    """Return how long it takes until every user has been applied, and when it began."""
    version = _number(stack, "SELECT max(facts_version) FROM queue.entries")
    _update(stack, last_claim_id, f"{name}-{time.time_ns()}")
    began = time.time()
    done = f"SELECT count(*) FROM queue.entries WHERE facts_version > {version}"
    wait_until(lambda: _number(stack, done) >= people, PATIENCE_SECONDS, "the burst")
    return time.time() - began, began


def _update(stack: Stack, last_claim_id: int, status: str) -> None:
    stack.main_app.execute(
        "UPDATE claims SET status = %s, updated_at = UTC_TIMESTAMP() WHERE id <= %s",
        (status, last_claim_id),
    )


def _binlog_end(stack: Stack) -> tuple[str, int]:
    with stack.mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW MASTER STATUS")
        row = cursor.fetchone()
    assert row is not None
    return str(row[0]), int(row[1])


def _selects(stack: Stack) -> int:
    with stack.mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")
        row = cursor.fetchone()
    assert row is not None
    return int(row[1])


def _number(stack: Stack, query: str) -> int:
    return int(stack.postgres.execute(query, database=DIALLER) or 0)


@contextlib.contextmanager
def _singles(stack: Stack, people: list[int]) -> Iterator[Singles]:
    """Change these people one by one while the block runs, then wait for the last event."""
    singles, stop, opened = Singles(), threading.Event(), threading.Event()
    listener_stop = threading.Event()
    listener = threading.Thread(target=_listen, args=(stack, singles, opened, listener_stop))
    writer = threading.Thread(target=_write, args=(stack, people, singles, stop))
    listener.start()
    opened.wait(30)
    writer.start()
    try:
        yield singles
        stop.set()
        writer.join()
        all_seen = lambda: singles.committed.keys() <= singles.seen.keys()  # noqa: E731
        wait_until(all_seen, 30, "the last single change")
    finally:
        stop.set()
        listener_stop.set()
        listener.join()


def _write(stack: Stack, people: list[int], singles: Singles, stop: threading.Event) -> None:
    with MainApp(stack.addresses.mysql_writer) as main_app:
        for user_id in people:
            main_app.set_status(user_id, f"single-{time.time_ns()}")
            singles.committed[user_id] = time.time()
            if stop.wait(SINGLE_PAUSE_SECONDS):
                return


def _listen(stack: Stack, singles: Singles, opened: threading.Event, stop: threading.Event) -> None:
    with Desk(stack.addresses, "supervisor", "bench") as desk, desk.events() as events:
        opened.set()
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                seen = events.wait_for(lambda event: event.get("type") == "context_changed", 0.5)
                singles.seen.setdefault(int(seen.event["user_id"]), seen.at.timestamp())
