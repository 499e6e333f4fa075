"""Examples for the API description, made of the examples of single fields."""

import re
from typing import Any

JSON = "application/json"
# A UUID that no resource has, and a time.
_BY_FORMAT: dict[str, Any] = {
    "uuid": "b83bf13c-60f4-4166-ad09-736910c6b1cc",
    "date-time": "2025-06-02T09:00:00Z",
}
_BY_TYPE: dict[str, Any] = {
    "string": "text", "integer": 3, "number": 2.5, "boolean": True, "null": None,
}  # fmt: skip
_DEEPEST = 12


def add_examples(document: dict[str, Any]) -> None:
    """Give every JSON body of a document an example that is valid by its schema."""
    schemas = document["components"]["schemas"]
    for path in document["paths"].values():
        for operation in path.values():
            bodies = [operation.get("requestBody", {})]
            for status, response in operation["responses"].items():
                bodies.append(response)
                _add_problem(int(status), response)
            for body in bodies:
                content = body.get("content", {}).get(JSON)
                if content is not None and "example" not in content:
                    content["example"] = _example(content["schema"], schemas)


def _add_problem(status: int, response: dict[str, Any]) -> None:
    content = response.get("content", {}).get("application/problem+json")
    if content is None:
        return
    named = _NAMED_REASON.search(response["description"])
    reason = named[1] if named else _REASONS.get(status, "INTERNAL")
    example: dict[str, Any] = {
        "type": f"urn:dialler:problem:{reason.lower().replace('_', '-')}",
        "title": response["description"].partition(";")[0].rstrip("."),
        "status": status,
        "detail": response["description"],
        "instance": "/v1/…",
        "reason": reason,
        "metadata": {},
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    if status == 422:
        where = {"location": "body.outcome", "code": "missing", "message": "Field required"}
        example["errors"] = [where]
    content["example"] = example


# The reason that the description of an error names.
_NAMED_REASON = re.compile(r"\(`([A-Z_]+)`\)")
_REASONS = {
    400: "IDEMPOTENCY_KEY_MISSING",
    401: "TOKEN_EXPIRED",
    403: "PERSON_NOT_YOURS",
    404: "USER_NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "ASSIGNMENT_NOT_LIVE",
    413: "BODY_TOO_LARGE",
    415: "NOT_JSON",
    422: "INVALID_REQUEST",
    429: "RATE_LIMITED",
    503: "UPSTREAM_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def _example(schema: dict[str, Any], schemas: dict[str, Any], depth: int = 0) -> Any:
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].rpartition("/")[2]], schemas, depth + 1)
    if schema.get("examples"):
        return schema["examples"][0]
    for name in ("const", "default"):
        if schema.get(name) is not None:
            return schema[name]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        choices = schema["anyOf"]
        is_deep = depth >= _DEEPEST and {"type": "null"} in choices
        return None if is_deep else _example(choices[0], schemas, depth + 1)
    if "allOf" in schema:
        return _example(schema["allOf"][0], schemas, depth)
    kind = schema.get("type", "object")
    if kind == "array":
        return [_example(schema["items"], schemas, depth + 1)]
    if kind == "object":
        named = schema.get("properties", {})
        return {name: _example(it, schemas, depth + 1) for name, it in named.items()}
    if kind == "string" and "pattern" in schema and "format" not in schema:
        return "4711" if "0-9" in schema["pattern"] else "text"
    return _BY_FORMAT.get(schema.get("format", ""), _BY_TYPE[kind])
