"""The facts of all people in rising order of id, block by block, for rebuilding the queue.

The tables are read one after the other on one snapshot: requirements and claims first, which are
kept in a compact form until the people they belong to are read.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from itertools import compress
from typing import TypeVar

from dialler.model.v1.facts_pb2 import ClaimFacts, RequirementFacts
from dialler.user_context.v1 import user_context_pb2 as pb

from servicekit.errors import DeadlineExceeded
from servicekit.phone_numbers import numbers_in_many
from services.user_context.batch.packed_claims import Numbers, PackedClaims
from services.user_context.cache.fragments import delimited
from services.user_context.mysql.scan import Columns, TableScan, TableScans
from services.user_context.store import FenceStore, versions_needed

LAST_USER_ID = 2**64 - 1

# A page of rows takes the process a few milliseconds, for which cache hits have to wait.
ROWS_PER_PAGE = 10_000
PEOPLE_PER_TURN = 500

# Blocks that may wait for the client; then the reading waits.
BLOCKS_AHEAD = 2

# A block ends early at this size; a message may be four times as large.
BLOCK_BYTES = 4 << 20

# Beyond so many numbered shared facts all numbers are dropped, and the facts are sent anew.
SHARED_FACTS_REMEMBERED = 200_000

_USER = (
    "user_id",
    "is_enabled",
    "status",
    "phone_number",
    "date_of_birth",
    "current_signature_file_id",
    "created_at",
)
_CLAIM = ("claim_id", "user_id", "status", "lender", "created_at")
_REQUIREMENT = ("claim_id", "type", "status", "reason")

K = TypeVar("K")

# Enabled, status, signed, and the kinds of the claims.
_SharedFacts = tuple[bool, str | None, bool, str]

_NEW_SHARED_FACTS_TAG = b"\x2a"
_CLAIM_TAG = b"\x22"


class FactsStreams:
    """Starts streams; each holds a connection to MySQL until it has been read."""

    def __init__(self, scans: TableScans, fences: FenceStore, *, most_seconds: float) -> None:
        self._scans = scans
        self._fences = fences
        self._most_seconds = most_seconds

    async def blocks(self, after_user_id: int, people: int) -> AsyncGenerator[bytes, None]:
        """Yield encoded StreamUserFactsResponses of up to ``people`` people above an id.

        Every block is of the same moment, which is after the call. Closing the iterator stops the
        reading.

        Raises:
            Unavailable: MAIN_APP_UNAVAILABLE or VERSIONS_UNAVAILABLE.
            DeadlineExceeded: STREAM_TOO_SLOW, the client did not take the blocks in time; the
                snapshot must not be held for longer.
            Exhausted: FACTS_TOO_VARIED.
        """
        ready: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(BLOCKS_AHEAD)
        reading = asyncio.create_task(self._read(after_user_id, people, ready))
        try:
            while (block := await ready.get()) is not None:
                if isinstance(block, Exception):
                    raise block
                yield block
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(
        self, after: int, people: int, ready: "asyncio.Queue[bytes | Exception | None]"
    ) -> None:
        """Put every block into ``ready``, then None, or the error that ended the reading."""
        ended: Exception | None = None
        limit = asyncio.timeout(self._most_seconds)
        try:
            async with limit:
                with versions_needed():
                    version = await self._fences.draw_version()
                async with self._scans.begin() as scan:
                    last_user_id = await scan.highest("users")
                    claims = await _read_claims(scan, after)
                    encoder = _BlockEncoder(claims, version, last_user_id)
                    pages = scan.pages("users", _USER, rows=people, after=after)
                    async with aclosing(pages):
                        async for page in pages:
                            is_last = len(page[0]) < people
                            async for block in encoder.blocks(page, is_last=is_last):
                                await ready.put(block)
        except Exception as error:
            ended = error
            if isinstance(error, TimeoutError) and limit.expired():
                ended = DeadlineExceeded(
                    "STREAM_TOO_SLOW", "the main app's people were not read in time"
                )
        await ready.put(ended)


async def _read_claims(scan: TableScan, after: int) -> PackedClaims:
    """Return the claims, with their requirements, of the people above an id."""
    claims = PackedClaims()
    pages = scan.pages("claim_requirements", _REQUIREMENT, rows=ROWS_PER_PAGE)
    async with aclosing(pages):
        async for claim_ids, types, statuses, reasons in pages:
            claims.add_requirements(claim_ids, types, statuses, reasons)
    pages = scan.pages("claims", _CLAIM, rows=ROWS_PER_PAGE)
    async with aclosing(pages):
        async for page in pages:
            if after:
                wanted = [user_id is not None and user_id > after for user_id in page[1]]
                page = [list(compress(column, wanted)) for column in page]
            claims.add_claims(*page)
    return claims


class _Encoded(dict[K, bytes]):
    """Remembers the bytes that ``encode`` makes of a key."""

    def __init__(self, encode: Callable[[K], bytes]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, key: K) -> bytes:
        encoded = self[key] = self._encode(key)
        return encoded


class _SharedFactsEncoder:
    """Encodes shared facts from the bytes of their parts, of which there are far fewer."""

    def __init__(self, claims: PackedClaims) -> None:
        def start(key: tuple[bool, str | None, bool]) -> bytes:
            is_enabled, status, has_signature = key
            start = pb.SharedFacts(
                is_enabled=is_enabled, status=status, has_signature=has_signature
            )
            return start.SerializeToString()

        def claim(kind: str) -> bytes:
            status, requirements = claims.kinds.kind(kind)
            body = ClaimFacts(status=status).SerializeToString()
            return delimited(_CLAIM_TAG, body + b"".join([encoded[it] for it in requirements]))

        def requirement(character: str) -> bytes:
            kind, status, reason = claims.requirements.kind(character)
            message = RequirementFacts(type=kind, status=status, reason=reason)
            return ClaimFacts(requirements=[message]).SerializeToString()

        encoded = _Encoded(requirement)
        self._starts = _Encoded(start)
        self._claims = _Encoded(claim)

    def new(self, facts: _SharedFacts) -> bytes:
        """Return the facts as an element of StreamUserFactsResponse.new_shared_facts."""
        is_enabled, status, has_signature, kinds = facts
        start = self._starts[is_enabled, status, has_signature]
        claims = self._claims
        body = start + b"".join([claims[kind] for kind in kinds])
        return delimited(_NEW_SHARED_FACTS_TAG, body)


class _BlockEncoder:
    """Makes blocks of people; what one block has sent is not sent again in a later one."""

    def __init__(self, claims: PackedClaims, version: int, last_user_id: int) -> None:
        self._claims = claims
        self._encoder = _SharedFactsEncoder(claims)
        self._shared_facts = Numbers[_SharedFacts]()
        self._lenders = Numbers[int](first=1)
        # No lender: 0 for the client, 0 in the packed claims.
        self._lenders[0] = 0
        self._version = version
        self._last_user_id = last_user_id
        self._through_user_id = 0
        self._response = pb.StreamUserFactsResponse()
        self._new_shared_facts: list[bytes] = []
        self._size_bytes = 0

    async def blocks(self, page: Columns, *, is_last: bool) -> AsyncGenerator[bytes, None]:
        """Encode a page of people, mostly as one block; other tasks get their turn meanwhile."""
        people = len(page[0])
        for start in range(0, people, PEOPLE_PER_TURN):
            self._add([column[start : start + PEOPLE_PER_TURN] for column in page])
            if self._size_bytes >= BLOCK_BYTES and start + PEOPLE_PER_TURN < people:
                yield self._block(self._through_user_id)
            await asyncio.sleep(0)
        yield self._block(LAST_USER_ID if is_last else self._through_user_id)

    def _add(self, people: Columns) -> None:
        """Put people into the block; the columns are in the order of ``_USER``."""
        user_ids, are_enabled, statuses, phones, born, signatures, created = people
        claims = self._claims.take(user_ids)
        signed = [signature is not None for signature in signatures]
        block = self._response
        block.user_ids.extend(user_ids)
        block.shared_facts.extend(
            map(
                self._shared_facts.__getitem__,
                zip(map(bool, are_enabled), statuses, signed, claims.kinds, strict=True),
            )
        )
        numbers_found = numbers_in_many(phones)
        first = len(block.phone_e164)
        block.phone_e164.extend([numbers[0] if numbers else "" for numbers in numbers_found])
        for position, numbers in enumerate(numbers_found, first):
            if len(numbers) > 1:
                block.other_phones.add(position=position, e164=numbers[1:])
                self._size_bytes += sum(map(len, numbers))
        block.created_at.extend(created)
        block.date_of_birth.extend("" if day is None else day.isoformat() for day in born)
        block.claim_created_at.extend(claims.moments)
        block.claim_lenders.extend(map(self._lenders.__getitem__, claims.lenders))
        self._through_user_id = user_ids[-1]
        new = list(map(self._encoder.new, self._shared_facts.take_new()))
        if len(self._shared_facts) > SHARED_FACTS_REMEMBERED:
            self._shared_facts.clear()
        self._new_shared_facts += new
        self._size_bytes += sum(map(len, new))

    def _block(self, through_user_id: int) -> bytes:
        """Return what has been put in as a block, and begin the next."""
        block, self._response = self._response, pb.StreamUserFactsResponse()
        new_shared_facts, self._new_shared_facts = self._new_shared_facts, []
        self._size_bytes = 0
        block.version = self._version
        block.through_user_id = through_user_id
        block.last_user_id = self._last_user_id
        lenders = self._claims.lenders()
        block.new_lenders.extend(lenders[it] or "" for it in self._lenders.take_new())
        return block.SerializeToString() + b"".join(new_shared_facts)
