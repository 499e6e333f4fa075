"""Streams all people's facts from `user_context`, block by block, assessed."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import lt
from typing import NamedTuple

from dialler.model.v1 import facts_pb2
from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, Unavailable
from services.queue.domain.assessment import Assessment, known_since
from services.queue.domain.eligibility import EligibilityVerdict
from services.queue.domain.entries import Placement
from services.queue.domain.facts import ClaimFacts, UserFacts
from services.queue.types import UserId
from services.queue.wire.requests import claim_of, day_of

_NULL = -(2**63)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IDS_END = 2**63 - 1
_TOO_SLOW = "STREAM_TOO_SLOW"


@dataclass(frozen=True, slots=True)
class FactsBlock:
    """People with ids above `after` up to `through`; an id that is missing does not exist."""

    version: int
    after: int
    through: int
    last_user_id: int
    people: list[Assessment]


class _SharedFacts(NamedTuple):
    """What many people have in common: the verdict, and the places of the claims that count."""

    verdict: EligibilityVerdict
    claims: int
    open_claims: tuple[int, ...]


class _Judge:
    """Judges the people of one stream; what many of them share is judged once."""

    def __init__(self, placement: Placement, now: datetime) -> None:
        self._eligibility = placement.eligibility
        self._assessor = placement.assessor
        self._now = now
        self._claims: dict[bytes, ClaimFacts] = {}
        self._shared: list[_SharedFacts] = []
        # Number 0 is no lender.
        self._lender_points = [self._assessor.lender_points(None)]
        self._ages: dict[str, tuple[float, datetime | None]] = {}

    def judge(self, message: user_context_pb2.StreamUserFactsResponse) -> list[Assessment]:
        """Return the assessments of a block's people; blocks must come in the stream's order."""
        self._shared += map(self._judge_shared, message.new_shared_facts)
        self._lender_points += map(self._assessor.lender_points, message.new_lenders)
        return list(self._people(message))

    def _judge_shared(self, message: user_context_pb2.SharedFacts) -> _SharedFacts:
        claims = tuple(map(self._claim, message.claims))
        facts = UserFacts(
            user_id=UserId(0),
            exists=True,
            version=0,
            is_enabled=message.is_enabled,
            status=message.status if message.HasField("status") else None,
            has_signature=message.has_signature,
            claims=claims,
        )
        verdict = self._eligibility.judge(facts)
        open_claims: tuple[int, ...] = ()
        if verdict.open_case_queue is not None:
            is_open = self._eligibility.is_open
            open_claims = tuple(place for place, it in enumerate(claims) if is_open(it))
        return _SharedFacts(verdict, len(claims), open_claims)

    def _claim(self, message: facts_pb2.ClaimFacts) -> ClaimFacts:
        encoded = message.SerializeToString(deterministic=True)
        claim = self._claims.get(encoded)
        if claim is None:
            claim = self._claims[encoded] = claim_of(message)
        return claim

    def _age_points(self, born: str) -> tuple[float, datetime | None]:
        points = self._ages.get(born)
        if points is None:
            day = day_of(born) if born else None
            points = self._ages[born] = self._assessor.age_points(day, self._now)
        return points

    def _people(self, message: user_context_pb2.StreamUserFactsResponse) -> Iterator[Assessment]:
        assess = self._assessor.assess_judged
        version = message.version
        claimed, claim_lenders = list(message.claim_created_at), list(message.claim_lenders)
        others = {it.position: tuple(it.e164) for it in message.other_phones}
        columns = zip(
            message.user_ids,
            message.shared_facts,
            message.phone_e164,
            message.created_at,
            message.date_of_birth,
            strict=True,
        )
        end = 0
        for position, (user_id, number, phone, registered, born) in enumerate(columns):
            verdict, claims, open_claims = self._shared[number]
            start, end = end, end + claims
            if user_id > _IDS_END:
                # Ids from 2^63 on are not kept.
                continue
            yield assess(
                UserId(user_id),
                version,
                (phone, *others.get(position, ())) if phone else (),
                verdict,
                min(
                    [self._lender_points[claim_lenders[start + it]] for it in open_claims],
                    default=0.0,
                ),
                self._age_points(born),
                _earliest([claimed[start + it] for it in open_claims]),
                known_since(_moment(registered), _earliest(claimed[start:end])),
            )


class FactsStream:
    """Reads all people; judges facts that people share once."""

    def __init__(
        self,
        user_context: "user_context_pb2_grpc.UserContextServiceAsyncStub",
        timeout_seconds: float,
    ) -> None:
        """`timeout_seconds` is for all streams of one reading together."""
        self._user_context = user_context
        self._timeout_seconds = timeout_seconds

    async def blocks(self, placement: Placement, now: datetime) -> AsyncGenerator[FactsBlock, None]:
        """Yield all people in rising order of id, in several streams if one takes too long.

        Raises Unavailable when the main app cannot be read, and when the stream ends before the
        last block or is not in order (FACTS_STREAM_INCOMPLETE): a missing person may exist then.
        """
        after = 0
        with deadline.limit(self._timeout_seconds):
            while after != _IDS_END:
                began_after = after
                try:
                    async with aclosing(self._stream(placement, now, after)) as stream:
                        async for block in stream:
                            yield block
                            after = block.through
                except DeadlineExceeded as error:
                    # A snapshot of the main app is held for so long only; the next stream goes on.
                    if error.reason != _TOO_SLOW or after == began_after:
                        raise
                else:
                    if after != _IDS_END:
                        raise _incomplete()

    async def _stream(
        self, placement: Placement, now: datetime, after: int
    ) -> AsyncGenerator[FactsBlock, None]:
        """Yield the blocks of one stream."""
        judge = _Judge(placement, now).judge
        request = user_context_pb2.StreamUserFactsRequest(after_user_id=after)
        async for message in self._user_context.StreamUserFacts(request):
            people = judge(message)
            through = min(message.through_user_id, _IDS_END)
            ids = [after, *(it.user_id for it in people)]
            is_in_order = all(map(lt, ids, ids[1:])) and ids[-1] <= through and after < through
            if not is_in_order:
                raise _incomplete()
            last_user_id = min(message.last_user_id, _IDS_END)
            yield FactsBlock(message.version, after, through, last_user_id, people)
            after = through


def _incomplete() -> Unavailable:
    return Unavailable("FACTS_STREAM_INCOMPLETE", "not all people were read from the main app")


def _earliest(moments: Sequence[int]) -> datetime | None:
    first = min(moments, default=_NULL)
    if first == _NULL:
        first = min([it for it in moments if it != _NULL], default=_NULL)
    return _moment(first)


def _moment(seconds: int) -> datetime | None:
    return None if seconds == _NULL else _EPOCH + timedelta(seconds=seconds)
