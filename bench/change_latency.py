"""From a commit in MySQL to the event on the gateway's stream, beside a bare binlog reader."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pymysql
from sqlalchemy import make_url

from bench.measurement import BenchResult, percentile, summarise
from devstack.desk import Desk
from devstack.processes import ChildProcess
from devstack.stack import Stack

RATES = (50, 200)
ROUNDS = 3
SECONDS = 8.0
SETTLE_SECONDS = 20.0
LEGS = ("captured_at", "received_at", "refreshed_at", "applied_at")
LEG_NAMES = ("capture", "SQS", "refresh", "queue", "stream")


@dataclass
class LatencyRound:
    """One stretch of changes: when each person's row was committed, and the events seen."""

    committed: dict[int, float] = field(default_factory=dict)
    seen: dict[int, tuple[float, dict[str, Any]]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every change has been seen."""
        return self.committed.keys() <= self.seen.keys()

    def latencies(self) -> list[float]:
        """Milliseconds from commit to event."""
        return [(self.seen[each][0] - at) * 1000 for each, at in self.committed.items()]

    def legs(self) -> list[list[float]]:
        """Milliseconds of each leg, by change."""
        rows = []
        for user_id, committed_at in self.committed.items():
            seen_at, event = self.seen[user_id]
            marks = [committed_at]
            marks += [datetime.fromisoformat(event["timeline"][leg]).timestamp() for leg in LEGS]
            marks.append(seen_at)
            rows.append([max(0.0, b - a) * 1000 for a, b in itertools.pairwise(marks)])
        return rows


async def measure(stack: Stack) -> list[BenchResult]:
    """p50 and p99 at each rate, with each leg's share in the conditions."""
    results = []
    with _bare_reader(stack) as floor:
        for rate in RATES:
            results += await asyncio.to_thread(_at_rate, stack, floor, rate)
    return results


def _at_rate(stack: Stack, floor: BareReader, rate: int) -> list[BenchResult]:
    rounds = [_round(stack, floor, rate) for _ in range(ROUNDS)]
    legs = [leg for each, _ in rounds for leg in each.legs()]
    medians = [percentile([leg[i] for leg in legs], 0.5) for i in range(len(LEG_NAMES))]
    shares = ", ".join(f"{n} {m:.1f}" for n, m in zip(LEG_NAMES, medians, strict=True))
    return [
        summarise(
            f"change_latency_{rate}_{label}",
            [percentile(each.latencies(), share) for each, _ in rounds],
            [percentile(bare, share) for _, bare in rounds],
            unit="ms",
            conditions=f"{rate} changes/s for {SECONDS:.0f} s; median legs in ms: {shares}",
            floor_name="bare binlog reader sees the row",
        )
        for label, share in (("p50", 0.5), ("p99", 0.99))
    ]


def _round(stack: Stack, floor: BareReader, rate: int) -> tuple[LatencyRound, list[float]]:
    floor.forget()
    current = LatencyRound()
    stop = threading.Event()
    opened = threading.Event()
    reader = threading.Thread(target=_listen, args=(stack, current, opened, stop), daemon=True)
    reader.start()
    opened.wait(10)
    _write(stack, current, rate)
    deadline = time.monotonic() + SETTLE_SECONDS
    while not current.is_complete and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    if not current.is_complete:
        missing = len(current.committed.keys() - current.seen.keys())
        raise RuntimeError(f"{missing} changes never reached the stream")
    seen = floor.seen()
    bare = [(seen[each] - at) * 1000 for each, at in current.committed.items() if each in seen]
    return current, bare


def _write(stack: Stack, current: LatencyRound, rate: int) -> None:
    url = make_url(stack.addresses.mysql_writer)
    connection = pymysql.connect(
        host=url.host or "",
        port=url.port or 0,
        user=url.username,
        password=url.password or "",
        database=url.database,
        autocommit=True,
    )
    count = int(rate * SECONDS)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM users ORDER BY RAND() LIMIT %s", (count,))
        user_ids = [row[0] for row in cursor.fetchall()]
        began = time.perf_counter()
        for number, user_id in enumerate(user_ids):
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            word = f"bench-{time.time_ns()}"
            cursor.execute("UPDATE users SET previous_name = %s WHERE id = %s", (word, user_id))
            current.committed[user_id] = time.time()


def _listen(
    stack: Stack, current: LatencyRound, opened: threading.Event, stop: threading.Event
) -> None:
    with Desk(stack.addresses, "supervisor", "bench") as desk, desk.events() as events:
        opened.set()
        while not stop.is_set():
            try:
                seen = events.wait_for(lambda event: event.get("type") == "context_changed", 1.0)
            except TimeoutError:
                continue
            current.seen.setdefault(int(seen.event["user_id"]), (seen.at.timestamp(), seen.event))


class BareReader:
    """The bare reader's process and what it has printed."""

    def __init__(self, process: ChildProcess, output: Path) -> None:
        self._process = process
        self._output = output
        self._from = 0

    def __enter__(self) -> BareReader:
        self._output.unlink(missing_ok=True)
        self._process.start()
        self._process.wait_ready(lambda: b"ready\n" in self._output.read_bytes())
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()

    def forget(self) -> None:
        """Count only what comes from now on."""
        self._from = self._output.stat().st_size

    def seen(self) -> dict[int, float]:
        """First time each person's row was seen since `forget`."""
        lines = self._output.read_bytes()[self._from :].decode("ascii").splitlines()
        first: dict[int, float] = {}
        for line in lines:
            user_id, _, at = line.partition(" ")
            if at:
                first.setdefault(int(user_id), float(at))
        return first


def _bare_reader(stack: Stack) -> BareReader:
    output = stack.folder / "logs" / "bare_reader.log"
    arguments = (stack.addresses.mysql_relay,)
    process = ChildProcess("bare reader", "bench.binlog_reader", output, arguments=arguments)
    return BareReader(process, output)
