"""Everybody's facts in rising order of id, block by block, for rebuilding the queue.

The tables are read one after the other on one snapshot, requirements and claims first, which are
kept in little room until their people come by.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from itertools import compress
from typing import TypeVar

from dialler.model.v1.facts_pb2 import ClaimFacts, RequirementFacts
from dialler.user_context.v1 import user_context_pb2 as pb

from servicekit.errors import DeadlineExceeded
from services.user_context.fragments import delimited
from services.user_context.matters import Claims, Numbers
from services.user_context.phones import e164_of_many
from services.user_context.readings import versions_needed
from services.user_context.scan import Columns, TableScan, TableScans
from services.user_context.store import OwnStore

LAST_USER_ID = 2**64 - 1

# A page of rows takes the process a few milliseconds, which hits have to wait for.
ROWS_PER_PAGE = 10_000
PEOPLE_PER_TURN = 500

# Blocks that may wait for the client before the reading does.
BLOCKS_AHEAD = 2

# A block ends early at this size; messages may have four times as much.
BLOCK_BYTES = 4 << 20

# How many kinds of matters are remembered; beyond it all are forgotten, and sent anew.
MATTERS_REMEMBERED = 200_000

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
_Matter = tuple[bool, str | None, bool, str]

_NEW_MATTER_TAG = b"\x2a"
_CLAIM_TAG = b"\x22"


class FactsStreams:
    """Starts streams; each holds a connection to MySQL until it has been read."""

    def __init__(self, scans: TableScans, own: OwnStore, *, most_seconds: float) -> None:
        self._scans = scans
        self._own = own
        self._most_seconds = most_seconds

    async def blocks(self, after_user_id: int, people: int) -> AsyncGenerator[bytes, None]:
        """Yield encoded StreamUserFactsResponses of up to ``people`` people above an id.

        Every block is of the same moment, which is after the call. The reading stops when the
        iterator is closed.

        Raises:
            Unavailable: MAIN_APP_UNAVAILABLE or VERSIONS_UNAVAILABLE.
            DeadlineExceeded: STREAM_TOO_SLOW, the blocks were not taken in time, and a snapshot
                must not be held for longer.
            Exhausted: FACTS_TOO_VARIED.
        """
        ready: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(BLOCKS_AHEAD)
        reading = asyncio.create_task(self._read_within_limit(after_user_id, people, ready))
        try:
            while (block := await ready.get()) is not None:
                if isinstance(block, Exception):
                    raise block
                yield block
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read_within_limit(
        self, after: int, people: int, ready: "asyncio.Queue[bytes | Exception | None]"
    ) -> None:
        ended: Exception | None = None
        limit = asyncio.timeout(self._most_seconds)
        try:
            async with limit:
                await self._read(after, people, ready)
        except Exception as error:
            ended = error
            if isinstance(error, TimeoutError) and limit.expired():
                ended = DeadlineExceeded(
                    "STREAM_TOO_SLOW", "the main app's people were not read in time"
                )
        await ready.put(ended)

    async def _read(
        self, after: int, people: int, ready: "asyncio.Queue[bytes | Exception | None]"
    ) -> None:
        with versions_needed():
            version = await self._own.draw_version()
        async with self._scans.begin() as scan:
            last_user_id = await scan.highest("users")
            claims = Claims()
            await _read_requirements(scan, claims)
            await _read_claims(scan, claims, after)
            encoder = _BlockEncoder(claims, version, last_user_id)
            pages = scan.pages("users", _USER, rows=people, after=after)
            async with aclosing(pages):
                async for page in pages:
                    async for block in _in_turns(encoder, page, is_last=len(page[0]) < people):
                        await ready.put(block)


async def _read_requirements(scan: TableScan, claims: Claims) -> None:
    pages = scan.pages("claim_requirements", _REQUIREMENT, rows=ROWS_PER_PAGE)
    async with aclosing(pages):
        async for claim_ids, types, statuses, reasons in pages:
            claims.add_requirements(claim_ids, types, statuses, reasons)


async def _read_claims(scan: TableScan, claims: Claims, after: int) -> None:
    pages = scan.pages("claims", _CLAIM, rows=ROWS_PER_PAGE)
    async with aclosing(pages):
        async for page in pages:
            if after:
                wanted = [user_id is not None and user_id > after for user_id in page[1]]
                page = [list(compress(column, wanted)) for column in page]
            claims.add_claims(*page)


async def _in_turns(
    encoder: "_BlockEncoder", page: Columns, *, is_last: bool
) -> AsyncGenerator[bytes, None]:
    """Encode a page of people so that others get their turn; mostly it makes one block."""
    people = len(page[0])
    for start in range(0, people, PEOPLE_PER_TURN):
        encoder.add([column[start : start + PEOPLE_PER_TURN] for column in page])
        if encoder.size_bytes >= BLOCK_BYTES and start + PEOPLE_PER_TURN < people:
            yield encoder.block(encoder.through_user_id)
        await asyncio.sleep(0)
    yield encoder.block(LAST_USER_ID if is_last else encoder.through_user_id)


class _Encoded(dict[K, bytes]):
    """Remembers the bytes that ``encode`` makes of a key."""

    def __init__(self, encode: Callable[[K], bytes]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, key: K) -> bytes:
        encoded = self[key] = self._encode(key)
        return encoded


class _MatterEncoder:
    """Encodes matters from the bytes of their parts, of which there are far fewer."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._starts = _Encoded[tuple[bool, str | None, bool]](_start)
        self._statuses = _Encoded[str | None](_status)
        self._requirements = _Encoded[str](self._requirement)
        self._of_kinds = _Encoded[str](self._claim)

    def new_matter(self, matter: _Matter) -> bytes:
        """Return a matter as an element of StreamUserFactsResponse.new_matters."""
        is_enabled, status, has_signature, kinds = matter
        start = self._starts[is_enabled, status, has_signature]
        fields = self._of_kinds
        return delimited(_NEW_MATTER_TAG, start + b"".join([fields[kind] for kind in kinds]))

    def _claim(self, kind: str) -> bytes:
        status, requirements = self._claims.kinds.kind(kind)
        fields = self._requirements
        body = self._statuses[status] + b"".join([fields[it] for it in requirements])
        return delimited(_CLAIM_TAG, body)

    def _requirement(self, character: str) -> bytes:
        kind, status, reason = self._claims.requirements.kind(character)
        message = RequirementFacts(type=kind, status=status, reason=reason)
        return ClaimFacts(requirements=[message]).SerializeToString()


def _start(key: tuple[bool, str | None, bool]) -> bytes:
    is_enabled, status, has_signature = key
    start = pb.Matter(is_enabled=is_enabled, status=status, has_signature=has_signature)
    return start.SerializeToString()


def _status(status: str | None) -> bytes:
    return ClaimFacts(status=status).SerializeToString()


class _BlockEncoder:
    """Makes blocks of people; what has been sent in one is not sent again in a later one."""

    def __init__(self, claims: Claims, version: int, last_user_id: int) -> None:
        self._claims = claims
        self._encoder = _MatterEncoder(claims)
        self._matters = Numbers[_Matter]()
        self._lenders = Numbers[int](first=1)
        # No lender, here and there.
        self._lenders[0] = 0
        self._version = version
        self._last_user_id = last_user_id
        self.through_user_id = 0
        self._response = pb.StreamUserFactsResponse()
        self._new_matters: list[bytes] = []
        self.size_bytes = 0

    def add(self, people: Columns) -> None:
        """Put people into the block; the columns are in the order of ``_USER``."""
        user_ids, are_enabled, statuses, phones, born, signatures, created = people
        if not user_ids:
            return
        claims = self._claims.take(user_ids)
        signed = [signature is not None for signature in signatures]
        block = self._response
        block.user_ids.extend(user_ids)
        block.matters.extend(
            map(
                self._matters.__getitem__,
                zip(map(bool, are_enabled), statuses, signed, claims.kinds, strict=True),
            )
        )
        block.phone_e164.extend(e164_of_many(phones))
        block.created_at.extend(created)
        block.date_of_birth.extend("" if day is None else day.isoformat() for day in born)
        block.claim_created_at.extend(claims.moments)
        block.claim_lenders.extend(map(self._lenders.__getitem__, claims.lenders))
        self.through_user_id = user_ids[-1]
        self._encode_new_matters()

    def block(self, through_user_id: int) -> bytes:
        """Return what has been put in as a block, and begin the next."""
        block, self._response = self._response, pb.StreamUserFactsResponse()
        new_matters, self._new_matters = self._new_matters, []
        self.size_bytes = 0
        block.version = self._version
        block.through_user_id = through_user_id
        block.last_user_id = self._last_user_id
        lenders = self._claims.lenders()
        block.new_lenders.extend(lenders[it] or "" for it in self._lenders.take_new())
        return block.SerializeToString() + b"".join(new_matters)

    def _encode_new_matters(self) -> None:
        new = list(map(self._encoder.new_matter, self._matters.take_new()))
        if len(self._matters) > MATTERS_REMEMBERED:
            self._matters.clear()
        self._new_matters += new
        self.size_bytes += sum(map(len, new))
