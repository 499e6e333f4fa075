"""`make restore-drill`: lose PostgreSQL and Redis under load, restore, and see what is missing.

PostgreSQL comes back from a base backup and its archived WAL, Redis comes back empty, and the
queue's log tells `services.queue.recover` what the WAL had not taken. Says in plain words what was
done and found; ends with 1 when an agent was handed a person wrongly, or something was lost that
the backup should have had.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import grpc
from dialler.cdc_ingest.v1 import cdc_ingest_pb2
from dialler.cdc_ingest.v1.cdc_ingest_pb2_grpc import CdcIngestServiceStub

from devstack.archived_postgresql import ArchivedPostgreSQL, size_bytes
from devstack.changes import MainApp, run_changes
from devstack.comparison import differences, in_mysql
from devstack.desk import Desk
from devstack.stack import DIALLER, SERVICES, Stack, service_environment, wait_until
from services.reconciler.domain.runs import RunKind
from services.reconciler.reconcile import follow

Report = Callable[[str], None]

_OUTCOMES = ("no_answer", "call_back", "might_complete", "do_not_contact", "no_answer", "hung_up")
_AGENTS = 4
_CALL_SECONDS = 0.15
_CALLBACK_IN = timedelta(hours=3)
_CHANGES_PER_SECOND = 20.0
_AGREE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Call:
    """A call as its agent has had it confirmed; `outcome` is None while it goes on."""

    at: datetime
    assignment_id: str
    user_id: int
    outcome: str | None
    callback_at: datetime | None = None


@dataclass(slots=True)
class Confirmed:
    """What agents and the supervisor were told is kept, by their own account."""

    calls: dict[str, Call] = field(default_factory=dict)
    objections: dict[int, datetime] = field(default_factory=dict)

    def people(self) -> set[int]:
        """All people who were called or have objected."""
        return {it.user_id for it in self.calls.values()} | set(self.objections)


@dataclass(slots=True)
class Kept:
    """What the database has of that."""

    reported: set[str]
    callbacks: set[tuple[int, datetime]]
    objections: set[int]

    def lacks(self, confirmed: Confirmed, until: datetime | None = None) -> list[str]:
        """Return what is missing of what was confirmed, or confirmed before a moment."""
        missing = []
        for call in confirmed.calls.values():
            if call.outcome is None or (until is not None and call.at > until):
                continue
            if call.assignment_id not in self.reported:
                missing.append(f"the outcome of call {call.assignment_id}")
            if call.callback_at and (call.user_id, call.callback_at) not in self.callbacks:
                missing.append(f"the callback of person {call.user_id}")
            if call.outcome == "do_not_contact" and call.user_id not in self.objections:
                missing.append(f"the objection of person {call.user_id}")
        for user_id, at in confirmed.objections.items():
            if (until is None or at <= until) and user_id not in self.objections:
                missing.append(f"the objection of person {user_id}")
        return missing


@dataclass(slots=True)
class Found:
    """What a drill came to; times are seconds from the loss on, but for `backup_seconds`."""

    backup_seconds: float = 0.0
    backup_bytes: int = 0
    archive_bytes: int = 0
    restored_seconds: float = 0.0
    serving_seconds: float = 0.0
    first_hand_out_seconds: float = 0.0
    right_seconds: float = 0.0
    lost_seconds: float = 0.0
    confirmed: int = 0
    differed: int = 0
    handed_out: int = 0
    recovery: str = ""
    lost_of_the_backup: list[str] = field(default_factory=list)
    lost_by_the_restore: list[str] = field(default_factory=list)
    lost_for_good: list[str] = field(default_factory=list)
    wrong_calls: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether no person was called wrongly and nothing is missing at the end."""
        return not (self.lost_of_the_backup or self.lost_for_good or self.wrong_calls)


class Agents:
    """Agents and a supervisor who work in threads until they are stopped."""

    def __init__(self, stack: Stack, confirmed: Confirmed) -> None:
        self._stack = stack
        self._confirmed = confirmed
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(_AGENTS)
        ]
        self._threads.append(threading.Thread(target=self._object, daemon=True))

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End once the calls in hand are reported, but for one, which goes on."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        rng = Random(f"agent {number}")
        with Desk(self._stack.addresses, "agent") as desk:
            while not self._stop.wait(_CALL_SECONDS):
                held = desk.claim()["assignment"]
                if held is None:
                    continue
                call_id, user_id = held["assignment_id"], int(held["user_id"])
                desk.post(f"/v1/assignments/{call_id}/heartbeat").raise_for_status()
                call = Call(datetime.now(UTC), call_id, user_id, None)
                self._confirmed.calls[call_id] = call
                if number == 0 and self._stop.is_set():
                    return
                outcome = rng.choice(_OUTCOMES)
                more: dict[str, object] = {}
                callback_at = None
                if outcome == "call_back":
                    callback_at = (datetime.now(UTC) + _CALLBACK_IN).replace(microsecond=0)
                    more["callback_at"] = callback_at.isoformat()
                if outcome == "do_not_contact":
                    more["notes"] = "asked for it"
                desk.record(call_id, outcome, **more).raise_for_status()
                self._confirmed.calls[call_id] = Call(
                    datetime.now(UTC), call_id, user_id, outcome, callback_at
                )

    def _object(self) -> None:
        rng = Random("supervisor")
        people = [int(row[0]) for row in self._stack.main_app.rows("SELECT id FROM users")]
        with Desk(self._stack.addresses, "supervisor") as desk:
            while not self._stop.wait(10 * _CALL_SECONDS):
                user_id = rng.choice(people)
                body = {"user_id": str(user_id), "notes": "wrote to us"}
                desk.post("/v1/suppressions", body).raise_for_status()
                self._confirmed.objections[user_id] = datetime.now(UTC)


@dataclass
class Drill:
    """One drill on a stack of its own. Without `recovers` the log is left unread."""

    stack: Stack
    seconds: float
    report: Report
    recovers: bool = True
    found: Found = field(default_factory=Found)
    confirmed: Confirmed = field(default_factory=Confirmed)

    def run(self) -> Found:
        """Load, back up, lose, restore, recover and check."""
        postgres = self.stack.postgres
        if not isinstance(postgres, ArchivedPostgreSQL):
            raise TypeError("the drill needs a PostgreSQL that archives")
        agents = Agents(self.stack, self.confirmed)
        with self._changes():
            agents.start()
            self._back_up(postgres)
            archived_at = self._archive(postgres)
            agents.stop()
        self._lose(postgres)
        lost_at = time.monotonic()
        self._restore(postgres, archived_at, lost_at)
        if self.recovers:
            self._recover()
        self._serve(lost_at)
        self._call_again(lost_at)
        self._reconcile(lost_at)
        self.found.lost_for_good = self._kept().lacks(self.confirmed)
        return self.found

    @contextmanager
    def _changes(self) -> Iterator[None]:
        stop = threading.Event()
        main_app = MainApp(self.stack.addresses.mysql_writer)
        thread = threading.Thread(
            target=run_changes, args=(main_app, _CHANGES_PER_SECOND, stop), daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _back_up(self, postgres: ArchivedPostgreSQL) -> None:
        time.sleep(self.seconds)
        began = time.monotonic()
        postgres.back_up()
        self.found.backup_seconds = time.monotonic() - began
        self.found.backup_bytes = size_bytes(postgres.backup)
        self.report(
            f"Base backup under load: {self.found.backup_bytes / 1e6:.0f} MB"
            f" in {self.found.backup_seconds:.1f} s."
        )
        time.sleep(self.seconds)

    def _archive(self, postgres: ArchivedPostgreSQL) -> datetime:
        """Archive while changes wait in SQS, behind the position that is saved; return when.

        They are applied, and gone from SQS, after what the archive has.
        """
        with grpc.insecure_channel(self.stack.addresses.grpc["cdc_ingest"]) as channel:
            ingest = CdcIngestServiceStub(channel)
            ingest.PauseIngest(cdc_ingest_pb2.PauseIngestRequest(), timeout=5)
            time.sleep(self.seconds / 2)
            archived_at = datetime.now(UTC)
            postgres.archive_now()
            ingest.ResumeIngest(cdc_ingest_pb2.ResumeIngestRequest(), timeout=5)
        self.report("The WAL is archived up to here; the work goes on.")
        time.sleep(self.seconds)
        return archived_at

    def _lose(self, postgres: ArchivedPostgreSQL) -> None:
        found = self.found
        found.confirmed = len(self.confirmed.calls) + len(self.confirmed.objections)
        found.archive_bytes = size_bytes(postgres.archive)
        postgres.lose()
        self.stack.redis.kill()
        for process in self.stack.services.values():
            process.stop()
        self.report(
            f"PostgreSQL, its disk and Redis are lost. Confirmed until then:"
            f" {len(self.confirmed.calls)} calls and {len(self.confirmed.objections)} objections."
        )

    def _restore(self, postgres: ArchivedPostgreSQL, archived_at: datetime, lost_at: float) -> None:
        found = self.found
        postgres.restore()
        self.stack.redis.start()
        found.restored_seconds = time.monotonic() - lost_at
        kept = self._kept()
        last = postgres.execute("SELECT max(at) FROM queue.audit", database=DIALLER)
        latest = max(it.at for it in self.confirmed.calls.values())
        found.lost_seconds = (latest - datetime.fromisoformat(last)).total_seconds()
        found.lost_of_the_backup = kept.lacks(self.confirmed, archived_at)
        found.lost_by_the_restore = kept.lacks(self.confirmed)
        self.report(
            f"Restored in {found.restored_seconds:.1f} s from the backup and"
            f" {found.archive_bytes / 1e6:.0f} MB of WAL, to {found.lost_seconds:.1f} s before the"
            f" loss. Of what the WAL had, {len(found.lost_of_the_backup)} are missing; of what"
            f" came after, {len(found.lost_by_the_restore)}."
        )

    def _recover(self) -> None:
        # Recovery reads the people anew.
        self.stack.services["user_context"].start()
        self.stack.wait_ready("user_context")
        logs = [str(each.log) for each in self.stack.copies_of("queue")]
        done = subprocess.run(
            [sys.executable, "-m", "services.queue.recover", *logs],
            env={
                **os.environ,
                **service_environment("queue", self.stack.addresses),
                "QUEUE_RULES_PATH": str(self.stack.folder / "queue_rules.yaml"),
            },
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in (0, 1) or not done.stdout:
            raise RuntimeError(f"recovery failed: {done.stderr[-2000:]}")
        self.found.recovery = done.stdout.strip()
        self.report(f"From the queue's log: {self.found.recovery}")

    def _serve(self, lost_at: float) -> None:
        for name, process in self.stack.services.items():
            if not (self.recovers and name == "user_context"):
                process.start()
        for name in (*SERVICES, "gateway"):
            self.stack.wait_ready(name)
        self.found.serving_seconds = time.monotonic() - lost_at
        self.report(f"Every service serves after {self.found.serving_seconds:.1f} s.")

    def _call_again(self, lost_at: float) -> None:
        """Have agents take as many people as they can: none of them may have been called."""
        found, called = self.found, self.confirmed.people()
        queues = in_mysql(self.stack).queues
        for number in range(max(20, found.confirmed // 4)):
            with Desk(self.stack.addresses, "agent") as desk:
                held = desk.claim()["assignment"]
            if held is None:
                break
            if number == 0:
                found.first_hand_out_seconds = time.monotonic() - lost_at
            found.handed_out += 1
            user_id = int(held["user_id"])
            if user_id in called:
                found.wrong_calls.append(f"person {user_id} had been called or had objected")
            if queues.get(user_id) is None:
                found.wrong_calls.append(f"person {user_id} is in no queue by MySQL")
        self.report(
            f"First hand-out after {found.first_hand_out_seconds:.1f} s."
            f" Of {found.handed_out} people handed out {len(found.wrong_calls)} were wrong."
        )

    def _reconcile(self, lost_at: float) -> None:
        self.found.differed = len(differences(self.stack))
        self.report(f"{self.found.differed} people or contexts differ from MySQL: a full run.")
        target = self.stack.addresses.grpc["reconciler"]
        code = asyncio.run(follow(target, RunKind.FULL, "restore drill"))
        if code != 0:
            raise RuntimeError("the full run after the restore failed")
        wait_until(lambda: not differences(self.stack), _AGREE_SECONDS, "agreement with MySQL")
        self.found.right_seconds = time.monotonic() - lost_at
        self.report(
            f"Every person and context agrees with MySQL after {self.found.right_seconds:.1f} s."
        )

    def _kept(self) -> Kept:
        ask = self.stack.postgres.execute
        reported = "SELECT assignment_id FROM queue.attempts WHERE outcome IS NOT NULL"
        agreed = "SELECT user_id, extract(epoch FROM scheduled_for)::bigint FROM queue.callbacks"
        objections = "SELECT user_id FROM queue.suppressions WHERE lifted_at IS NULL"
        callbacks = [it.split("|") for it in ask(agreed, database=DIALLER).splitlines()]
        return Kept(
            set(ask(reported, database=DIALLER).splitlines()),
            {(int(who), datetime.fromtimestamp(int(when), UTC)) for who, when in callbacks},
            {int(it) for it in ask(objections, database=DIALLER).splitlines() if it},
        )


@contextmanager
def drill_stack(users: int, copies: int) -> Iterator[Stack]:
    """Run a stack of its own, with an archiving PostgreSQL and all people in the queues."""
    folder = Path(tempfile.mkdtemp(prefix="dialler-restore-"))
    folder.chmod(0o711)
    # Nothing but what the drill asks for may repair anything.
    quiet = {"RECONCILER_WATCH_SECONDS": "3600"}
    stack = Stack(
        folder, users=users, copies=copies, extra_environment=quiet, report=lambda _: None
    )
    stack.postgres = ArchivedPostgreSQL(folder / "postgres")
    try:
        with stack:
            with Desk(stack.addresses, "supervisor", "supervisor-setup") as desk:
                desk.await_reconciled()
            yield stack
    finally:
        stack.postgres.discard()
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the drill that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m devstack.restore_drill", description=__doc__)
    parser.add_argument("--users", type=int, default=5_000, help="people in the main app")
    parser.add_argument("--seconds", type=float, default=10.0, help="of work before each step")
    parser.add_argument("--copies", type=int, default=1, choices=range(1, 10))
    given = parser.parse_args(arguments)

    def report(words: str) -> None:
        print(words, flush=True)

    report(f"Starting a stack with {given.users:,} people ...")
    with drill_stack(given.users, given.copies) as stack:
        found = Drill(stack, given.seconds, report).run()
    for each in (*found.lost_of_the_backup, *found.lost_for_good, *found.wrong_calls):
        report(f"  WRONG: {each}")
    report("The drill has succeeded." if found.is_good else "The drill has FAILED.")
    return 0 if found.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
