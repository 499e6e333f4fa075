"""PostgreSQL and Redis are lost under load and restored: no person is called wrongly for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devstack.restore_drill import Drill, drill_stack
from devstack.stack import Stack

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]


@pytest.fixture
def stack() -> Iterator[Stack]:
    with drill_stack(users=300, copies=1) as running:
        yield running


def test_what_was_confirmed_is_there_after_a_restore_and_no_person_is_called_twice(
    stack: Stack,
) -> None:
    said: list[str] = []
    found = Drill(stack, seconds=1.5, report=said.append).run()
    assert found.lost_of_the_backup == []
    # The drill is one: the restore alone has lost work that agents were told is kept.
    assert len(found.lost_by_the_restore) > 3
    assert found.lost_seconds > 0.5
    assert found.lost_for_good == [], said
    assert found.wrong_calls == [], said
    assert found.handed_out >= 20
