"""A change that is requested again under the same request id happens once."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from google.protobuf.message import Message

from servicekit.errors import InvalidArgument
from services.queue.store import idempotency_records
from services.queue.store.database import Database, Transaction
from services.queue.store.idempotency_records import IdempotencyRecord, IdempotentRequest

M = TypeVar("M", bound=Message)


async def once(
    database: Database,
    request: IdempotentRequest,
    now: datetime,
    response: type[M],
    change: Callable[[Transaction], Awaitable[M]],
    committed: Callable[[], None] | None = None,
    guard: Callable[[Transaction], Awaitable[None]] | None = None,
) -> M:
    """Make the change and keep its answer in one transaction; a repeat gets the first answer.

    A repeat at the same moment waits for the first. `committed` is called after the commit of the
    first. `guard` takes a lock that comes before the request id in the order of locks. Raises
    InvalidArgument (REQUEST_ID_REUSED) for another request under an id that is taken, and what
    `change` raises, which leaves the id free.
    """
    async with database.transaction() as tx:
        if guard is not None:
            await guard(tx)
        answered = await idempotency_records.begin(tx, request, now)
        if answered is not None:
            return response.FromString(first_answer(answered, request))
        answer = await change(tx)
        await idempotency_records.finish(tx, request, answer.SerializeToString())
    if committed is not None:
        committed()
    return answer


def first_answer(answered: IdempotencyRecord, request: IdempotentRequest) -> bytes:
    """Return the first answer; raises InvalidArgument (REQUEST_ID_REUSED) for another request."""
    same = (answered.method, answered.payload_hash) == (request.method, request.payload_hash)
    if not same or answered.response is None:
        raise InvalidArgument(
            "REQUEST_ID_REUSED", "the request id was used for another request before"
        )
    return answered.response
