"""Have everybody looked at, and show how far it is: ``python -m services.reconciler.run_full``.

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

from servicekit.client import connect
from servicekit.errors import ServiceError

_CALL_SECONDS = 10.0
_PATIENCE_SECONDS = 60.0
_RETRY_SECONDS = 1.0


class FullRun:
    """One full run, followed to its end on `console`."""

    def __init__(self, channel: grpc.aio.Channel, console: Console) -> None:
        self._stub = reconciler_pb2_grpc.ReconcilerServiceStub(channel)
        self._console = console

    async def follow(self, reason: str) -> reconciler_pb2.Run:
        """Start the run, or join the one under way, and return it ended.

        Raises:
            ServiceError: the reconciler cannot be asked, or was away for a minute.
        """
        response = await self._stub.StartRun(
            reconciler_pb2.StartRunRequest(kind=reconciler_pb2.RUN_KIND_FULL, reason=reason)
        )
        columns = (
            TextColumn("Reconciling"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as bar:
            self._bar, self._task = bar, bar.add_task("", total=None, told="")
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
            total=run.max_user_id or None,
            completed=run.last_user_id,
            told=f"{run.users_checked:,} people, {run.users_moved:,} moved",
        )


async def _main(target: str, reason: str) -> int:
    console = Console(stderr=True)
    channel = connect(target, name="reconciler", default_timeout_seconds=_CALL_SECONDS)
    async with channel:
        try:
            run = await FullRun(channel, console).follow(reason)
        except ServiceError as error:
            console.print(f"The reconciler at {target} cannot be asked: {error}")
            return 1
    if run.state == reconciler_pb2.RUN_STATE_SUCCEEDED:
        console.print(f"{run.users_checked:,} people looked at, {run.users_moved:,} moved.")
        return 0
    console.print(f"The run failed: {run.error}")
    return 1


def main() -> int:
    """Parse the command line and follow a run."""
    parser = argparse.ArgumentParser(prog="python -m services.reconciler.run_full")
    parser.add_argument("--target", required=True, help="the reconciler, HOST:PORT")
    parser.add_argument("--reason", default="run_full: asked for by hand", help="who asks and why")
    arguments = parser.parse_args()
    return asyncio.run(_main(arguments.target, arguments.reason))


if __name__ == "__main__":
    sys.exit(main())
