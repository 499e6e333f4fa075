"""After a restore of PostgreSQL: ``python -m services.queue.recover queue.log ...``.

Reads the queue's log, from standard input without a file, and enters again the calls, outcomes and
objections that the database lacks, after it has read their people anew; with `--objections`,
instead, what an export of objections (`GET /v1/suppressions/export`) has. Run it with user_context
up, before any queue serves, with the queue's own variables.
Exit codes: 0 when all is entered, 1 when something is left to enter by hand.
"""

import argparse
import asyncio
import fileinput
import sys
from pathlib import Path

from servicekit.errors import Unavailable
from services.queue.app import recovering
from services.queue.maintenance.recovery import Deed, Recovered, deeds_in, objections_in
from services.queue.settings import QueueSettings


def main() -> int:
    """Recover from the files that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m services.queue.recover", description=__doc__)
    parser.add_argument("logs", nargs="*", help="files of log lines; standard input without any")
    parser.add_argument("--objections", type=Path, help="an export of objections, instead of logs")
    arguments = parser.parse_args()
    if arguments.objections is not None:
        return asyncio.run(_enter_objections(arguments.objections))
    with fileinput.input(arguments.logs, encoding="utf-8") as lines:
        deeds = list(deeds_in(lines))
    try:
        recovered = asyncio.run(_recover(deeds))
    except Unavailable as error:
        sys.stdout.write(f"Nothing was entered: {error}. Start user_context first.\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in _summary(len(deeds), recovered)))
    return 1 if recovered.by_hand else 0


async def _recover(deeds: list[Deed]) -> Recovered:
    async with recovering(QueueSettings()) as recovery:
        return await recovery.run(deeds)


async def _enter_objections(path: Path) -> int:
    with path.open(encoding="utf-8", newline="") as lines:
        try:
            objections = objections_in(lines)
        except ValueError as error:
            sys.stdout.write(f"{path}: {error}\n")
            return 1
    async with recovering(QueueSettings()) as recovery:
        failed = await recovery.enter_objections(objections)
    sys.stdout.write(
        f"{len(objections)} objections in the export, {len(objections) - len(failed)} of them in"
        " force now.\n"
    )
    sys.stdout.writelines(f"  {it.suppression_id} ({reason})\n" for it, reason in failed)
    return 1 if failed else 0


def _summary(deeds: int, recovered: Recovered) -> list[str]:
    lines = [
        f"{deeds} deeds in the log, {recovered.known} of them in the database.",
        f"Entered again: {recovered.calls} calls, {recovered.outcomes} outcomes,"
        f" {recovered.objections} objections; {recovered.no_calls} entries are of no call.",
    ]
    if recovered.by_hand:
        lines.append(f"To be entered by hand: {len(recovered.by_hand)}.")
    lines += [
        f"  {deed.at:%Y-%m-%d %H:%M:%S}Z {deed.action} by {deed.actor_id},"
        f" person {deed.user_id or '-'} {dict(deed.details)} ({reason})"
        for deed, reason in recovered.by_hand
    ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
