"""The sums of docs/costs.md and of the guide for the first day are right, and agree."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
COSTS = (DOCS / "costs.md").read_text(encoding="utf-8")
DAY_ONE = (DOCS / "day-one-aws.md").read_text(encoding="utf-8")
_HEAD = "| part | price | $ a month each |"
_CENT = Decimal("0.01")


def _tables(text: str, head: str) -> Iterator[list[list[str]]]:
    for block in re.split(r"\n\n+", text):
        if block.startswith(head):
            lines = block.splitlines()[2:]
            yield [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def _number(cell: str) -> Decimal:
    return Decimal(cell.replace("*", "").replace(",", ""))


PRICED = list(_tables(COSTS, _HEAD))
TOTALS = [row for table in PRICED for row in table if row[0].startswith("**")]


def test_both_ways_are_priced() -> None:
    assert len(PRICED) == len(TOTALS) == 2
    assert len(PRICED[0]) > 15


@pytest.mark.parametrize("table", PRICED, ids=["suite", "dms"])
def test_each_row_is_price_by_count_and_the_last_their_sum(table: list[list[str]]) -> None:
    *parts, total = table
    for name, _, price, *counts in parts:
        for count, amount in zip(counts[::2], counts[1::2], strict=True):
            exact = _number(price) * _number(count)
            assert abs(exact - _number(amount)) <= _CENT / 2, name
    few, many = (_number(it) for it in total if re.search(r"\d", it))
    assert few == sum(_number(row[4]) for row in parts)
    assert many == sum(_number(row[6]) for row in parts)


def test_the_steps_of_the_first_day_cost_what_the_month_costs() -> None:
    (steps,) = _tables(DAY_ONE, "| step | takes | $ a month |")
    *parts, total = steps
    assert sum(_number(row[2]) for row in parts) == _number(total[2])
    assert _number(total[2]) == _number(next(it for it in TOTALS[0] if re.search(r"\d", it)))


def test_what_is_said_of_dms_is_its_sum() -> None:
    extra = _number(next(it for it in TOTALS[1] if re.search(r"\d", it)))
    assert f"| {extra} | AWS runs it" in COSTS
    relay = Decimal(re.search(r"\| (\d+\.\d\d): its two pods", COSTS)[1])  # type: ignore[index]
    assert f"worth {round(extra - relay)} dollars more a month" in COSTS
