"""In every format a reading of the changed row is not stale, and a reading before it is."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from dialler.model.v1.facts_pb2 import ClaimFacts, RequirementFacts, UserFacts
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cdc_ingest.domain.people import Key, RowKey
from services.cdc_ingest.domain.staleness import (
    LatestObservations,
    Observations,
    ReadingVerdict,
    verdict,
)
from services.cdc_ingest.refresh.readings import FactsReading
from tests.unit.cdc_ingest.spellings import ALL, WITH_NULLS, Change, Row, Zero

LARGE = st.sampled_from([5, 128, 2**31, 10**16, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1])
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
# Trailing spaces, other scripts, words that some write for NULL, quotes and line ends.
TEXTS = st.text(CHARACTERS, max_size=8) | st.sampled_from(
    ["open", "open ", "Straße", "🙂", "null", "NULL", r"\N", "0", "1", '"\n,']
)
MAYBE = st.none() | TEXTS
MOMENTS = (
    st.integers(0, 2**31 * 1_000_000).map(
        lambda us: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us)
    )
    # The hour that comes twice in London, and the one that never comes.
    | st.sampled_from(
        [datetime(2025, 10, 26, 1, 30, 0, 1, UTC), datetime(2025, 3, 30, 1, 30, tzinfo=UTC)]
    )
    | st.just(Zero.DATETIME)
    | st.none()
)
DATES = st.dates(date(1900, 1, 1), date(2037, 1, 1)) | st.just(Zero.DATE) | st.none()
FLAGS = st.sampled_from([0, 1, 2, -1, 127])
USER_ID = 2**63 + 5

USERS = st.fixed_dictionaries(
    {
        "is_enabled": FLAGS,
        "status": MAYBE,
        "current_signature_file_id": st.none() | st.sampled_from(["", "f-1", "NULL"]),
        "date_of_birth": DATES,
        "notification_channels": st.none() | st.just({"sms": True, "ids": [1.50, None]}),
        "created_at": MOMENTS,
    }
)
CLAIMS = st.fixed_dictionaries({"status": MAYBE, "lender": MAYBE, "created_at": MOMENTS})
REQUIREMENTS = st.fixed_dictionaries(
    {
        "type": MAYBE,
        "status": MAYBE,
        "claim_requirement_reason": MAYBE,
        # Of no requirement: a decimal, for the forms it takes.
        "monthly_payment": st.sampled_from([Decimal("10.50"), Decimal("-0.00"), None]),
    }
)

COLUMNS: Mapping[str, st.SearchStrategy[dict[str, Any]]] = {
    "users": USERS,
    "claims": CLAIMS,
    "claim_requirements": REQUIREMENTS,
}


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """An insert, an update or a delete of a row that stays with its person."""
    table = draw(st.sampled_from(sorted(COLUMNS)))
    columns = COLUMNS[table]
    number = draw(LARGE)
    keys: dict[str, dict[str, object]] = {
        "users": {"id": number},
        "claims": {"id": number, "user_id": USER_ID},
        "claim_requirements": {"id": "00000000-0000-4000-8000-000000000001", "claim_id": number},
    }
    before, after = ({**keys[table], **draw(columns)} for _ in range(2))
    kind = draw(st.sampled_from(["insert", "update", "update", "update", "delete"]))
    return Change(table, None if kind == "insert" else before, None if kind == "delete" else after)


def place_of(change: Change) -> Key:
    row = change.after or change.before or {}
    if change.table == "users":
        return int(row["id"])
    return USER_ID if change.table == "claims" else RowKey("claims", str(row["claim_id"]))


def reading_of(change: Change, row: Row | None) -> FactsReading:
    """What user_context finds when the row is so, or is not there; its parents are."""
    known = change.after or change.before or {}
    if change.table == "users":
        return FactsReading([] if row is None else [_user(row)])
    claim: list[ClaimFacts] = []
    if change.table == "claims" and row is not None:
        claim = [ClaimFacts(claim_id=row["id"], status=row["status"], lender=row["lender"])]
    if change.table == "claim_requirements":
        claim = [ClaimFacts(claim_id=known["claim_id"], requirements=_requirements(row))]
    return FactsReading([UserFacts(user_id=USER_ID, exists=True, claims=claim)])


def _user(row: Row) -> UserFacts:
    return UserFacts(
        user_id=row["id"],
        exists=True,
        is_enabled=bool(row["is_enabled"]),
        status=row["status"],
        has_signature=row["current_signature_file_id"] is not None,
    )


def _requirements(row: Row | None) -> list[RequirementFacts]:
    if row is None:
        return []
    reason = row["claim_requirement_reason"]
    kind, status, key = row["type"], row["status"], row["id"]
    return [RequirementFacts(requirement_id=key, type=kind, status=status, reason=reason)]


def judged(told: Observations, change: Change, row: Row | None) -> ReadingVerdict:
    place = place_of(change)
    return verdict(told.get(place), place, reading_of(change, row), LatestObservations())


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=60)
@given(changes())
def test_a_reading_of_the_row_that_was_told_is_never_stale(name: str, change: Change) -> None:
    told = ALL[name](change)
    assert place_of(change) in told, "the key is as in the facts"
    if "csv" in name and (change.after or {}).get("current_signature_file_id") == "NULL":
        # Read as no signature at all; ids are UUIDs, never such a word.
        return
    assert judged(told, change, change.after) <= (
        # In files, words for NULL are the same as NULL: the verdict is at worst doubtful.
        ReadingVerdict.DOUBTFUL if "csv" in name else ReadingVerdict.UNTOLD
    )


@pytest.mark.parametrize("name", WITH_NULLS)
@settings(max_examples=60)
@given(changes())
def test_a_reading_from_before_what_was_told_is_stale(name: str, change: Change) -> None:
    told = WITH_NULLS[name](change)
    if not is_seen(change, is_file="csv" in name):
        return
    assert judged(told, change, change.before) is ReadingVerdict.STALE


def is_seen(change: Change, *, is_file: bool) -> bool:
    """Tell whether facts before and after differ, in a way the format can spell."""
    before, after = change.before, change.after
    if before is None or after is None:
        # A new person whose row is not there and a claim whose person is: both are expected.
        return True
    old, new = _facts(change.table, before), _facts(change.table, after)
    words = {"NULL", "null", r"\N", ""}
    if is_file and words & {str(v) for v in (*before.values(), *after.values())}:
        return False
    return old != new


def _facts(table: str, row: Row) -> tuple[Any, ...]:
    if table == "users":
        has_signature = row["current_signature_file_id"] is not None
        return bool(row["is_enabled"]), row["status"] or None, has_signature
    names = {"claims": ("status", "lender")}.get(
        table, ("type", "status", "claim_requirement_reason")
    )
    return tuple(row[name] or None for name in names)
