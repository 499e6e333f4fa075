"""People as bytes and messages: each person is rendered once, when the cache is filled."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson
from dialler.model.v1.call_state_pb2 import (
    Callback,
    CallbackState,
    CallState,
    EntryState,
    Hold,
    Outcome,
    Queue,
)
from dialler.model.v1.facts_pb2 import ClaimFacts, RequirementFacts, UserFacts
from dialler.user_context.v1 import user_context_pb2 as pb
from google.protobuf.descriptor import Descriptor
from google.protobuf.timestamp_pb2 import Timestamp

from mainapp.description import Description
from services.user_context.domain import ClaimRecord, Person, Row
from services.user_context.phones import e164

# Aware UTC datetimes as RFC 3339 with a Z.
_JSON = orjson.OPT_UTC_Z

# Columns that do not appear as they are: they lead elsewhere, or only their presence matters.
_UNSHOWN = {
    "users": {
        "current_user_address_id",
        "current_user_id_document_id",
        "current_signature_file_id",
    },
    "claims": {"user_id"},
    "claim_requirements": {"claim_id"},
    "claim_vehicle_packages": {"claim_id", "created_at", "updated_at"},
    "user_addresses": {"user_id"},
}
_DERIVED = {
    "is_phone_valid",
    "has_signature",
    "has_id_document",
    "current_address",
    "requirements",
    "vehicle_packages",
}
_MESSAGES: Mapping[str, Descriptor] = {
    "users": pb.User.DESCRIPTOR,
    "claims": pb.Claim.DESCRIPTOR,
    "claim_requirements": pb.Requirement.DESCRIPTOR,
    "claim_vehicle_packages": pb.VehiclePackage.DESCRIPTOR,
    "user_addresses": pb.Address.DESCRIPTOR,
}


def _shown(table: str) -> tuple[str, ...]:
    return tuple(field.name for field in _MESSAGES[table].fields if field.name not in _DERIVED)


_USER = _shown("users")
_CLAIM = _shown("claims")
_REQUIREMENT = _shown("claim_requirements")
_PACKAGE = _shown("claim_vehicle_packages")
_ADDRESS = _shown("user_addresses")

_MOMENTS = {
    table: tuple(
        field.name
        for field in message.fields
        if field.message_type is not None and field.message_type.name == "Timestamp"
    )
    for table, message in _MESSAGES.items()
}
# As texts in messages, as dates in rows.
_DAYS = {
    "users": ("date_of_birth",),
    "claims": (),
    "claim_requirements": (),
    "claim_vehicle_packages": ("contract_start_date",),
}

_Shown = dict[str, Any]


class RenderedPart(NamedTuple):
    """One part of a context in both forms, and a hash of what it shows."""

    message: bytes
    json: bytes
    fingerprint: int

    @property
    def etag(self) -> bytes:
        """The fingerprint in 16 hexadecimal digits."""
        return b"%016x" % self.fingerprint


def check_description(description: Description) -> None:
    """Raise ValueError unless what is read of the main app is what a context shows of it."""
    for table in _MESSAGES:
        described = description.tables.get(table)
        if described is None:
            raise ValueError(f"the main app's description lacks {table}")
        names = {found.name_with_us or name for name, found in described.columns.items()}
        differing = names ^ {*_shown(table), *_UNSHOWN[table]}
        if differing:
            raise ValueError(f"{table}: not both read and shown: {', '.join(sorted(differing))}")


def render_main(person: Person) -> RenderedPart:
    """Return the main app's part; equal content has an equal fingerprint, in any process.

    The JSON is an object without its closing brace.
    """
    user = _shown_user(person)
    claims = [_shown_claim(claim) for claim in person.claims]
    text = orjson.dumps({"user": user, "claims": claims}, option=_JSON)
    message = pb.UserContext(user=_message_user(user), claims=[_message_claim(c) for c in claims])
    # The text is canonical: its keys are in the order of the contract, its lists are sorted.
    return RenderedPart(message.SerializeToString(), text[:-1], _hash(text))


def render_call(state: CallState) -> RenderedPart:
    """Return the queue's part."""
    message = pb.UserContext(call_state=state).SerializeToString(deterministic=True)
    return RenderedPart(
        message, orjson.dumps(_shown_call_state(state), option=_JSON), _hash(message)
    )


def facts_message(person: Person, version: int, fingerprint: int) -> UserFacts:
    """Return what decides who is called; ``person`` may come from either kind of reading.

    Only a reading that asked what the rows come to carries that.
    """
    user = person.user
    raw_phone: Any = user["phone_number"]
    born: Any = user["date_of_birth"]
    status: Any = user["status"]
    return UserFacts(
        user_id=person.user_id,
        exists=True,
        version=version,
        fingerprint=fingerprint,
        is_enabled=bool(user["is_enabled"]),
        status=status,
        has_signature=user["current_signature_file_id"] is not None,
        claims=[_claim_facts(claim) for claim in person.claims],
        phone_e164=e164(raw_phone) if raw_phone else None,
        date_of_birth=born.isoformat() if born else None,
        created_at=_timestamp(user["created_at"]),
        row_fingerprints=person.row_fingerprints,
    )


def _claim_facts(claim: ClaimRecord) -> ClaimFacts:
    row: Mapping[str, Any] = claim.row
    return ClaimFacts(
        claim_id=row["claim_id"],
        status=row["status"],
        lender=row["lender"],
        created_at=_timestamp(row["created_at"]),
        requirements=[_requirement_facts(requirement) for requirement in claim.requirements],
    )


def _requirement_facts(row: Mapping[str, Any]) -> RequirementFacts:
    return RequirementFacts(
        requirement_id=row["requirement_id"],
        type=row["type"],
        status=row["status"],
        reason=row["reason"],
        created_at=_timestamp(row["created_at"]),
    )


def _shown_user(person: Person) -> _Shown:
    row = person.user
    shown: _Shown = {name: row[name] for name in _USER}
    raw_phone = shown["phone_number"]
    phone = e164(raw_phone) if raw_phone else None
    shown["user_id"] = str(person.user_id)
    shown["phone_number"] = phone or raw_phone
    shown["is_phone_valid"] = phone is not None
    shown["is_enabled"] = bool(shown["is_enabled"])
    shown["has_signature"] = row["current_signature_file_id"] is not None
    shown["has_id_document"] = row["current_user_id_document_id"] is not None
    address = person.address
    shown["current_address"] = None if address is None else _picked(address, _ADDRESS)
    return shown


def _shown_claim(claim: ClaimRecord) -> _Shown:
    shown = _picked(claim.row, _CLAIM)
    shown["claim_id"] = str(shown["claim_id"])
    shown["requirements"] = [_picked(row, _REQUIREMENT) for row in claim.requirements]
    shown["vehicle_packages"] = [_picked(row, _PACKAGE) for row in claim.vehicle_packages]
    return shown


def _picked(row: Row, names: tuple[str, ...]) -> _Shown:
    return {name: row[name] for name in names}


def _message_user(shown: _Shown) -> pb.User:
    values = _plain(shown, "users")
    values["user_id"] = int(shown["user_id"])
    address = shown["current_address"]
    values["current_address"] = None if address is None else pb.Address(**address)
    return pb.User(**values)


def _message_claim(shown: _Shown) -> pb.Claim:
    values = _plain(shown, "claims")
    values["claim_id"] = int(shown["claim_id"])
    values["requirements"] = [
        pb.Requirement(**_plain(row, "claim_requirements")) for row in shown["requirements"]
    ]
    values["vehicle_packages"] = [
        pb.VehiclePackage(**_plain(row, "claim_vehicle_packages"))
        for row in shown["vehicle_packages"]
    ]
    return pb.Claim(**values)


def _plain(shown: _Shown, table: str) -> _Shown:
    """Return the values as a message takes them."""
    values = shown.copy()
    for name in _MOMENTS[table]:
        values[name] = _timestamp(values[name])
    for name in _DAYS[table]:
        day = values[name]
        values[name] = None if day is None else day.isoformat()
    return values


def _timestamp(moment: object) -> Timestamp | None:
    if not isinstance(moment, datetime):
        return None
    return Timestamp(seconds=int(moment.timestamp()), nanos=moment.microsecond * 1_000)


def _shown_call_state(state: CallState) -> _Shown:
    return {
        "user_id": str(state.user_id),
        "queue": _name(Queue, "QUEUE_", state.queue),
        "state": _name(EntryState, "ENTRY_STATE_", state.state),
        "reason": state.reason,
        "score": state.score,
        "attempts": state.attempts,
        "last_outcome": _name(Outcome, "OUTCOME_", state.last_outcome),
        "last_contact_at": _moment(state, "last_contact_at"),
        "next_call_at": _moment(state, "next_call_at"),
        "assigned_agent_id": state.assigned_agent_id or None,
        "recent_attempts": [
            {
                "agent_id": attempt.agent_id,
                "outcome": _name(Outcome, "OUTCOME_", attempt.outcome),
                "ended_at": _moment(attempt, "ended_at"),
                "notes": attempt.notes,
            }
            for attempt in state.recent_attempts
        ],
        "version": str(state.version),
        "hold": _name(Hold, "HOLD_", state.hold),
        "open_callback": _shown_callback(state.open_callback)
        if state.HasField("open_callback")
        else None,
    }


def _shown_callback(callback: Callback) -> _Shown:
    return {
        "callback_id": callback.callback_id,
        "user_id": str(callback.user_id),
        "scheduled_for": _moment(callback, "scheduled_for"),
        "preferred_agent_id": callback.preferred_agent_id or None,
        "state": _name(CallbackState, "CALLBACK_STATE_", callback.state),
        "misses": callback.misses,
        "created_by": callback.created_by or None,
        "created_at": _moment(callback, "created_at"),
        "closed_at": _moment(callback, "closed_at"),
        "closed_reason": callback.closed_reason or None,
        "notes": callback.notes,
    }


def _name(enum: Any, prefix: str, value: int) -> str | None:
    """The value's name as REST spells it; None for unspecified and for values newer than we are."""
    try:
        name = str(enum.Name(value)).removeprefix(prefix)
    except ValueError:
        return None
    return None if name == "UNSPECIFIED" else name.lower()


def _moment(message: Any, name: str) -> str | None:
    """A time as RFC 3339 UTC; None when it is unset."""
    if not message.HasField(name):
        return None
    moment: Timestamp = getattr(message, name)
    return moment.ToJsonString()


def _hash(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")
