"""How many items a page holds, and whether another follows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.paging import cut_page, page_size


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (200, 200), (201, 200)])
def test_size_is_the_default_or_what_is_asked_up_to_the_largest(asked: int, size: int) -> None:
    assert page_size(asked, default=50, largest=200) == size


@given(st.integers(0, 30), st.integers(1, 10))
def test_pages_hold_every_item_once_and_end_without_a_token(count: int, size: int) -> None:
    seen: list[int] = []
    token = "0"
    while token:
        found = list(range(count))[int(token) : int(token) + size + 1]
        page, token = cut_page(found, size, lambda last: str(last + 1))
        assert len(page) <= size
        seen += page
    assert seen == list(range(count))
