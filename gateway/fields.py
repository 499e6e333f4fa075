"""Fields that several resources share, each saying exactly what it takes."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Path, Query
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import StringConstraints
from pydantic.json_schema import SkipJsonSchema

from gateway.auth import Caller, caller_of
from gateway.schemas import MomentIn

# What the queue keeps: ids from 2^63 on are not in any queue.
LARGEST_USER_ID = 2**63 - 1


def pattern_up_to(largest: int) -> str:
    """Return a pattern of the decimal numbers from 1 to ``largest``, each in its one spelling."""
    digits = str(largest)
    shorter = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"] if len(digits) > 1 else []
    same_length = []
    for place, digit in enumerate(digits):
        lowest = 1 if place == 0 else 0
        if int(digit) > lowest:
            rest = len(digits) - place - 1
            same_length.append(f"{digits[:place]}[{lowest}-{int(digit) - 1}][0-9]{{{rest}}}")
    return f"^(?:{'|'.join([*shorter, *same_length, digits])})$"


USER_ID_PATTERN = pattern_up_to(LARGEST_USER_ID)
AGENT_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:|-]{0,63}$"

UserIdText = Annotated[str, StringConstraints(pattern=USER_ID_PATTERN)]
AgentIdText = Annotated[str, StringConstraints(pattern=AGENT_ID_PATTERN)]
# Reason codes and actions.
UpperSnake = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,62}[A-Z0-9]$")]


# At least one character that is more than white space.
RequiredNotes = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=10_000,
        pattern=r"^[^\x00]*[^\x00-\x20\x7f-\xa0\s][^\x00]*$",
    ),
]

CallerOf = Annotated[Caller, Depends(caller_of)]
UserIdPath = Annotated[
    str,
    Path(
        pattern=USER_ID_PATTERN, description="The main app's id of the person.", examples=["4711"]
    ),
]
UserIdQuery = Annotated[
    UserIdText | SkipJsonSchema[None],
    Query(description="Only of this person.", examples=["4711"]),
]
AgentIdQuery = Annotated[
    AgentIdText | SkipJsonSchema[None],
    Query(description="Only of this agent.", examples=["agent-1"]),
]
PageSize = Annotated[int, Query(ge=1, le=200, description="At most so many.")]
PageToken = Annotated[
    str,
    Query(max_length=500, description="`next_page_token` of the page before; empty: the first."),
]
IdempotencyKey = Annotated[
    UUID,
    Header(
        alias="Idempotency-Key",
        description="UUID chosen by the client; a repeat of the request returns the first answer.",
    ),
]
OptionalKey = Annotated[
    UUID | SkipJsonSchema[None],
    Header(
        alias="Idempotency-Key",
        description="UUID chosen by the client; a repeat under it returns what the first one made.",
    ),
]
HarmlessKey = Annotated[
    UUID | SkipJsonSchema[None],
    Header(
        alias="Idempotency-Key",
        description="May be given, and changes nothing: repeating this request is harmless anyway.",
    ),
]


def optional_in(message: Any, field: str) -> Any:
    """Return the value of an optional field, None when it is absent."""
    return getattr(message, field) if message.HasField(field) else None


def timestamp(moment: MomentIn | None) -> Timestamp | None:
    """Return the moment as a message; None for none."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
