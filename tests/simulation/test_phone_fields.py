"""The checker reads every phone field that the simulation writes as it was meant."""

from collections.abc import Callable
from datetime import UTC, datetime
from random import Random

import pytest

from devstack.vocabulary import INVALID_PHONES
from simulation.callback_times import wanted_time
from simulation.checker.hours import are_open
from simulation.checker.reading import phones_of
from simulation.phone_fields import (
    NO_NUMBER,
    any_number,
    changed_field,
    labelled,
    several,
    spoilt,
    written,
)


@pytest.mark.parametrize("spell", [written, labelled, spoilt])
def test_one_number_is_read_as_it_was_meant(spell: Callable[[Random, str], str]) -> None:
    rng = Random(1)
    for _ in range(500):
        phone = any_number(rng)
        text = spell(rng, phone)
        assert phones_of(text) == (phone,), text


def test_several_numbers_are_read_in_their_order() -> None:
    rng = Random(1)
    for _ in range(500):
        phones = (any_number(rng), any_number(rng))
        text = several(rng, phones)
        assert phones_of(text) == tuple(dict.fromkeys(phones)), text


@pytest.mark.parametrize("text", [*NO_NUMBER, *INVALID_PHONES])
def test_a_field_without_a_number_is_read_so(text: str | None) -> None:
    assert phones_of(text) == ()


def test_fields_change_to_none_to_a_neighbour_s_and_to_several_numbers() -> None:
    rng = Random(1)
    fields = [phones_of(changed_field(rng, ("7700900001",), "7700900002")) for _ in range(200)]
    assert () in fields
    assert ("7700900002",) in fields
    assert any(len(phones) == 2 for phones in fields)


def test_callbacks_are_wanted_for_open_and_for_closed_hours() -> None:
    rng = Random(1)
    now = datetime(2026, 6, 8, 9, tzinfo=UTC)
    wanted = [are_open(wanted_time(rng, now)) for _ in range(200)]
    assert wanted.count(True) > 100
    assert wanted.count(False) > 20
