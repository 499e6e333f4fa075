"""user_context and queue as `ingest_rate` needs them: they answer at once, as changes told."""

from __future__ import annotations

import asyncio
import json
import sys

from dialler.model.v1.facts_pb2 import ClaimFacts, UserFacts

from tests.fakes.upstreams import ingest_upstreams


async def serve(people: int, status: str) -> None:
    """Print the targets as a line of JSON, then serve until killed.

    Person n has the one claim n, of that status.
    """
    async with ingest_upstreams() as fakes:
        fakes.user_context.people = {
            n: UserFacts(
                exists=True, claims=[ClaimFacts(claim_id=n, status=status, lender="Lloyds")]
            )
            for n in range(1, people + 1)
        }
        targets = {"user_context": fakes.user_context_target, "queue": fakes.queue_target}
        sys.stdout.write(json.dumps(targets) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
