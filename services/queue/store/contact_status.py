"""Reads the contact status of people: objections, lists, placeholders, and calls."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services.queue.domain.caps import LineCall, PastCall
from services.queue.domain.entries import ContactStatus
from services.queue.store.database import Transaction, arrays, statement, unnested
from services.queue.store.phone_lists import is_listed
from services.queue.types import ContactBlock, Outcome, PhoneBlock, UserId

Numbers = Sequence[tuple[UserId, Sequence[str]]]
# Kind, person, number, moment, number of flags: see `statuses_sql`.
Row = Sequence[Any]


async def statuses(
    tx: Transaction, people: Numbers, calls_since: datetime
) -> dict[UserId, ContactStatus]:
    """Return the status of each person with these numbers, calls after `calls_since` included."""
    if not people:
        return {}
    rows = await tx.execute(_STATUSES, parameters(people, calls_since))
    return found(people, rows.all())


def parameters(
    people: Numbers, calls_since: datetime, without: UUID | None = None
) -> dict[str, Any]:
    """Return the parameters of `statuses_sql`; the call of assignment `without` is left out."""
    pairs = [(user_id, phone) for user_id, phones in people for phone in phones]
    return {
        **arrays(_PAIR_COLUMNS, pairs, parameters="number"),
        "user_ids": [user_id for user_id, _ in people],
        "phones": sorted({phone for _, phone in pairs}),
        "since": calls_since,
        "without": without,
    }


def found(people: Numbers, rows: Iterable[Row]) -> dict[UserId, ContactStatus]:
    """Return the statuses from the rows of `statuses_sql`."""
    blocks: dict[tuple[int, str], int] = {}
    objections: dict[int, ContactBlock] = {}
    calls: dict[int, list[PastCall]] = {}
    line_calls: dict[str, list[LineCall]] = {}
    for kind, user_id, phone, moment, number in rows:
        if kind == _NUMBER:
            blocks[user_id, phone] = number
        elif kind == _OBJECTION:
            objections[user_id] = objections.get(user_id, ContactBlock(0)) | ContactBlock(number)
        elif kind == _CALL:
            calls.setdefault(user_id, []).append(PastCall(moment, bool(number)))
        else:
            outcome = Outcome(number) if number else None
            call = LineCall(phone, UserId(user_id), moment, outcome)
            line_calls.setdefault(phone, []).append(call)
    result = {}
    for user_id, phones in people:
        lines = tuple(phone for phone in phones if (user_id, phone) in blocks)
        block = PhoneBlock(0)
        for phone in lines:
            block |= PhoneBlock(blocks[user_id, phone])
        result[user_id] = ContactStatus(
            lines=lines,
            phone_block=block,
            objections=objections.get(user_id, ContactBlock(0)),
            calls=tuple(calls.get(user_id, ())),
            line_calls=tuple(call for phone in lines for call in line_calls.get(phone, ())),
        )
    return result


_NUMBER, _OBJECTION, _CALL, _LINE_CALL = range(4)
_PAIR_COLUMNS = (("user_id", "bigint"), ("phone_e164", "text"))
_IS_PLACEHOLDER = """EXISTS (SELECT FROM queue.placeholder_phones AS placeholder
        WHERE placeholder.phone_e164 = {phone})"""


def statuses_sql(is_placeholder: str = _IS_PLACEHOLDER) -> str:
    """Return the SQL of the statuses; `is_placeholder` is the SQL of whether `{phone}` is one."""
    return f"""
    SELECT {_NUMBER}, given.user_id, given.phone_e164, CAST(NULL AS timestamptz),
        CASE WHEN {is_listed("given.phone_e164")} THEN {int(PhoneBlock.LISTED)} ELSE 0 END
        + CASE WHEN EXISTS (SELECT FROM queue.suppression_lines AS line
            JOIN queue.suppressions AS active USING (suppression_id)
            WHERE line.phone_e164 = given.phone_e164 AND active.lifted_at IS NULL
                AND active.user_id IS DISTINCT FROM given.user_id)
            THEN {int(PhoneBlock.DO_NOT_CONTACT)} ELSE 0 END
    FROM {unnested(_PAIR_COLUMNS, "given", parameters="number")}
    WHERE NOT {is_placeholder.format(phone="given.phone_e164")}
    UNION ALL
    SELECT {_OBJECTION}, active.user_id, NULL, NULL, active.kind FROM queue.suppressions AS active
    WHERE active.user_id = ANY(CAST(:user_ids AS bigint[])) AND active.lifted_at IS NULL
    UNION ALL
    SELECT {_CALL}, call.user_id, NULL, call.ended_at, CAST(call.outcome IS NOT NULL AS integer)
    FROM queue.attempts AS call
    WHERE call.user_id = ANY(CAST(:user_ids AS bigint[])) AND call.ended_at > :since
        AND call.assignment_id IS DISTINCT FROM CAST(:without AS uuid)
    UNION ALL
    SELECT {_LINE_CALL}, line.user_id, line.phone_e164, line.ended_at, coalesce(call.outcome, 0)
    FROM queue.attempt_lines AS line JOIN queue.attempts AS call USING (assignment_id)
    WHERE line.phone_e164 = ANY(CAST(:phones AS text[])) AND line.ended_at > :since
        AND line.assignment_id IS DISTINCT FROM CAST(:without AS uuid)
        AND NOT {is_placeholder.format(phone="line.phone_e164")}
    """  # noqa: S608 - our own names and numbers


_STATUSES = statement(statuses_sql())
# The statuses within a statement that reads other things too: an item of FROM with one row.
ARRAYS = ("kinds", "user_ids", "phones", "moments", "numbers")
ARRAY_NAMES = ", ".join(f"status.{name}" for name in ARRAYS)


def arrays_sql(statuses: str) -> str:
    """Return the item of FROM, called `status`, with the rows of the statuses as arrays."""
    return f"""(
        SELECT array_agg(kind) AS kinds, array_agg(user_id) AS user_ids,
            array_agg(phone_e164) AS phones, array_agg(moment) AS moments,
            array_agg(number) AS numbers
        FROM ({statuses}) AS found(kind, user_id, phone_e164, moment, number)
    ) AS status"""  # noqa: S608 - our own column names


def found_in_arrays(people: Numbers, arrays_found: Sequence[Any]) -> dict[UserId, ContactStatus]:
    """Return the statuses from the arrays of `arrays_sql`."""
    return found(people, zip(*(it or () for it in arrays_found), strict=True))
