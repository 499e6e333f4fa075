"""`make run`: start everything, show where it is and how it does, stop everything on Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from devstack.changes import MainApp, run_changes
from devstack.desk import Desk
from devstack.otlp import OtlpReceiver
from devstack.processes import DidNotStart
from devstack.stack import PREFERRED_GATEWAY_PORT, Stack, default_folder
from devstack.trace import SPANS

# Where `make desk` serves the example desk, whose pages read the event stream.
DESK_ORIGINS = ("http://localhost:3000", "http://127.0.0.1:3000")

SCREEN = """
[bold]dialler is running.[/bold]

  gateway           {gateway}          (API pages: {gateway}/docs)
  wallboard         {gateway}/wallboard          (sign in with the supervisor token)
  agent token       {agent}
  supervisor token  {supervisor}

{copies}
Try, in another terminal:
  [cyan]curl -s -H "Authorization: Bearer {agent}" {gateway}/v1/queues[/cyan]
  [cyan]make demo[/cyan]     follow one signature from MySQL to the desk, then make a call
  [cyan]make trace[/cyan]    the spans of one change, from its commit to the event
  [cyan]make desk[/cyan]     the example desk at http://localhost:3000; sign in with the agent token

Logs are in {folder}/logs. Ctrl-C stops everything.
"""


COPIES = """  {copies} copies of every service, at {hosts}, found by DNS and asked in turn;
  of reconciler and binlog_relay one leads
  gateway, 2nd copy {others}          (tokens are good at each; nothing balances between them here)
"""


def main() -> int:
    """Run until Ctrl-C or SIGTERM; 1 with one clear sentence when something did not start."""
    arguments = _arguments()
    console = Console(highlight=False, soft_wrap=True)
    folder = default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with (
            _only_one(folder),
            OtlpReceiver(folder / SPANS) as receiver,
            _stack(arguments, folder, console, receiver) as stack,
        ):
            _serve(stack, arguments.changes, console)
    except KeyboardInterrupt:
        console.print("\nEverything has been stopped. `make run` starts it again in seconds.")
        return 0
    except (DidNotStart, OSError, TimeoutError) as error:
        console.print(f"\n[bold red]Could not start.[/bold red] {error}", markup=True)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50_000, help="people in the main app")
    parser.add_argument("--changes", type=float, default=1.0, help="changes a second; 0 for none")
    parser.add_argument(
        "--copies", type=int, default=1, choices=range(1, 10), help="processes of each service"
    )
    return parser.parse_args()


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DidNotStart(f"`make run` is already going in {folder}.") from None
        yield


@contextlib.contextmanager
def _stack(
    arguments: argparse.Namespace, folder: Path, console: Console, receiver: OtlpReceiver
) -> Iterator[Stack]:
    progress = _progress(console)
    seeding = progress.add_task("Making the main app's people", visible=False)
    stack = Stack(
        folder=folder,
        users=arguments.users,
        copies=arguments.copies,
        preferred_gateway_port=PREFERRED_GATEWAY_PORT,
        extra_environment={
            **receiver.environment(ratio=1.0),
            "GATEWAY_CORS_ORIGINS": json.dumps(DESK_ORIGINS),
        },
        report=console.print,
        progress=lambda done, total: progress.update(
            seeding, completed=done, total=total, visible=True
        ),
    )
    try:
        with progress:
            stack.start()
        yield stack
    finally:
        console.print("Stopping everything ...")
        stack.stop()


def _serve(stack: Stack, changes: float, console: Console) -> None:
    desk = Desk(stack.addresses, "supervisor", "supervisor-1")
    agent = Desk(stack.addresses, "agent", "agent-1")
    _reconcile(desk, console)
    console.print(
        SCREEN.format(
            gateway=stack.addresses.gateway,
            copies=_copies(stack),
            agent=agent.token,
            supervisor=desk.token,
            folder=stack.folder,
        )
    )
    stop = threading.Event()
    traffic = threading.Thread(target=_traffic, args=(stack, changes, stop), daemon=True)
    traffic.start()
    try:
        _watch(stack, desk, console)
    finally:
        stop.set()
        traffic.join(timeout=5)


def _copies(stack: Stack) -> str:
    """Say where the copies are; nothing of one copy."""
    if stack.copies == 1:
        return ""
    addresses = stack.addresses
    hosts, others = ", ".join(addresses.hosts), ", ".join(addresses.other_gateways)
    return COPIES.format(copies=stack.copies, hosts=hosts, others=others)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console)


def _reconcile(desk: Desk, console: Console) -> None:
    """Compare every user once at each start, since the local SQS loses its messages at the end.

    The first time this waits until people can be called: afterwards the queues of the last time
    are there at once.
    """
    is_first = all(run["state"] != "succeeded" for run in desk.reconciliations())
    run = desk.post("/v1/reconciliations", {"reason": "make run"}).raise_for_status().json()
    if not is_first:
        console.print("Every person is compared once more in the background.")
        return
    with _progress(console) as progress:
        task = progress.add_task("Bringing every person into the queues", total=None)
        while run["state"] in ("pending", "running") and run["phase"] != "repairing":
            time.sleep(0.25)
            run = next(each for each in desk.reconciliations() if each["run_id"] == run["run_id"])
            if run["phase"] == "filling" and run["phase_total"]:
                progress.update(task, completed=run["phase_done"], total=run["phase_total"])
    if run["state"] == "failed":
        raise DidNotStart(f"The first reconciliation failed: {run['error']}")
    console.print("Every person is in the queues; the contexts follow in the background.")


def _traffic(stack: Stack, changes_per_second: float, stop: threading.Event) -> None:
    if changes_per_second > 0:
        run_changes(MainApp(stack.addresses.mysql_writer), changes_per_second, stop)


def _watch(stack: Stack, desk: Desk, console: Console) -> None:
    if not console.is_terminal:
        while True:
            console.print(_line(desk))
            _tick(stack, console, 10.0)
    with Live(_line(desk), console=console, refresh_per_second=2) as live:
        while True:
            _tick(stack, console, 1.0)
            live.update(_line(desk))


def _tick(stack: Stack, console: Console, seconds: float) -> None:
    time.sleep(seconds)
    for name in stack.revive():
        console.print(f"{name} had ended and was started again; see its log.")


def _line(desk: Desk) -> str:
    """The pipeline in one line."""
    try:
        queues = {each["queue"]: each for each in desk.get("/v1/queues")["queues"]}
        pipeline = desk.get("/v1/pipeline")
    except httpx.HTTPError as error:
        return f"the gateway does not answer: {type(error).__name__}"
    sizes = "  ".join(
        f"{name} {each['ready']} ready, {each['waiting']} waiting" for name, each in queues.items()
    )
    return f"{sizes}  |  {_pipeline_words(pipeline)}"


def _pipeline_words(pipeline: dict[str, Any]) -> str:
    ingest, cache = pipeline.get("ingest"), pipeline.get("cache")
    words = []
    if ingest:
        latency = ingest["change_latency"]
        words.append(
            f"change latency p50 {latency['p50_seconds'] * 1000:.0f} ms,"
            f" p99 {latency['p99_seconds'] * 1000:.0f} ms"
            if latency["count"]
            else "no change seen yet"
        )
        words.append(f"backlog {ingest['backlog_messages']}")
        words.append(f"DLQ {ingest['dead_letter_messages']}")
    if cache:
        reads = int(cache["hits"]) + int(cache["misses"])
        words.append(f"cache hits {100 * int(cache['hits']) / reads:.0f} %" if reads else "cache -")
    return "  ".join(words)


if __name__ == "__main__":
    sys.exit(main())
