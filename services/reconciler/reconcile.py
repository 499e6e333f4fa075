"""Have a run done, and show how far it is: ``python -m services.reconciler.reconcile``.

Exit codes: 0 when the run succeeded, 1 when it failed or the reconciler could not be asked.
"""

import argparse
import asyncio
import sys
import time

import grpc.aio
from dialler.reconciler.v1 import reconciler_pb2, reconciler_pb2_grpc
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from servicekit.client import connect
from servicekit.errors import ServiceError
from services.reconciler.domain.runs import RunKind

_CALL_SECONDS = 10.0
_PATIENCE_SECONDS = 60.0
_RETRY_SECONDS = 1.0

_PHASES = {
    reconciler_pb2.RUN_PHASE_READING: "Adding up MySQL's rows",
    reconciler_pb2.RUN_PHASE_COMPARING: "Comparing",
    reconciler_pb2.RUN_PHASE_RECHECKING: "Looking again at what differs",
    reconciler_pb2.RUN_PHASE_REPAIRING: "Refreshing people",
}


class FollowedRun:
    """One run, followed to its end on `console`."""

    def __init__(self, channel: grpc.aio.Channel, console: Console) -> None:
        self._stub = reconciler_pb2_grpc.ReconcilerServiceStub(channel)
        self._console = console

    async def follow(self, kind: RunKind, reason: str) -> reconciler_pb2.Run:
        """Start the run, or join the one that waits, and return it ended.

        Raises:
            ServiceError: the reconciler cannot be asked, or was away for a minute.
        """
        number = reconciler_pb2.RunKind.Value(f"RUN_KIND_{kind.value}")
        response = await self._stub.StartRun(
            reconciler_pb2.StartRunRequest(kind=number, reason=reason)
        )
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as bar:
            self._bar = bar
            self._task = bar.add_task("Waiting for its turn", total=None, told="")
            return await self._until_ended(response.run)

    async def _until_ended(self, run: reconciler_pb2.Run) -> reconciler_pb2.Run:
        last_seen = time.monotonic()
        while True:
            try:
                async for answer in self._stub.WatchRun(
                    reconciler_pb2.WatchRunRequest(run_id=run.run_id)
                ):
                    run, last_seen = answer.run, time.monotonic()
                    self._show(run)
            except ServiceError:
                if time.monotonic() - last_seen > _PATIENCE_SECONDS:
                    raise
            if run.HasField("ended_at"):
                return run
            await asyncio.sleep(_RETRY_SECONDS)

    def _show(self, run: reconciler_pb2.Run) -> None:
        self._bar.update(
            self._task,
            description=_PHASES.get(run.phase, "Waiting for its turn"),
            total=run.phase_total or None,
            completed=run.phase_done,
            told=f"{run.users_drifted:,} drifted, {run.users_refreshed:,} refreshed",
        )


def show_report(run: reconciler_pb2.Run, console: Console) -> None:
    """Print what a run came to."""
    seconds = (run.ended_at.ToMicroseconds() - run.started_at.ToMicroseconds()) / 1e6
    console.print(
        f"{run.users_checked:,} people compared in {seconds:.1f} s; {run.users_drifted:,} had"
        f" drifted, {run.users_refreshed:,} were refreshed, {run.users_moved:,} moved in the queue."
    )
    console.print(
        f"MySQL: {run.rows_read:,} rows added up in {run.mysql_statements:,} statements,"
        f" {run.mysql_seconds:.1f} s."
    )
    if run.drift:
        table = Table("drift", "table", "people")
        for each in run.drift:
            kind = reconciler_pb2.DriftKind.Name(each.kind).removeprefix("DRIFT_KIND_").lower()
            table.add_row(kind, each.table, f"{each.users:,}")
        console.print(table)
    for name, number in sorted(run.done.items()):
        console.print(f"{name.replace('_', ' ')}: {number:,}")


async def follow(target: str, kind: RunKind, reason: str) -> int:
    """Have a run done by the reconciler at `target`; return the exit code."""
    console = Console(stderr=True)
    channel = connect(target, name="reconciler", default_timeout_seconds=_CALL_SECONDS)
    async with channel:
        try:
            run = await FollowedRun(channel, console).follow(kind, reason)
        except ServiceError as error:
            console.print(f"The reconciler at {target} cannot be asked: {error}")
            return 1
    show_report(run, console)
    if run.state == reconciler_pb2.RUN_STATE_SUCCEEDED:
        console.print("Everything is right now.")
        return 0
    console.print(f"The run failed: {run.error}")
    return 1


def main() -> int:
    """Parse the command line and follow a run."""
    parser = argparse.ArgumentParser(prog="python -m services.reconciler.reconcile")
    parser.add_argument("--target", required=True, help="the reconciler, HOST:PORT")
    kinds = [kind.value.lower() for kind in RunKind]
    parser.add_argument("--kind", choices=kinds, default="full", help="what to look at")
    parser.add_argument("--reason", default="asked for by hand", help="who asks and why")
    arguments = parser.parse_args()
    kind = RunKind(arguments.kind.upper())
    return asyncio.run(follow(arguments.target, kind, arguments.reason))


if __name__ == "__main__":
    sys.exit(main())
