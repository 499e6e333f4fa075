"""`make demo`: one signature from MySQL to the desk with its times, then one call as an agent."""

from __future__ import annotations

import random
import sys
from datetime import UTC, datetime
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.stack import Addresses, default_folder

STAGES = (
    ("captured", "captured_at", "the relay read the row from the binlog"),
    ("received from SQS", "received_at", "ingest has the message"),
    ("context refreshed", "refreshed_at", "read anew and cached"),
    ("queue moved", "applied_at", "committed in PostgreSQL"),
)


class DemoFailed(RuntimeError):
    """The demonstration could not go on; the message says why."""


def main() -> int:
    """Run the demonstration; 1 with one clear sentence when it cannot."""
    console = Console(highlight=False)
    try:
        addresses = Addresses.load(default_folder())
    except FileNotFoundError:
        console.print("Nothing is running here. Start it with `make run` in another terminal.")
        return 1
    try:
        _follow_a_signature(addresses, console)
        _make_a_call(addresses, console)
    except (DemoFailed, TimeoutError, httpx.HTTPError) as error:
        console.print(f"[bold red]The demonstration stopped.[/bold red] {error}")
        return 1
    console.print("\nThat was the whole line: no person was phoned wrongly, twice, or not at all.")
    return 0


def _follow_a_signature(addresses: Addresses, console: Console) -> None:
    with Desk(addresses, "supervisor", "supervisor-demo") as desk, desk.events() as events:
        unsigned = desk.entries("unsigned_users")
        if not unsigned:
            raise DemoFailed("No person in the unsigned queue is ready.")
        user_id = int(random.choice(unsigned)["user_id"])
        console.print(f"\nPerson {user_id} has not signed. Signing in MySQL, as the main app does.")
        MainApp(addresses.mysql_writer).sign(user_id)
        committed_at = datetime.now(UTC)
        moved = events.wait_for_user(user_id, "entry_moved")
        console.print(_stages(committed_at, moved.at, moved.event))
        before, after = moved.event["queue_before"], moved.event["queue_after"] or "no queue"
        console.print(f"The person moved from {before} to {after}.")


def _stages(committed_at: datetime, seen_at: datetime, event: dict[str, Any]) -> Table:
    table = Table(title="The stages of one signature", title_justify="left")
    table.add_column("stage")
    table.add_column("time (UTC)")
    table.add_column("since commit", justify="right")
    table.add_column("")
    table.add_row("committed", f"{committed_at:%H:%M:%S.%f}"[:-3], "0 ms", "the main app's MySQL")
    for name, key, words in STAGES:
        at = datetime.fromisoformat(event["timeline"][key])
        table.add_row(name, f"{at:%H:%M:%S.%f}"[:-3], _since(committed_at, at), words)
    seen = f"{seen_at:%H:%M:%S.%f}"[:-3]
    table.add_row("seen on the stream", seen, _since(committed_at, seen_at), "the desk has it")
    return table


def _since(start: datetime, at: datetime) -> str:
    # The commit's answer may reach us after the relay has read the row.
    return f"{max(0.0, (at - start).total_seconds() * 1000):.0f} ms"


def _make_a_call(addresses: Addresses, console: Console) -> None:
    with Desk(addresses, "agent") as desk:
        console.print(f"\nAgent {desk.subject} asks for the next person ...")
        assignment = desk.claim()["assignment"]
        if assignment is None:
            raise DemoFailed("No person can be called now.")
        user_id = assignment["user_id"]
        console.print(
            f"... and holds person {user_id} from {assignment['queue']}"
            f" ({assignment['reason']}), checked against MySQL in that same request."
        )
        console.print(_context_table(desk.get(f"/v1/people/{user_id}/context")))
        recorded = desk.record(assignment["assignment_id"], "no_answer", notes="demonstration")
        if recorded.is_error:
            raise DemoFailed(f"The outcome was refused: {recorded.text}")
        state = recorded.json()["call_state"]
        console.print(
            f"Outcome no_answer recorded: attempt {state['attempts']},"
            f" not to be called before {state['next_call_at']}."
        )


def _context_table(context: dict[str, Any]) -> Table:
    user = context["user"]
    table = Table(title="What the agent sees", title_justify="left", show_header=False)
    table.add_row("name", " ".join(filter(None, (user["first_name"], user["last_name"]))))
    table.add_row(
        "phone", f"{user['phone_number']}{'' if user['is_phone_valid'] else '  (not valid)'}"
    )
    table.add_row("signed", "yes" if user["has_signature"] else "no")
    for claim in context["claims"]:
        pending = [each["type"] for each in claim["requirements"] if each["status"] == "PENDING"]
        words = f"{claim['status'] or 'open'}; pending: {', '.join(filter(None, pending)) or '-'}"
        table.add_row(f"claim {claim['claim_id']} ({claim['lender']})", words)
    return table


if __name__ == "__main__":
    sys.exit(main())
