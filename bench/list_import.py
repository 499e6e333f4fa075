"""A list of numbers that must not be called, imported whole, beside a bare COPY of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING

import asyncpg
import grpc
from dialler.model.v1 import facts_pb2
from dialler.queue.v1 import queue_pb2 as pb
from dialler.queue.v1.queue_pb2_grpc import QueueServiceStub

from bench.measurement import BenchResult, load_average, summarise
from devstack.stack import Stack

if TYPE_CHECKING:
    # In the stubs only.
    from dialler.queue.v1.queue_pb2_grpc import QueueServiceAsyncStub

ROUNDS = 3
NUMBERS = 2_000_000
PEOPLE = 50_000
# One person in so many has a number that is on the list.
LISTED_ONE_IN = 4
# A later edition has other numbers in place of one in so many.
REPLACED_ONE_IN = 100
# The other services would only share the cores.
NEEDED = frozenset({"queue"})
# Area codes that Ofcom has given to no area: too few numbers are kept for drama.
AREA_CODES = (1990, 1991, 1996, 1998, 1999)
NUMBERS_AT_MOST = 4_000_000
PEOPLE_PER_CALL = 1_000
# No person of the main app, so that neither change capture nor the reconciler has a say.
FIRST_ID = 20_000_000
PART_BYTES = 65_536
IMPORT_SECONDS = 900
WATCH_SECONDS = 0.02
_LONGEST_STATEMENT = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0)::float8
FROM pg_stat_activity WHERE application_name LIKE 'queue@%' AND state = 'active'
"""


async def measure(stack: Stack, numbers: int) -> list[BenchResult]:
    """Seconds until a list's first edition is in force and people are placed, and of the next."""
    if numbers > NUMBERS_AT_MOST:
        raise ValueError(f"there are at most {NUMBERS_AT_MOST:,} numbers to make a list of")
    for name, process in stack.services.items():
        if name not in NEEDED:
            process.stop()
    changed = numbers // REPLACED_ONE_IN
    order = list(range(numbers + changed))
    Random(1).shuffle(order)
    phones = [_phone(it) for it in order]
    first, later, floor = [], [], []
    async with _open(stack) as (ours, postgres):
        bare = _BareImport(postgres)
        await ours.know_people(numbers)
        for _ in range(ROUNDS):
            floor.append(await bare.seconds(phones[:numbers]))
            first.append(await ours.seconds(phones[:numbers], added=numbers, removed=0))
            later.append(await ours.seconds(phones[changed:], added=changed, removed=changed))
            await ours.empty()
            await bare.empty_lists()
    conditions = (
        f"{numbers:,} numbers in no order by the RPC, statements limited to 5 s, the longest took"
        f" {ours.longest_statement_seconds:.2f} s; {PEOPLE:,} people, one in {LISTED_ONE_IN} of"
        f" them listed; durable; load {load_average()}"
    )
    return [
        summarise(
            f"list_import_{numbers}{name}",
            seconds,
            floor,
            unit="s",
            conditions=f"{what}, {conditions}",
            floor_name="bare COPY of the same numbers into a table with the same key",
        )
        for name, what, seconds in (
            ("", "first edition", first),
            ("_again", "next edition, 1 % of it new", later),
        )
    ]


def _phone(number: int) -> str:
    """Return a number that no person has, in E.164."""
    return f"+44{AREA_CODES[number // 1_000_000]}{number % 1_000_000:06d}"


class _ImportOverGrpc:
    """The queue service's ImportSuppressedPhones, and how long its statements take."""

    def __init__(self, stub: QueueServiceAsyncStub, watching: asyncpg.Connection) -> None:
        self._stub = stub
        self._watching = watching
        self.longest_statement_seconds = 0.0

    async def know_people(self, numbers: int) -> None:
        """Let the queue know people of whom some have one of the first so many numbers."""
        for start in range(FIRST_ID, FIRST_ID + PEOPLE, PEOPLE_PER_CALL):
            ids = range(start, start + PEOPLE_PER_CALL)
            facts = [_facts(each, numbers) for each in ids]
            await self._stub.ApplyUserFacts(pb.ApplyUserFactsRequest(facts=facts), timeout=30)

    async def seconds(self, phones: Sequence[str], added: int, removed: int) -> float:
        """Import a complete list; returns how long it took, the making of its CSV apart."""
        csv = "".join(f"0{it[3:]}\n" for it in phones).encode()
        watch = asyncio.create_task(self._watch())
        began = time.perf_counter()
        answer = await self._import(csv)
        taken = time.perf_counter() - began
        watch.cancel()
        if (answer.added, answer.removed) != (added, removed):
            raise RuntimeError(f"the import did something else than asked: {answer}")
        return taken

    async def empty(self) -> None:
        """Leave a list of one number, by which no person is kept from being called."""
        await self._import(b"07700900000\n")

    async def _import(self, csv: bytes) -> pb.ImportSuppressedPhonesResponse:
        request = pb.ImportSuppressedPhonesRequest

        async def sent() -> AsyncIterator[pb.ImportSuppressedPhonesRequest]:
            yield request(list_name="bench", actor_id="bench", is_complete=True, allow_shrink=True)
            for start in range(0, len(csv), PART_BYTES):
                yield request(csv=csv[start : start + PART_BYTES])
            yield request(is_last=True)

        return await self._stub.ImportSuppressedPhones(sent(), timeout=IMPORT_SECONDS)

    async def _watch(self) -> None:
        while True:
            seconds = await self._watching.fetchval(_LONGEST_STATEMENT)
            self.longest_statement_seconds = max(self.longest_statement_seconds, seconds)
            await asyncio.sleep(WATCH_SECONDS)


def _facts(user_id: int, numbers: int) -> facts_pb2.UserFacts:
    """A person who owes a signature."""
    person = user_id - FIRST_ID
    is_listed = person % LISTED_ONE_IN == 0
    number = person * (numbers // PEOPLE) if is_listed else NUMBERS_AT_MOST + person
    facts = facts_pb2.UserFacts(
        user_id=user_id,
        exists=True,
        version=time.time_ns(),
        fingerprint=user_id,
        is_enabled=True,
        claims=[facts_pb2.ClaimFacts(claim_id=user_id, lender="Bench")],
        phone_e164=_phone(number),
    )
    facts.claims[0].created_at.FromSeconds(1_700_000_000)
    facts.created_at.FromSeconds(1_700_000_000)
    return facts


class _BareImport:
    """COPY into a table like the queue's."""

    def __init__(self, postgres: asyncpg.Connection) -> None:
        self._postgres = postgres

    async def seconds(self, phones: Sequence[str]) -> float:
        """Return how long one COPY of these numbers takes, the making of the table apart."""
        await self._postgres.execute(
            "DROP SCHEMA IF EXISTS bench CASCADE; CREATE SCHEMA bench;"
            "CREATE TABLE bench.list_numbers (LIKE queue.list_numbers INCLUDING ALL)"
        )
        rows = [(it, 1) for it in phones]
        began = time.perf_counter()
        await self._postgres.copy_records_to_table(
            "list_numbers", schema_name="bench", records=rows
        )
        taken = time.perf_counter() - began
        await self._postgres.execute("DROP SCHEMA bench CASCADE")
        return taken

    async def empty_lists(self) -> None:
        """Forget every list; those of a round before would be deleted during the next."""
        await self._postgres.execute("TRUNCATE queue.list_numbers, queue.phone_list_editions")


@asynccontextmanager
async def _open(stack: Stack) -> AsyncIterator[tuple[_ImportOverGrpc, asyncpg.Connection]]:
    address = stack.addresses.postgres.replace("+asyncpg", "")
    async with (
        grpc.aio.insecure_channel(stack.addresses.grpc["queue"]) as channel,
        asyncpg.create_pool(address, min_size=2, max_size=2) as pool,
        pool.acquire() as postgres,
        pool.acquire() as watching,
    ):
        yield _ImportOverGrpc(QueueServiceStub(channel), watching), postgres
