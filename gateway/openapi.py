"""The OpenAPI 3.1 description: what FastAPI derives, and what it cannot know."""

from typing import Any

from dialler.user_context.v1 import user_context_pb2
from fastapi import FastAPI
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from pydantic import BaseModel, Field

from gateway.event_schema import Event
from gateway.examples import add_examples
from gateway.problems import MEDIA_TYPE
from gateway.schemas import EventType
from gateway.topic_schema import SHOWN
from gateway.topics import Topic

SECURITY_SCHEME = "bearer"
GUARDED: dict[str, Any] = {"security": [{SECURITY_SCHEME: []}]}

DESCRIPTION = """\
Who is phoned next, what the agent must know of them, and what came of the call.

Send a JWT as a bearer token; its `sub` is the agent's id. 64-bit ids are strings, times are RFC
3339 in UTC. Every error is `application/problem+json` (RFC 9457) with a stable `reason` and the
`trace_id` that is also in the `Trace-Id` header. Requests that change something take an
`Idempotency-Key`: a repeat returns the first answer.
"""

_INTEGERS_64 = (
    FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.CPPTYPE_INT64,
)
_SCALARS: dict[int, dict[str, Any]] = {
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer", "minimum": 0},
}
_ERRORS = {
    400: "The `Idempotency-Key` is missing or no UUID, or the request is wrong in itself.",
    401: "The token (or ticket) is missing, malformed, expired or not trusted.",
    403: "The token's role or queues do not allow it.",
    404: "There is no such thing.",
    405: "The resource has no such method.",
    409: "It has ended, exists already or is somebody else's: the state does not allow it.",
    413: "The body is too large.",
    415: "The body is not of the media type that is asked for.",
    422: "The request does not have the required form, or the `Idempotency-Key` was used before "
    "for another request.",
    429: "Too many requests; wait for `Retry-After` seconds.",
    500: "A defect of ours; `trace_id` finds it in the logs.",
    503: "Something needed is away for now; try again after `Retry-After` seconds.",
    504: "The answer did not come in time; the work may or may not have been done.",
}
_ALWAYS = (401, 403, 429, 500, 503, 504)
_WRITE_ALWAYS = (413, 422)


class FieldProblem(BaseModel):
    """One thing that is wrong with a request; never repeats what was sent."""

    location: str = Field(examples=["body.outcome"])
    code: str = Field(examples=["missing"])
    message: str


class Problem(BaseModel):
    """An error as of RFC 9457."""

    type: str = Field(examples=["urn:dialler:problem:user-not-found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str
    instance: str = Field(description="The path asked for.")
    reason: str = Field(description="Stable code to branch on.", examples=["USER_NOT_FOUND"])
    metadata: dict[str, str]
    trace_id: str | None
    errors: list[FieldProblem] | None = Field(default=None, description="Only with 422.")


def problems(*statuses: int, writes: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of the errors that a guarded endpoint can answer with."""
    wanted = {*_ALWAYS, *statuses, *(_WRITE_ALWAYS if writes else ())}
    return {status: _problem(status) for status in sorted(wanted)}


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of just these errors."""
    return {status: _problem(status) for status in statuses}


def described(app: FastAPI) -> dict[str, Any]:
    """Return the whole description."""
    document = app.openapi()
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        SECURITY_SCHEME: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    template = "#/components/schemas/{model}"
    models: list[type[BaseModel]] = [Problem, Event, *SHOWN.values()]
    for model in models:
        schema = model.model_json_schema(ref_template=template, mode="serialization")
        for name, each in (schema.pop("$defs", {}) | {model.__name__: schema}).items():
            if schemas.setdefault(name, each) != each:
                raise ValueError(f"two models of the API are called {name}")
    schemas["Context"] = _of_message(user_context_pb2.UserContext.DESCRIPTOR)
    _add_media_types(document)
    add_examples(document)
    return document


def _add_media_types(document: dict[str, Any]) -> None:
    """Say of whatever takes a body that one of another type is refused."""
    for path in document["paths"].values():
        for operation in path.values():
            if "requestBody" in operation:
                found = operation["responses"] | {"415": _problem(415)}
                operation["responses"] = dict(sorted(found.items()))


CONTEXT_EXTRA: dict[str, Any] = GUARDED | {
    "parameters": [
        {
            "name": "user_id",
            "in": "path",
            "required": True,
            "description": "The main app's id of the person.",
            "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,19}$"},
            "example": "4711",
        },
        {
            "name": "If-None-Match",
            "in": "header",
            "required": False,
            "description": "The `ETag` of the version the client holds.",
            "schema": {"type": "string"},
        },
    ]
}
_FRESHNESS_HEADERS: dict[str, Any] = {
    "ETag": {
        "description": "Changes whenever anything in the context does.",
        "schema": {"type": "string"},
    },
    "Dialler-Stale": {
        "description": "`true` when it could not be confirmed: the last known context.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "Dialler-Cached": {
        "description": "`true` when it came from the cache.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "Dialler-Read-At": {
        "description": "When the main app's part was read.",
        "schema": {"type": "string", "format": "date-time"},
    },
}
CONTEXT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The context.",
        "headers": _FRESHNESS_HEADERS,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Context"}}},
    },
    304: {"description": "The client holds the present version.", "headers": _FRESHNESS_HEADERS},
}
EVENTS_EXTRA: dict[str, Any] = {
    "security": [{SECURITY_SCHEME: []}, {}],
    "parameters": [
        {
            "name": "ticket",
            "in": "query",
            "required": False,
            "description": "From `POST /v1/events/tickets`, instead of a token.",
            "schema": {"type": "string"},
        },
        {
            "name": "topic",
            "in": "query",
            "required": False,
            "description": "What the stream is for; all events the caller may see unless given. "
            "`assignment` (agents): what happens to the person held. `queues`: movements in the "
            "caller's queues, and their sizes. `wallboard` (supervisors), `pipeline` (supervisors, "
            "services): figures, whole, when they change.",
            "schema": {"type": "array", "items": {"type": "string", "enum": list(Topic)}},
        },
        {
            "name": "user_id",
            "in": "query",
            "required": False,
            "description": "Only events about these people.",
            "schema": {"type": "array", "items": {"type": "string"}, "maxItems": 100},
        },
        {
            "name": "type",
            "in": "query",
            "required": False,
            "description": "Only events of these kinds.",
            "schema": {"type": "array", "items": {"enum": list(EventType)}},
        },
        {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "description": "Resume after this event; `?last_event_id=` does the same.",
            "schema": {"type": "string"},
        },
    ],
}
EVENTS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: ids are `epoch:offset`, data is an `Event`. `reset` "
        "says that events may be missing: fetch what is shown anew, unless a topic sends it. "
        "Topics add events of their own, without ids: "
        + ", ".join(f"`{name}` is a `{model.__name__}`" for name, model in SHOWN.items())
        + ". `reconnect` says why the stream ends and when to come back. A comment keeps it alive.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


def _problem(status: int) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if status in (429, 503):
        headers["Retry-After"] = {"description": "Seconds.", "schema": {"type": "integer"}}
    if status == 401:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    return {
        "description": _ERRORS[status],
        "headers": headers,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _of_message(message: Descriptor) -> dict[str, Any]:
    """Return the schema of the JSON that user_context renders from a message."""
    if message.full_name == "google.protobuf.Timestamp":
        return {"type": "string", "format": "date-time"}
    return {
        "type": "object",
        "properties": {field.name: _of_field(field) for field in message.fields},
        # What is absent is null, never left out.
        "required": [field.name for field in message.fields],
    }


# Texts that are null where the message's is empty.
_NULL_WHEN_EMPTY = {"assigned_agent_id", "preferred_agent_id", "created_by", "closed_reason"}


def _of_field(field: FieldDescriptor) -> dict[str, Any]:
    schema = _of_value(field)
    if field.is_repeated:
        return {"type": "array", "items": schema}
    is_nullable = field.has_presence or field.enum_type is not None
    if is_nullable or field.name in _NULL_WHEN_EMPTY:
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def _of_value(field: FieldDescriptor) -> dict[str, Any]:
    if field.message_type is not None:
        return _of_message(field.message_type)
    if field.enum_type is not None:
        return {"type": "string", "enum": _names(field.enum_type)}
    if field.cpp_type in _INTEGERS_64:
        return {"type": "string", "pattern": "^[0-9]+$"}
    return dict(_SCALARS[field.cpp_type])


def _names(enum: EnumDescriptor) -> list[str]:
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return [value.name.removeprefix(prefix).lower() for value in enum.values[1:]]
