"""Renders people as JSON and as messages, once, when the cache is filled."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson
from dialler.model.v1.call_state_pb2 import CallState
from dialler.model.v1.facts_pb2 import ClaimFacts, PhoneNumbers, RequirementFacts, UserFacts
from dialler.user_context.v1 import user_context_pb2 as pb
from google.protobuf.descriptor import Descriptor
from google.protobuf.timestamp_pb2 import Timestamp

from mainapp.description import Description
from servicekit.call_state_json import call_state_json
from servicekit.phone_numbers import numbers_in, says_more
from services.user_context.domain import Person, Row

# Aware UTC datetimes as RFC 3339 with a Z.
_JSON = orjson.OPT_UTC_Z

# Columns that a context does not show: keys of other rows, and files of which it shows only whether
# there is one.
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
    "phone_numbers",
    "phone_number_as_written",
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

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Shown = dict[str, Any]


class RenderedPart(NamedTuple):
    """One part of a context in both forms, and a hash of its content."""

    message: bytes
    json: bytes
    fingerprint: int

    @property
    def etag(self) -> bytes:
        """The fingerprint in 16 hexadecimal digits."""
        return b"%016x" % self.fingerprint


class ShownPhone(NamedTuple):
    """The phone numbers that a context shows.

    ``number`` is the first one found, or the field itself when there is none; ``as_written`` is the
    field when it says more than the numbers.
    """

    number: str | None
    numbers: tuple[str, ...]
    as_written: str | None


def shown_phone(field: str | None) -> ShownPhone:
    """Return the phone numbers of a person's phone field."""
    numbers = numbers_in(field or "")
    if field is None or not numbers:
        return ShownPhone(field, (), None)
    return ShownPhone(numbers[0], numbers, field if says_more(field, numbers) else None)


def check_description(description: Description) -> None:
    """Raise ValueError unless a context shows exactly the columns that are read."""
    for table in _MESSAGES:
        described = description.tables.get(table)
        if described is None:
            raise ValueError(f"the main app's description lacks {table}")
        names = set(map(described.our_name, described.columns))
        differing = names ^ {*_shown(table), *_UNSHOWN[table]}
        if differing:
            raise ValueError(f"{table}: not both read and shown: {', '.join(sorted(differing))}")


def render_main(person: Person) -> RenderedPart:
    """Return the main app's part; equal content has an equal fingerprint, in any process.

    The JSON is an object without its closing brace.
    """
    row: Mapping[str, Any] = person.user
    phone = shown_phone(row["phone_number"])
    address = None if person.address is None else _picked(person.address, _ADDRESS)
    user = _picked(row, _USER)
    user |= {
        "user_id": str(person.user_id),
        "phone_number": phone.number,
        "is_phone_valid": bool(phone.numbers),
        "phone_numbers": phone.numbers,
        "phone_number_as_written": phone.as_written,
        "is_enabled": bool(row["is_enabled"]),
        "has_signature": row["current_signature_file_id"] is not None,
        "has_id_document": row["current_user_id_document_id"] is not None,
        "current_address": address,
    }
    claims: list[_Shown] = []
    for claim in person.claims:
        shown = _picked(claim.row, _CLAIM)
        shown["claim_id"] = str(shown["claim_id"])
        shown["requirements"] = [_picked(it, _REQUIREMENT) for it in claim.requirements]
        shown["vehicle_packages"] = [_picked(it, _PACKAGE) for it in claim.vehicle_packages]
        claims.append(shown)
    text = orjson.dumps({"user": user, "claims": claims}, option=_JSON)

    values = _plain(user, "users")
    values["user_id"] = person.user_id
    values["current_address"] = None if address is None else pb.Address(**address)
    message = pb.UserContext(user=pb.User(**values))
    for shown in claims:
        values = _plain(shown, "claims")
        values["claim_id"] = int(shown["claim_id"])
        values["requirements"] = [
            pb.Requirement(**_plain(it, "claim_requirements")) for it in shown["requirements"]
        ]
        values["vehicle_packages"] = [
            pb.VehiclePackage(**_plain(it, "claim_vehicle_packages"))
            for it in shown["vehicle_packages"]
        ]
        message.claims.add(**values)
    # The text is canonical: its keys are in the order of the contract, its lists are sorted.
    return RenderedPart(message.SerializeToString(), text[:-1], _hash(text))


def render_call(state: CallState) -> RenderedPart:
    """Return the queue's part."""
    message = pb.UserContext(call_state=state).SerializeToString(deterministic=True)
    return RenderedPart(message, orjson.dumps(call_state_json(state)), _hash(message))


def facts_message(person: Person, version: int, fingerprint: int) -> UserFacts:
    """Return the facts of a person, who may come from either kind of reading.

    Row fingerprints are there only when the reading asked for them.
    """
    user: Mapping[str, Any] = person.user
    phones = numbers_in(user["phone_number"] or "")
    born = user["date_of_birth"]
    claims: list[ClaimFacts] = []
    for claim in person.claims:
        row: Mapping[str, Any] = claim.row
        requirements: Sequence[Mapping[str, Any]] = claim.requirements
        claims.append(
            ClaimFacts(
                claim_id=row["claim_id"],
                status=row["status"],
                lender=row["lender"],
                created_at=_timestamp(row["created_at"]),
                requirements=[
                    RequirementFacts(
                        requirement_id=it["requirement_id"],
                        type=it["type"],
                        status=it["status"],
                        reason=it["reason"],
                        created_at=_timestamp(it["created_at"]),
                    )
                    for it in requirements
                ],
            )
        )
    return UserFacts(
        user_id=person.user_id,
        exists=True,
        version=version,
        fingerprint=fingerprint,
        is_enabled=bool(user["is_enabled"]),
        status=user["status"],
        has_signature=user["current_signature_file_id"] is not None,
        claims=claims,
        phone_e164=phones[0] if phones else None,
        date_of_birth=born.isoformat() if born else None,
        created_at=_timestamp(user["created_at"]),
        row_fingerprints=person.row_fingerprints,
        phones=PhoneNumbers(e164=phones),
    )


def _picked(row: Row, names: tuple[str, ...]) -> _Shown:
    return {name: row[name] for name in names}


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
    # Several for each row: datetime.timestamp() takes twice as long.
    since = moment - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    if since.microseconds:
        return Timestamp(seconds=seconds, nanos=since.microseconds * 1_000)
    return Timestamp(seconds=seconds)


def _hash(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")
