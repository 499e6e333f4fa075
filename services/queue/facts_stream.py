"""Everybody's facts as `user_context` streams them, block by block, already assessed."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dialler.user_context.v1 import user_context_pb2, user_context_pb2_grpc

from servicekit import deadline
from services.queue.domain.assessment import Assessment
from services.queue.domain.eligibility import Verdict
from services.queue.domain.entries import Placement
from services.queue.domain.facts import ClaimFacts, UserFacts
from services.queue.domain.terms import UserId
from services.queue.requests import claim_of, day_of

_NULL = -(2**63)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IDS_END = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Block:
    """People of one stretch of ids, `after` left out; whoever is missing does not exist."""

    version: int
    after: int
    through: int
    last_user_id: int
    people: list[Assessment]


@dataclass(frozen=True, slots=True)
class _Matter:
    """What people owe, judged once for all who owe the same."""

    facts: UserFacts
    verdict: Verdict


class FactsStream:
    """Reads everybody; judges every matter once."""

    def __init__(
        self,
        user_context: "user_context_pb2_grpc.UserContextServiceAsyncStub",
        timeout_seconds: float,
    ) -> None:
        """`timeout_seconds` is for all of it."""
        self._user_context = user_context
        self._timeout_seconds = timeout_seconds

    async def blocks(self, placement: Placement, now: datetime) -> AsyncIterator[Block]:
        """Yield everybody in rising order of id; raises Unavailable when the main app is away."""
        matters: list[_Matter] = []
        lenders: list[str | None] = [None]
        after = 0
        with deadline.limit(self._timeout_seconds):
            request = user_context_pb2.StreamUserFactsRequest()
            async for message in self._user_context.StreamUserFacts(request):
                matters += [_matter(it, placement) for it in message.new_matters]
                lenders += message.new_lenders
                people = list(_assessed(message, matters, lenders, placement, now))
                through = min(message.through_user_id, _IDS_END)
                yield Block(message.version, after, through, message.last_user_id, people)
                after = through


def _matter(message: user_context_pb2.Matter, placement: Placement) -> _Matter:
    facts = UserFacts(
        user_id=UserId(0),
        exists=True,
        version=0,
        is_enabled=message.is_enabled,
        status=message.status if message.HasField("status") else None,
        has_signature=message.has_signature,
        claims=tuple(map(claim_of, message.claims)),
    )
    return _Matter(facts, placement.eligibility.judge(facts))


def _assessed(
    message: user_context_pb2.StreamUserFactsResponse,
    matters: Sequence[_Matter],
    lenders: Sequence[str | None],
    placement: Placement,
    now: datetime,
) -> Iterator[Assessment]:
    assess = placement.assessor.assess_judged
    version = message.version
    claimed = [_moment(seconds) for seconds in message.claim_created_at]
    claim_lenders = [lenders[number] for number in message.claim_lenders]
    place = 0
    columns = zip(
        message.user_ids,
        message.matters,
        message.phone_e164,
        message.created_at,
        message.date_of_birth,
        strict=True,
    )
    for user_id, number, phone, created_at, born in columns:
        if user_id > _IDS_END:
            # Ids from 2^63 on are not kept.
            continue
        matter = matters[number]
        end = place + len(matter.facts.claims)
        claims = tuple(
            ClaimFacts(claim.status, at, claim.requirements, lender)
            for claim, at, lender in zip(
                matter.facts.claims, claimed[place:end], claim_lenders[place:end], strict=True
            )
        )
        place = end
        facts = matter.facts._replace(
            user_id=UserId(user_id),
            version=version,
            claims=claims,
            phone_e164=phone or None,
            created_at=_moment(created_at),
            date_of_birth=day_of(born) if born else None,
        )
        yield assess(facts, matter.verdict, now)


def _moment(seconds: int) -> datetime | None:
    return None if seconds == _NULL else _EPOCH + timedelta(seconds=seconds)
