"""A full comparison of every user, beside one bare aggregate scan of the same columns and beside
percona-toolkit's pt-table-checksum on the same server."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import subprocess
import time
from dataclasses import dataclass

import grpc
import pymysql
from dialler.reconciler.v1 import reconciler_pb2
from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceStub
from dialler.user_context.v1 import user_context_pb2
from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceStub
from sqlalchemy import make_url

from bench.measurement import BenchResult, load_average, summarise
from devstack.mysql_connection import connect
from devstack.packages import install
from devstack.stack import MAIN_APP, Stack
from mainapp.description import load

ROUNDS = 3
DIFFERING = 1_000
CACHED_TOGETHER = 500
TOOL = "pt-table-checksum"
PACKAGE = "percona-toolkit"
# No schedule may come in between, MySQL need not be spared, and nothing is on its way.
ENVIRONMENT = {
    "RECONCILER_FULL_EVERY_SECONDS": "0",
    "RECONCILER_CHANGED_EVERY_SECONDS": "0",
    "RECONCILER_WARMING_EVERY_SECONDS": "0",
    "RECONCILER_HOUSEKEEPING_EVERY_SECONDS": "0",
    "RECONCILER_SILENCE_SECONDS": "86400",
    "RECONCILER_LOAD_SHARE": "1",
    "RECONCILER_RECHECK_SECONDS": "0",
    "RECONCILER_RECHECK_LONGEST_SECONDS": "0.1",
}


@dataclass(frozen=True)
class StatementTotals:
    """What MySQL was asked and answered meanwhile."""

    seconds: float
    statements: int
    bytes_sent: int


async def measure(stack: Stack, people: int) -> list[BenchResult]:
    """Seconds of a comparison that finds nothing; statements and bytes of two."""
    return await asyncio.to_thread(_measure, stack, people)


def _measure(stack: Stack, people: int) -> list[BenchResult]:
    _require_tool()
    # The tool writes statements into the binlog, for which the relay would request a full run.
    stack.services["binlog_relay"].stop()
    _cache_every_user(stack, people)
    cached = _full_run(stack, differing=0)
    floors, ours, tools, same = [], [], [], []
    for _ in range(ROUNDS):
        floors.append(_bare_scan(stack))
        # Contexts are kept for minutes: only those of people lately looked at are there.
        stack.redis.ask("FLUSHALL")
        asked = _full_run(stack, differing=0)
        ours.append(asked.seconds)
        same.append(asked)
        tools.append(_checksum(stack))
    _change_quietly(stack)
    differing = _full_run(stack, differing=DIFFERING)
    conditions = f"{people:,} people; load {load_average()}"
    rows_bytes = _bytes_of_columns(stack)
    results = [
        summarise(
            f"sweep_{people}",
            ours,
            floors,
            unit="s",
            conditions=f"nothing differs, {conditions}",
            floor_name="BIT_XOR(CRC32(...)) of the same columns, one bare scan of each table",
        ),
        summarise(
            f"sweep_{people}_beside_{TOOL}",
            ours,
            tools,
            unit="s",
            conditions=f"nothing differs, {conditions}",
            floor_name=f"{TOOL} of the same columns",
        ),
    ]
    results.append(
        summarise(
            f"sweep_{people}_all_cached",
            [cached.seconds],
            floors,
            unit="s",
            conditions=f"nothing differs, every context cached and checked, {conditions}",
            floor_name="BIT_XOR(CRC32(...)) of the same columns, one bare scan of each table",
        )
    )
    for what, asked in (("nothing differs", same[-1]), (f"{DIFFERING:,} people differ", differing)):
        suffix = "same" if asked is same[-1] else "differing"
        results.append(
            summarise(
                f"sweep_{people}_bytes_{suffix}",
                [float(asked.bytes_sent)],
                [float(rows_bytes)],
                unit=f"bytes sent by MySQL in {asked.statements:,} SELECTs",
                conditions=f"{what}, {conditions}",
                floor_name="the same columns of every row",
            )
        )
    return results


def _cache_every_user(stack: Stack, people: int) -> None:
    with grpc.insecure_channel(stack.addresses.grpc["user_context"]) as channel:
        stub = UserContextServiceStub(channel)
        for first in range(1, people + 1, CACHED_TOGETHER):
            user_ids = range(first, min(first + CACHED_TOGETHER, people + 1))
            stub.BatchGetUserContexts(
                user_context_pb2.BatchGetUserContextsRequest(user_ids=user_ids), timeout=60
            )


def _columns() -> dict[str, list[str]]:
    return {name: list(table.columns) for name, table in load().tables.items()}


def _bare_scan(stack: Stack) -> float:
    taken = 0.0
    with connect(stack.addresses.mysql_reader) as connection, connection.cursor() as cursor:
        for table, columns in _columns().items():
            sums = f"COUNT(*), BIT_XOR(CRC32(CONCAT_WS('#', {', '.join(columns)})))"
            began = time.perf_counter()
            cursor.execute(f"SELECT {sums} FROM {table}")
            cursor.fetchall()
            taken += time.perf_counter() - began
    return taken


def _bytes_of_columns(stack: Stack) -> int:
    total = 0
    with connect(stack.addresses.mysql_reader) as connection, connection.cursor() as cursor:
        for table, columns in _columns().items():
            length = f"SUM(LENGTH(CONCAT_WS('#', {', '.join(columns)})))"
            cursor.execute(f"SELECT {length} FROM {table}")
            row = cursor.fetchone()
            total += int(row[0]) if row and row[0] else 0
    return total


def _full_run(stack: Stack, *, differing: int) -> StatementTotals:
    before = _status(stack)
    with grpc.insecure_channel(stack.addresses.grpc["reconciler"]) as channel:
        stub = ReconcilerServiceStub(channel)
        kind = reconciler_pb2.RUN_KIND_FULL
        run = stub.StartRun(
            reconciler_pb2.StartRunRequest(kind=kind, reason="bench"), timeout=10
        ).run
        for answer in stub.WatchRun(reconciler_pb2.WatchRunRequest(run_id=run.run_id), timeout=900):
            run = answer.run
    if run.state != reconciler_pb2.RUN_STATE_SUCCEEDED or run.users_refreshed != differing:
        raise RuntimeError(f"the run did something else than asked: {run}")
    after = _status(stack)
    seconds = (run.ended_at.ToMicroseconds() - run.started_at.ToMicroseconds()) / 1e6
    return StatementTotals(
        seconds,
        int(after["Com_select"] - before["Com_select"]),
        int(after["Bytes_sent"] - before["Bytes_sent"]),
    )


def _status(stack: Stack) -> dict[str, int]:
    with stack.mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS WHERE Variable_name IN ('Com_select', 'Bytes_sent')")
        return {str(name): int(value) for name, value in cursor.fetchall()}


def _change_quietly(stack: Stack) -> None:
    """Change people spread over all, in a way that no change message tells."""
    with _as_admin(stack) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_log_bin = 0")
        cursor.execute("SELECT id FROM users ORDER BY RAND(1) LIMIT %s", (DIFFERING,))
        people = [row[0] for row in cursor.fetchall()]
        # Servers are kept from bench to bench: never what they were changed to the last time.
        name = f"Quietly {secrets.token_hex(4)}"
        cursor.execute("UPDATE users SET first_name = %s WHERE id IN %s", (name, people))
        connection.commit()


def _as_admin(stack: Stack) -> pymysql.Connection[pymysql.cursors.Cursor]:
    return connect(stack.mariadb.url(MAIN_APP, user="admin", driver="mysql+pymysql"))


def _require_tool() -> None:
    if shutil.which(TOOL) is None:
        install([PACKAGE])


def _checksum(stack: Stack) -> float:
    """Let pt-table-checksum have the same tables and columns, at its own defaults."""
    url = make_url(stack.mariadb.url(MAIN_APP, user="admin"))
    tables = _columns()
    columns = sorted({column for names in tables.values() for column in names})
    command = [
        TOOL,
        f"h={url.host},P={url.port},u={url.username},p={url.password}",
        "--no-version-check",
        "--recursion-method=none",
        "--no-check-binlog-format",
        "--no-check-replication-filters",
        "--quiet",
        f"--tables={','.join(f'{MAIN_APP}.{table}' for table in tables)}",
        f"--columns={','.join(columns)}",
    ]
    began = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    taken = time.perf_counter() - began
    # 0: all well; with no replicas to compare there is nothing else to be found.
    if done.returncode != 0:
        raise RuntimeError(f"{TOOL} failed with code {done.returncode}: {done.stderr[-500:]}")
    return taken
