"""Pages of a list: how many items one holds, and whether another follows."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def page_size(asked: int, *, default: int, largest: int) -> int:
    """Return how many items a page holds: 0 means the default, and more than the largest that."""
    return min(asked or default, largest)


def cut_page(
    found: Sequence[T], size: int, token_after: Callable[[T], str]
) -> tuple[Sequence[T], str]:
    """Return the items of the page and the token of the next one, empty on the last page.

    `found` holds one item more than `size` where another page follows. `token_after` makes the
    token of the page that begins after an item.
    """
    page = found[:size]
    return page, token_after(page[-1]) if len(found) > size else ""
