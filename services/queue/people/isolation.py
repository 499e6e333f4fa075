"""Does work on many items so that a faulty one never fails the others."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from servicekit.backoff import TRY_AGAIN
from servicekit.errors import ServiceError

_log = logging.getLogger(__name__)


T = TypeVar("T")


async def isolated(
    items: Sequence[T],
    work: Callable[[Sequence[T]], Awaitable[None]],
    on_fault: Callable[[T, Exception], Awaitable[None]],
) -> None:
    """Do `work` for all items at once; where it fails, for the halves, down to single items.

    `on_fault` gets each item for which `work` fails alone; what it raises ends everything. `work`
    must leave nothing behind when it fails, except that it may have finished some of the items and
    finds that when it is repeated. Raises Unavailable, DeadlineExceeded and Exhausted at once.
    """
    if not items:
        return
    try:
        await work(items)
    except TRY_AGAIN:
        raise
    except Exception as error:
        if len(items) == 1:
            if not isinstance(error, ServiceError):
                _log.exception("work_failed")
            await on_fault(items[0], error)
            return
    else:
        return
    middle = len(items) // 2
    await isolated(items[:middle], work, on_fault)
    await isolated(items[middle:], work, on_fault)
