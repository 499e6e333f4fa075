"""Sees that a client of the last release works with the gateway as it is described now.

The rules of paths, parameters and answers are here; whether one JSON schema allows what another
does is decided by jsoncompat. A client is taken to skip fields and texts of an enumeration that it
does not know. Names of operations and schemas do not travel, so they may change.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import jsoncompat

from devstack.openapi_file import FILE

RELEASED = FILE.with_name("released-openapi.json")
Node = Mapping[str, Any]
# Who writes the value that the schema is of: the client (we read it), or the gateway.
Role = Literal["deserializer", "serializer"]
_DEPTH = 12


@dataclass(frozen=True, eq=False)
class _Schemas:
    """The schemas that a description names."""

    named: Node
    _known: dict[str, Node] = field(default_factory=dict)

    def whole(self, schema: Node) -> Node:
        """Return the schema with all that it refers to, as one that stands alone."""
        text = json.dumps(schema)
        if text not in self._known:
            self._known[text] = self._gathered(text)
        return self._known[text]

    def _gathered(self, text: str) -> Node:
        needed: dict[str, Node] = {}
        waiting = [text]
        while waiting:
            for name in re.findall(r'"#/components/schemas/([^"]+)"', waiting.pop()):
                if name not in needed:
                    needed[name] = self.named[name]
                    waiting.append(json.dumps(needed[name]))
        whole = json.dumps({**json.loads(text), "$defs": needed})
        found: Node = json.loads(whole.replace("#/components/schemas/", "#/$defs/"))
        return found


Both = tuple[_Schemas, _Schemas]


def breaks(released: Node, present: Node) -> list[str]:
    """Return what a client of `released` relies on and `present` does not keep, a sentence each."""
    both = (
        _Schemas(released["components"]["schemas"]),
        _Schemas(present["components"]["schemas"]),
    )
    return [
        f"{method.upper()} {path}{fault}"
        for path, operations in released["paths"].items()
        for method, before in operations.items()
        for fault in _of_operation(before, present["paths"].get(path, {}).get(method), both)
    ]


def _of_operation(before: Node, after: Node | None, both: Both) -> Iterator[str]:
    if after is None:
        yield " is gone"
        return
    if after.get("security") and not before.get("security"):
        yield " asks for a token"
    yield from _of_parameters(before, after, both)
    old_body, new_body = before.get("requestBody", {}), after.get("requestBody", {})
    if new_body.get("required") and not old_body.get("required"):
        yield ": the body is required"
    yield from _of_content(": the body", old_body, new_body, "deserializer", both)
    for status, answer in before["responses"].items():
        place = f": answer {status}"
        if status in after["responses"]:
            other = after["responses"][status]
            yield from _of_content(place, answer, other, "serializer", both)
            for header in answer.get("headers", {}).keys() - other.get("headers", {}).keys():
                yield f"{place}: header {header} is gone"
        elif status[0] in "23":
            yield f"{place} is gone"


def _of_parameters(before: Node, after: Node, both: Both) -> Iterator[str]:
    old, new = (
        {(it["in"], it["name"]): it for it in each.get("parameters", ())}
        for each in (before, after)
    )
    for key, parameter in new.items():
        if parameter.get("required") and not old.get(key, {}).get("required"):
            yield f": {' '.join(key)} is required"
    for key, parameter in old.items():
        place = f": {' '.join(key)}"
        if key not in new:
            yield f"{place} is gone"
        else:
            schemas = parameter["schema"], new[key]["schema"]
            yield from _of_schemas(place, *schemas, "deserializer", both)


def _of_content(place: str, before: Node, after: Node, role: Role, both: Both) -> Iterator[str]:
    for kind, content in before.get("content", {}).items():
        if kind not in after.get("content", {}):
            yield f"{place} is no longer {kind}"
        elif "schema" in content:
            other = after["content"][kind].get("schema", {})
            yield from _of_schemas(place, content["schema"], other, role, both)


def _of_schemas(place: str, before: Node, after: Node, role: Role, both: Both) -> Iterator[str]:
    old, new = both[0].whole(before), both[1].whole(after)
    if not _fits(old, new, role):
        where, fault = _first_fault(old, new, role)
        yield f"{place}{where} {fault}"


def _fits(old: Node, new: Node, role: Role) -> bool:
    """Whether one who knows `old` may go on, whatever is written by `role`."""
    if old == new:
        return True
    ways: tuple[Callable[[Node], Node], ...] = (_restrictions_as_sets, _as_it_is)
    old, new = _without_common_limits(old, new)
    if role == "serializer":
        # A field that was optional must not go either.
        old, new = _rewritten(old, _any_text), _rewritten(new, _any_text)
        ways += (_all_required,)
    return all(
        _allows(json.dumps(_rewritten(old, way)), json.dumps(_rewritten(new, way)), role)
        for way in ways
    )


def _without_common_limits(old: Node, new: Node) -> tuple[Node, Node]:
    """Leave out limits that jsoncompat cannot compare, and that refuse nothing that was allowed.

    They are in both alike, or forbid what the old schema does not allow either.
    """
    defs: tuple[dict[str, Node], dict[str, Node]] = ({}, {})
    for name in {*old.get("$defs", {}), *new.get("$defs", {})}:
        pair = [it.get("$defs", {}).get(name) for it in (old, new)]
        same = [it for it in ("oneOf", "not") if all(pair) and pair[0].get(it) == pair[1].get(it)]
        if all(pair) and "not" not in pair[0] and _never_was(pair[1].get("not"), pair[0]):
            same.append("not")
        for schema, kept in zip(pair, defs, strict=True):
            if schema is not None:
                kept[name] = {key: it for key, it in schema.items() if key not in same}
    return {**old, "$defs": defs[0]}, {**new, "$defs": defs[1]}


def _never_was(limit: Node | None, old: Node) -> bool:
    """Return whether a value that `old` allows is never one that `limit` describes.

    Only what needs no search is seen: a field that `old` does not know, and null for one that must
    be there and has a type of its own.
    """
    if limit is None:
        return False
    if "anyOf" in limit:
        return all(_never_was(it, old) for it in limit["anyOf"])
    known: Node = old.get("properties", {})
    if old.get("additionalProperties") is False and set(limit.get("required", ())) - set(known):
        return True
    return any(
        schema == {"type": "null"}
        and name in old.get("required", ())
        and not {"anyOf", "oneOf", "const", "enum"} & set(known[name])
        and known[name].get("type", "$ref") != "null"
        for name, schema in limit.get("properties", {}).items()
    )


@cache
def _allows(old: str, new: str, role: Role) -> bool:
    return old == new or jsoncompat.check_compat(old, new, role)


def _rewritten(node: Any, way: Callable[[Node], Node]) -> Any:
    if isinstance(node, Mapping):
        return way({key: _rewritten(value, way) for key, value in node.items()})
    return [_rewritten(it, way) for it in node] if isinstance(node, list) else node


def _as_it_is(schema: Node) -> Node:
    return schema


def _any_text(schema: Node) -> Node:
    values = schema.get("enum")
    if not isinstance(values, list) or not all(isinstance(it, str) for it in values):
        return schema
    return {key: value for key, value in schema.items() if key != "enum"} | {"type": "string"}


def _all_required(schema: Node) -> Node:
    fields = schema.get("properties")
    if not isinstance(fields, Mapping) or schema.get("type") != "object":
        return schema
    return {**schema, "required": sorted(fields)}


def _restrictions_as_sets(schema: Node) -> Node:
    """Patterns and formats, which jsoncompat passes over, as sets of texts."""
    given = [schema.get(it) for it in ("pattern", "format")]
    if not any(isinstance(it, str) for it in given):
        return schema
    return {"type": schema.get("type", "string"), "enum": [json.dumps(given)]}


def _first_fault(old: Node, new: Node, role: Role) -> tuple[str, str]:
    """Where the first difference that breaks lies, and what it is."""
    where = ""
    for _ in range(_DEPTH):
        old, new = _inner(old), _inner(new)
        fields, others = old.get("properties", {}), new.get("properties", {})
        for name in fields:
            if name not in others:
                return f"{where}.{name}", "is gone"
        for name in new.get("required", ()):
            if role == "deserializer" and name not in old.get("required", ()):
                return f"{where}.{name}", "is required"
        steps = [(f".{name}", fields[name], others[name]) for name in fields]
        if "items" in old and "items" in new:
            steps.append(("[]", old["items"], new["items"]))
        for step, before, after in steps:
            inside = _beside(before, old), _beside(after, new)
            if not _fits(*inside, role):
                where, (old, new) = where + step, inside
                break
        else:
            break
    return where, {
        "deserializer": "refuses what was allowed",
        "serializer": "may be what it never was",
    }[role]


def _beside(schema: Node, whole: Node) -> Node:
    return {**schema, "$defs": whole.get("$defs", {})}


def _inner(schema: Node) -> Node:
    """The schema referred to, and what a schema that also allows null allows beside it."""
    for _ in range(_DEPTH):
        choices = [it for it in schema.get("anyOf", ()) if it.get("type") != "null"]
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/$defs/")
            schema = _beside(schema["$defs"][name], schema)
        elif len(choices) == 1:
            schema = _beside(choices[0], schema)
        else:
            break
    return schema


def main() -> int:
    """Print what would break a client of the last release; 1 if anything does."""
    if not RELEASED.exists():
        print("No API is released yet, so that none can break.")
        return 0
    released, present = (json.loads(it.read_text(encoding="utf-8")) for it in (RELEASED, FILE))
    found = breaks(released, present)
    for line in found:
        sys.stderr.write(f"{line}\n")
    if found:
        sys.stderr.write("Clients of the last release rely on it (docs/upgrading.md).\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
