"""The OpenAPI 3.1 description: what FastAPI derives, and additions to it."""

from typing import Any

from dialler.user_context.v1 import user_context_pb2
from fastapi import FastAPI
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from pydantic import BaseModel

from gateway.description.examples import add_examples
from gateway.http.problems import MEDIA_TYPE, Problem, documented_only
from gateway.live.events import Event
from gateway.live.topics import SHOWN, Topic
from gateway.resources.fields import EventType

SECURITY_SCHEME = "bearer"
GUARDED: dict[str, Any] = {"security": [{SECURITY_SCHEME: []}]}

DESCRIPTION = """\
Who to call next, what the agent must know about the person, and the outcome of the call.

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


def described(app: FastAPI) -> dict[str, Any]:
    """Return the complete description."""
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
                raise ValueError(f"two models of the API have the name {name}")
    schemas["Context"] = _of_message(user_context_pb2.UserContext.DESCRIPTOR)
    # It comes as user_context renders it, so that its type is not one of ours.
    included = schemas["Claimed"]["properties"]["context"]
    included["anyOf"] = [{"$ref": template.format(model="Context")}, {"type": "null"}]
    # Every endpoint with a body refuses other media types.
    for path in document["paths"].values():
        for operation in path.values():
            if "requestBody" in operation:
                found = operation["responses"] | {"415": documented_only(415)[415]}
                operation["responses"] = dict(sorted(found.items()))
    add_examples(document)
    return document


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
        "description": "`true` for the last known context, while it cannot be confirmed.",
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
    409: {
        "description": "The context is above 15 MiB (`CONTEXT_TOO_LARGE`); a repeat has the same "
        "result.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    },
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
            "description": "What to receive; without it all events that the caller may see. "
            "`assignment` (agents): events of the assigned person. `queues`: movements in the "
            "caller's queues, and their sizes. `wallboard` (supervisors), `pipeline` (supervisors, "
            "services): all figures whenever one changes.",
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
            "description": "Only events of these types.",
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
        "says that events may be missing: fetch the data again, unless a topic sends it. "
        "Topics add events of their own, without ids: "
        + ", ".join(f"`{name}` is a `{model.__name__}`" for name, model in SHOWN.items())
        + ". `reconnect` has the reason why the stream ends and when to reconnect. A comment keeps "
        "it alive.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


# Texts that are null where the message has an empty text.
_NULL_WHEN_EMPTY = {
    "assigned_agent_id",
    "closed_reason",
    "created_by",
    "disposition",
    "preferred_agent_id",
}


def _of_message(message: Descriptor) -> dict[str, Any]:
    """Return the schema of the JSON that user_context renders from a message."""
    if message.full_name == "google.protobuf.Timestamp":
        return {"type": "string", "format": "date-time"}
    properties: dict[str, dict[str, Any]] = {}
    for field in message.fields:
        if field.message_type is not None:
            schema = _of_message(field.message_type)
        elif field.enum_type is not None:
            names = [value.name for value in field.enum_type.values]
            prefix = names[0].removesuffix("UNSPECIFIED")
            shown = [name.removeprefix(prefix).lower() for name in names[1:]]
            schema = {"type": "string", "enum": shown}
        elif field.cpp_type in _INTEGERS_64:
            schema = {"type": "string", "pattern": "^[0-9]+$"}
        else:
            schema = dict(_SCALARS[field.cpp_type])
        is_nullable = field.has_presence or field.enum_type is not None
        if field.is_repeated:
            schema = {"type": "array", "items": schema}
        elif is_nullable or field.name in _NULL_WHEN_EMPTY:
            schema = {"anyOf": [schema, {"type": "null"}]}
        properties[field.name] = schema
    # Absent values are null, never left out.
    return {"type": "object", "properties": properties, "required": list(properties)}
