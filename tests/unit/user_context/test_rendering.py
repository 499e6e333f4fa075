"""A person's context as message, JSON and fingerprint."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from dialler.model.v1 import call_state_pb2, facts_pb2
from dialler.user_context.v1 import user_context_pb2 as pb
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from mainapp import description
from mainapp.description import ColumnType
from services.user_context.cache.rendering import (
    check_description,
    facts_message,
    render_call,
    render_main,
)
from services.user_context.domain import PeopleRows, Person, Row, UserId, assemble

_DESCRIBED = description.load()
_ROOT = Path(__file__).parents[3]

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_MOMENT = st.datetimes(
    min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2038, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
).map(lambda moment: moment.replace(microsecond=0))
_VALUES: dict[ColumnType, st.SearchStrategy[Any]] = {
    ColumnType.UINT64: st.integers(1, 2**64 - 1),
    ColumnType.UUID: st.uuids().map(str),
    ColumnType.TEXT: st.none() | _TEXT,
    ColumnType.BOOL: st.none() | st.booleans(),
    ColumnType.DATE: st.none() | st.dates(date(1900, 1, 1), date(2100, 1, 1)),
    ColumnType.TIMESTAMP: st.none() | _MOMENT,
    ColumnType.DECIMAL: st.none() | st.decimals("-9999", "9999", places=2).map(str),
    ColumnType.JSON: st.none() | st.just('["sms", "email"]'),
}


def _row(table: str) -> st.SearchStrategy[dict[str, Any]]:
    columns = _DESCRIBED.tables[table].columns
    return st.fixed_dictionaries(
        {found.name_with_us or name: _VALUES[found.type] for name, found in columns.items()}
    )


@st.composite
def people_rows(draw: st.DrawFn) -> PeopleRows:
    """One person's rows, with whatever values the columns may hold."""
    user = draw(_row("users"))
    if draw(st.booleans()):
        user["phone_number"] = draw(st.sampled_from(["07700 900123", "+441632960001", "1", ""]))
    for name in ("current_signature_file_id", "current_user_id_document_id"):
        if draw(st.booleans()):
            user[name] = None
    addresses = draw(st.lists(_row("user_addresses"), max_size=1))
    for address in addresses:
        user["current_user_address_id"] = address["address_id"]
    claims = draw(st.lists(_row("claims"), max_size=3, unique_by=lambda row: row["claim_id"]))
    hanging: dict[str, list[Row]] = {"claim_requirements": [], "claim_vehicle_packages": []}
    for claim in claims:
        claim["user_id"] = user["user_id"]
        for table, rows in hanging.items():
            for row in draw(st.lists(_row(table), max_size=2)):
                row["claim_id"] = claim["claim_id"]
                rows.append(row)
    return PeopleRows(
        [user], claims, hanging["claim_requirements"], hanging["claim_vehicle_packages"], addresses
    )


def _only(rows: PeopleRows) -> Person:
    (person,) = assemble(rows).values()
    return person


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _shown(message: pb.UserContext) -> Any:
    """The message as protobuf's own JSON mapping has it, in our names."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


@settings(deadline=None)
@given(people_rows())
def test_json_and_message_show_the_same(rows: PeopleRows) -> None:
    rendered = render_main(_only(rows))

    shown = _without_nulls(orjson.loads(rendered.json + b"}"))

    assert shown == _shown(pb.UserContext.FromString(rendered.message))


@settings(deadline=None)
@given(people_rows())
def test_json_names_every_field_and_writes_null_for_what_is_unknown(rows: PeopleRows) -> None:
    shown = orjson.loads(render_main(_only(rows)).json + b"}")

    assert set(shown["user"]) == {field.name for field in pb.User.DESCRIPTOR.fields}
    for claim in shown["claims"]:
        assert set(claim) == {field.name for field in pb.Claim.DESCRIPTOR.fields}


@settings(deadline=None)
@given(people_rows(), st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_of_columns_matters(
    rows: PeopleRows, order: random.Random
) -> None:
    def shuffled(part: Any) -> list[Row]:
        return [dict(order.sample(list(row.items()), len(row))) for row in _mixed(part, order)]

    other = PeopleRows(
        shuffled(rows.users),
        shuffled(rows.claims),
        shuffled(rows.requirements),
        shuffled(rows.vehicle_packages),
        shuffled(rows.addresses),
    )

    assert render_main(_only(other)) == render_main(_only(rows))


def _mixed(part: Any, order: random.Random) -> list[Row]:
    return order.sample(list(part), len(part))


@settings(deadline=None)
@given(people_rows(), people_rows())
def test_fingerprints_are_equal_when_what_is_shown_is(one: PeopleRows, other: PeopleRows) -> None:
    first, second = render_main(_only(one)), render_main(_only(other))

    assert (first.fingerprint == second.fingerprint) == (first.json == second.json)


def _known_person() -> Person:
    values: dict[ColumnType, Any] = {
        ColumnType.UINT64: 7,
        ColumnType.UUID: "11111111-2222-3333-4444-555555555555",
        ColumnType.TEXT: "Zo\u00eb \u5c71\u7530 \U0001f600",
        ColumnType.BOOL: True,
        ColumnType.DATE: date(1980, 2, 29),
        ColumnType.TIMESTAMP: datetime(2024, 2, 29, 12, 0, 1, tzinfo=UTC),
        ColumnType.DECIMAL: "189.50",
        ColumnType.JSON: "{}",
    }
    tables = {
        name: {
            column.name_with_us or key: values[column.type] for key, column in table.columns.items()
        }
        for name, table in _DESCRIBED.tables.items()
    }
    return _only(
        PeopleRows(
            [tables["users"]],
            [tables["claims"]],
            [tables["claim_requirements"]],
            [tables["claim_vehicle_packages"]],
            [tables["user_addresses"]],
        )
    )


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    """A change of this number makes every stored fingerprint differ once: do it knowingly."""
    assert render_main(_known_person()).fingerprint == 15898484632246204625


@pytest.mark.parametrize("table", ["users", "claims", "claim_requirements", "user_addresses"])
def test_any_change_of_what_is_shown_changes_the_fingerprint(table: str) -> None:
    person = _known_person()
    before = render_main(person).fingerprint
    unseen = {"user_id", "claim_id", "created_at", "current_user_address_id"}
    unseen |= {"current_user_id_document_id", "current_signature_file_id"}

    for name in _rows_of(person, table):
        if name not in unseen:
            changed = _with(person, table, name, None)
            assert render_main(changed).fingerprint != before, name


def _rows_of(person: Person, table: str) -> Row:
    claim = person.claims[0]
    address = person.address
    assert address is not None
    return {
        "users": person.user,
        "claims": claim.row,
        "claim_requirements": claim.requirements[0],
        "user_addresses": address,
    }[table]


def _with(person: Person, table: str, name: str, value: object) -> Person:
    changed = {**_rows_of(person, table), name: value}
    claim = person.claims[0]
    if table == "users":
        return replace(person, user=changed)
    if table == "user_addresses":
        return replace(person, address=changed)
    if table == "claims":
        return replace(person, claims=[replace(claim, row=changed)])
    return replace(person, claims=[replace(claim, requirements=[changed])])


def test_the_largest_id_survives_both_forms() -> None:
    person = replace(_known_person(), user_id=UserId(2**64 - 1))

    rendered = render_main(person)

    assert pb.UserContext.FromString(rendered.message).user.user_id == 2**64 - 1
    assert orjson.loads(rendered.json + b"}")["user"]["user_id"] == "18446744073709551615"


def test_times_are_rfc_3339_in_utc_and_money_keeps_its_pence() -> None:
    shown = orjson.loads(render_main(_known_person()).json + b"}")

    assert shown["user"]["created_at"] == "2024-02-29T12:00:01Z"
    assert shown["user"]["date_of_birth"] == "1980-02-29"
    assert shown["claims"][0]["vehicle_packages"][0]["monthly_payment"] == "189.50"


def test_an_invalid_phone_number_is_shown_as_it_is_but_is_no_fact() -> None:
    person = _with(_known_person(), "users", "phone_number", "ask her mum")

    user = pb.UserContext.FromString(render_main(person).message).user
    facts = facts_message(person, 1, 2)

    assert (user.phone_number, user.is_phone_valid) == ("ask her mum", False)
    assert not user.phone_numbers
    assert not user.HasField("phone_number_as_written")
    assert not facts.HasField("phone_e164")
    # The field has been looked at, which releases that knew one number only did not say.
    assert facts.HasField("phones")
    assert not facts.phones.e164


@pytest.mark.parametrize(
    ("field", "numbers", "as_written"),
    [
        ("07700 900123", ["+447700900123"], None),
        ("447700900123.0", ["+447700900123"], None),
        ("\u202a07700900123\u202c", ["+447700900123"], None),
        ("07700900123 (mobile)", ["+447700900123"], "07700900123 (mobile)"),
        (
            "07700900123 / 02079460018",
            ["+447700900123", "+442079460018"],
            "07700900123 / 02079460018",
        ),
    ],
)
def test_every_number_in_the_field_is_shown_and_is_a_fact(
    field: str, numbers: list[str], as_written: str | None
) -> None:
    person = _with(_known_person(), "users", "phone_number", field)

    rendered = render_main(person)
    user = pb.UserContext.FromString(rendered.message).user
    facts = facts_message(person, 1, 2)

    assert (user.phone_number, user.is_phone_valid) == (numbers[0], True)
    assert list(user.phone_numbers) == numbers
    assert (user.phone_number_as_written or None) == as_written
    shown = orjson.loads(rendered.json + b"}")["user"]
    assert (shown["phone_numbers"], shown["phone_number_as_written"]) == (numbers, as_written)
    assert (facts.phone_e164, list(facts.phones.e164)) == (numbers[0], numbers)


def test_null_facts_are_absent_not_empty() -> None:
    person = _with(_known_person(), "users", "status", None)
    person = _with(person, "claims", "status", None)

    facts = facts_message(person, 3, 4)

    assert facts.exists
    assert (facts.version, facts.fingerprint) == (3, 4)
    assert not facts.HasField("status")
    assert not facts.claims[0].HasField("status")
    assert facts.claims[0].requirements[0].HasField("status")


def test_call_state_json_and_message_show_the_same() -> None:
    state = call_state_pb2.CallState(
        user_id=2**64 - 1,
        queue=call_state_pb2.QUEUE_UNSIGNED_USERS,
        state=call_state_pb2.ENTRY_STATE_READY,
        reason="NO_SIGNATURE",
        score=12.5,
        attempts=3,
        last_outcome=call_state_pb2.OUTCOME_NO_ANSWER,
        version=2**63 + 1,
        recent_attempts=[
            call_state_pb2.Attempt(agent_id="a", notes='said "no"', disposition="busy_tone")
        ],
        hold=call_state_pb2.HOLD_DAILY_CAP,
    )
    state.next_call_at.FromJsonString("2025-06-02T09:00:00Z")

    rendered = render_call(state)
    shown = orjson.loads(rendered.json)

    assert pb.UserContext.FromString(rendered.message).call_state == state
    assert shown == {
        "user_id": "18446744073709551615",
        "queue": "unsigned_users",
        "state": "ready",
        "reason": "NO_SIGNATURE",
        "score": 12.5,
        "attempts": 3,
        "last_outcome": "no_answer",
        "last_contact_at": None,
        "next_call_at": "2025-06-02T09:00:00.000000Z",
        "assigned_agent_id": None,
        "recent_attempts": [
            {
                "agent_id": "a",
                "outcome": None,
                "ended_at": None,
                "notes": 'said "no"',
                "disposition": "busy_tone",
            }
        ],
        "version": "9223372036854775809",
        "hold": "daily_cap",
        "open_callback": None,
    }


def test_an_open_callback_is_shown_in_both_forms() -> None:
    state = call_state_pb2.CallState(
        user_id=7,
        queue=call_state_pb2.QUEUE_CALLBACKS,
        hold=call_state_pb2.HOLD_CALLBACK,
        open_callback=call_state_pb2.Callback(
            callback_id="c-1",
            user_id=2**64 - 1,
            preferred_agent_id="agent-1",
            state=call_state_pb2.CALLBACK_STATE_OPEN,
            misses=1,
            created_by="agent-2",
            notes="after work",
        ),
    )
    state.open_callback.scheduled_for.FromJsonString("2025-06-02T17:30:00Z")

    rendered = render_call(state)
    shown = orjson.loads(rendered.json)

    assert pb.UserContext.FromString(rendered.message).call_state == state
    assert (shown["queue"], shown["hold"]) == ("callbacks", "callback")
    assert shown["open_callback"] == {
        "callback_id": "c-1",
        "user_id": "18446744073709551615",
        "scheduled_for": "2025-06-02T17:30:00.000000Z",
        "preferred_agent_id": "agent-1",
        "state": "open",
        "misses": 1,
        "created_by": "agent-2",
        "created_at": None,
        "closed_at": None,
        "closed_reason": None,
        "notes": "after work",
    }


def test_a_call_states_json_names_every_field() -> None:
    state = call_state_pb2.CallState(open_callback=call_state_pb2.Callback())
    shown = orjson.loads(render_call(state).json)

    for part, message in (
        (shown, call_state_pb2.CallState),
        (shown["open_callback"], call_state_pb2.Callback),
    ):
        assert set(part) == {field.name for field in message.DESCRIPTOR.fields}


def test_a_queue_of_a_later_release_is_shown_as_none() -> None:
    state = call_state_pb2.CallState(user_id=1)
    state.MergeFromString(b"\x10\x63")

    assert orjson.loads(render_call(state).json)["queue"] is None


def test_facts_say_nothing_of_secret_columns() -> None:
    names = {field.name for field in facts_pb2.UserFacts.DESCRIPTOR.fields}
    names |= {field.name for field in pb.User.DESCRIPTOR.fields}

    assert not names & _DESCRIBED.secret_columns


def test_a_description_that_reads_more_than_is_shown_is_refused() -> None:
    users = _DESCRIBED.tables["users"]
    wider = users.model_copy(
        update={"columns": {**users.columns, "favourite": users.columns["status"]}}
    )
    changed = _DESCRIBED.model_copy(update={"tables": {**_DESCRIBED.tables, "users": wider}})

    with pytest.raises(ValueError, match="favourite"):
        check_description(changed)


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_fingerprints_do_not_depend_on_the_interpreters_hash_seed(hash_seed: str) -> None:
    program = (
        "from services.user_context.cache.rendering import render_call\n"
        "from dialler.model.v1.call_state_pb2 import CallState\n"
        "print(render_call(CallState(user_id=5, reason='X')).fingerprint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{_ROOT}:{_ROOT / 'gen'}"},
        capture_output=True,
        text=True,
        check=True,
    )

    expected = render_call(call_state_pb2.CallState(user_id=5, reason="X")).fingerprint
    assert int(done.stdout) == expected
