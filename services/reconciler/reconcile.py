"""Requests a run and shows its progress: ``python -m services.reconciler.reconcile``.

Exit codes: 0 when the run succeeded, 1 when it failed or the reconciler could not be called.
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
_UNAVAILABLE_SECONDS = 60.0
_RETRY_SECONDS = 1.0

_PHASES = {
    reconciler_pb2.RUN_PHASE_READING: "Adding up MySQL's rows",
    reconciler_pb2.RUN_PHASE_COMPARING: "Comparing",
    reconciler_pb2.RUN_PHASE_RECHECKING: "Looking again at what differs",
    reconciler_pb2.RUN_PHASE_REPAIRING: "Refreshing people",
    reconciler_pb2.RUN_PHASE_FILLING: "Bringing all people into the queues",
}


async def follow_run(
    channel: grpc.aio.Channel,
    console: Console,
    kind: RunKind,
    reason: str,
    *,
    allow_gone: bool = False,
) -> reconciler_pb2.Run:
    """Start a run, or join the pending one, show its progress, and return it ended.

    Raises:
        ServiceError: the reconciler cannot be called, or was unavailable for a minute.
    """
    stub = reconciler_pb2_grpc.ReconcilerServiceStub(channel)
    number = reconciler_pb2.RunKind.Value(f"RUN_KIND_{kind.value}")
    request = reconciler_pb2.StartRunRequest(kind=number, reason=reason, allow_gone=allow_gone)
    run = (await stub.StartRun(request)).run
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("Waiting for its turn", total=None, counts="")
        last_seen = time.monotonic()
        while True:
            try:
                async for answer in stub.WatchRun(
                    reconciler_pb2.WatchRunRequest(run_id=run.run_id)
                ):
                    run, last_seen = answer.run, time.monotonic()
                    bar.update(
                        task,
                        description=_PHASES.get(run.phase, "Waiting for its turn"),
                        total=run.phase_total or None,
                        completed=run.phase_done,
                        counts=f"{run.users_drifted:,} drifted, {run.users_refreshed:,} refreshed",
                    )
            except ServiceError:
                if time.monotonic() - last_seen > _UNAVAILABLE_SECONDS:
                    raise
            if run.HasField("ended_at"):
                return run
            await asyncio.sleep(_RETRY_SECONDS)


def show_report(run: reconciler_pb2.Run, console: Console) -> None:
    """Print the result of a run."""
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


async def follow(target: str, kind: RunKind, reason: str, *, allow_gone: bool = False) -> int:
    """Request a run from the reconciler at `target`, follow it, and return the exit code."""
    console = Console(stderr=True)
    channel = connect(target, name="reconciler", default_timeout_seconds=_CALL_SECONDS)
    async with channel:
        try:
            run = await follow_run(channel, console, kind, reason, allow_gone=allow_gone)
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
    parser.add_argument(
        "--allow-gone",
        action="store_true",
        help="take people for gone from the main app even if they are an implausible share of all",
    )
    arguments = parser.parse_args()
    kind = RunKind(arguments.kind.upper())
    return asyncio.run(
        follow(arguments.target, kind, arguments.reason, allow_gone=arguments.allow_gone)
    )


if __name__ == "__main__":
    sys.exit(main())
