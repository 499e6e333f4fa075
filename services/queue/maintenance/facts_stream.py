"""Streams all people's facts from `user_context`, block by block, assessed."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import lt

from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc

from servicekit import deadline
from servicekit.errors import DeadlineExceeded, Unavailable
from services.queue.domain.assessment import Assessment
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


@dataclass(frozen=True, slots=True)
class _SharedFacts:
    """Claims and statuses that many people have in common, with the verdict they lead to."""

    facts: UserFacts
    verdict: EligibilityVerdict


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
        shared: list[_SharedFacts] = []
        lenders: list[str | None] = [None]
        request = user_context_pb2.StreamUserFactsRequest(after_user_id=after)
        async for message in self._user_context.StreamUserFacts(request):
            for it in message.new_shared_facts:
                facts = UserFacts(
                    user_id=UserId(0),
                    exists=True,
                    version=0,
                    is_enabled=it.is_enabled,
                    status=it.status if it.HasField("status") else None,
                    has_signature=it.has_signature,
                    claims=tuple(map(claim_of, it.claims)),
                )
                shared.append(_SharedFacts(facts, placement.eligibility.judge(facts)))
            lenders += message.new_lenders
            people = list(_assessed(message, shared, lenders, placement, now))
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


def _assessed(
    message: user_context_pb2.StreamUserFactsResponse,
    shared: Sequence[_SharedFacts],
    lenders: Sequence[str | None],
    placement: Placement,
    now: datetime,
) -> Iterator[Assessment]:
    assess = placement.assessor.assess_judged
    version = message.version
    claimed = [_moment(seconds) for seconds in message.claim_created_at]
    claim_lenders = [lenders[number] for number in message.claim_lenders]
    place = 0
    others = {it.position: tuple(it.e164) for it in message.other_phones}
    columns = zip(
        message.user_ids,
        message.shared_facts,
        message.phone_e164,
        message.created_at,
        message.date_of_birth,
        strict=True,
    )
    for position, (user_id, number, phone, created_at, born) in enumerate(columns):
        if user_id > _IDS_END:
            # Ids from 2^63 on are not kept.
            continue
        common = shared[number]
        end = place + len(common.facts.claims)
        claims = tuple(
            ClaimFacts(claim.status, at, claim.requirements, lender)
            for claim, at, lender in zip(
                common.facts.claims, claimed[place:end], claim_lenders[place:end], strict=True
            )
        )
        place = end
        facts = common.facts._replace(
            user_id=UserId(user_id),
            version=version,
            claims=claims,
            phones=(phone, *others.get(position, ())) if phone else (),
            created_at=_moment(created_at),
            date_of_birth=day_of(born) if born else None,
        )
        yield assess(facts, common.verdict, now)


def _moment(seconds: int) -> datetime | None:
    return None if seconds == _NULL else _EPOCH + timedelta(seconds=seconds)
