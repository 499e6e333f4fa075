"""Changes of the description that break a client of the last release, and those that do not."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devstack import api_compatibility
from devstack.api_compatibility import breaks
from devstack.openapi_file import FILE

Node = dict[str, Any]
Change = Callable[[Node], object]
_CLAIM = "/v1/assignments"
_OUTCOME = "POST /v1/assignments/{assignment_id}/outcome: the body"
DESCRIPTION: Node = json.loads(FILE.read_text(encoding="utf-8"))


def _claim(it: Node, method: str = "post") -> Node:
    found: Node = it["paths"][_CLAIM][method]
    return found


def _key(document: Any) -> Any:
    return next(it for it in _claim(document)["parameters"] if it["name"] == "Idempotency-Key")


def _schema(it: Node, name: str) -> Node:
    found: Node = it["components"]["schemas"][name]
    return found


def _fields(it: Node, name: str) -> Node:
    found: Node = _schema(it, name)["properties"]
    return found


def _add(it: Node, name: str, field: str) -> None:
    _fields(it, name)[field] = {"type": "string"}
    _schema(it, name).setdefault("required", []).append(field)


def _without(it: Node, name: str, field: str) -> None:
    del _fields(it, name)[field]
    _schema(it, name)["required"] = [x for x in _schema(it, name)["required"] if x != field]


def _rename(it: Node, old: str, new: str) -> None:
    text = json.dumps(it).replace(f'#/components/schemas/{old}"', f'#/components/schemas/{new}"')
    renamed = json.loads(text)
    renamed["components"]["schemas"][new] = renamed["components"]["schemas"].pop(old)
    it.update(renamed)


def _parameter(is_required: bool, **schema: Any) -> Node:
    return {"in": "query", "name": "x", "required": is_required, "schema": schema}


NULL = {"type": "null"}
BREAKING: dict[str, tuple[Change, str]] = {
    "path": (lambda it: it["paths"].pop(_CLAIM), "POST /v1/assignments is gone"),
    "operation": (lambda it: it["paths"][_CLAIM].pop("get"), "GET /v1/assignments is gone"),
    "token": (
        lambda it: it["paths"]["/healthz"]["get"].update(security=[{"bearer": []}]),
        "GET /healthz asks for a token",
    ),
    "new parameter": (
        lambda it: _claim(it)["parameters"].append(_parameter(True, type="string")),
        "POST /v1/assignments: query x is required",
    ),
    "lost parameter": (
        lambda it: _claim(it)["parameters"].clear(),
        "POST /v1/assignments: header Idempotency-Key is gone",
    ),
    "narrower parameter": (
        lambda it: _key(it)["schema"].update(maxLength=5),
        "POST /v1/assignments: header Idempotency-Key refuses what was allowed",
    ),
    "body": (
        lambda it: _claim(it)["requestBody"].update(required=True),
        "POST /v1/assignments: the body is required",
    ),
    "body may be null no more": (
        lambda it: (
            _claim(it)["requestBody"]["content"]["application/json"]["schema"].pop("anyOf")
            and _claim(it)["requestBody"]["content"]["application/json"]["schema"].update(
                {"$ref": "#/components/schemas/ClaimRequest"}
            )
        ),
        "POST /v1/assignments: the body refuses what was allowed",
    ),
    "kind of body": (
        lambda it: _claim(it)["requestBody"]["content"].pop("application/json"),
        "POST /v1/assignments: the body is no longer application/json",
    ),
    "new required field": (
        lambda it: _add(it, "OutcomeRequest", "x"),
        f"{_OUTCOME}.x is required",
    ),
    "field required now beside a choice of fields": (
        lambda it: _add(it, "SuppressionRequest", "x"),
        "POST /v1/suppressions: the body.x is required",
    ),
    "something allowed is forbidden": (
        lambda it: _schema(it, "ReleaseRequest").update({"not": {"required": ["reason"]}}),
        "POST /v1/assignments/{assignment_id}/release: the body refuses what was allowed",
    ),
    "null forbidden where it was allowed": (
        lambda it: _schema(it, "ReleaseRequest").update({"not": {"properties": {"reason": NULL}}}),
        "POST /v1/assignments/{assignment_id}/release: the body refuses what was allowed",
    ),
    "field required now": (
        lambda it: _schema(it, "OutcomeRequest").update(required=["notes"]),
        f"{_OUTCOME}.notes is required",
    ),
    "lost field of a body": (
        lambda it: _fields(it, "OutcomeRequest").pop("notes"),
        f"{_OUTCOME}.notes is gone",
    ),
    "lost choice": (
        lambda it: _schema(it, "Outcome")["enum"].remove("hung_up"),
        f"{_OUTCOME}.outcome refuses what was allowed",
    ),
    "pattern": (
        lambda it: _fields(it, "SuppressionRequest")["user_id"].update(pattern="^1"),
        "POST /v1/suppressions: the body.user_id refuses what was allowed",
    ),
    "answer": (
        lambda it: _claim(it)["responses"].pop("201"),
        "POST /v1/assignments: answer 201 is gone",
    ),
    "header": (
        lambda it: _claim(it)["responses"]["429"]["headers"].pop("Retry-After"),
        "POST /v1/assignments: answer 429: header Retry-After is gone",
    ),
    "lost field of an answer": (
        lambda it: _without(it, "Assignment", "fence"),
        "POST /v1/assignments: answer 200.assignment.fence is gone",
    ),
    "lost field that was optional": (
        lambda it: _fields(it, "Problem").pop("errors"),
        "POST /v1/assignments: answer 400.errors is gone",
    ),
    "field may be left out": (
        lambda it: _schema(it, "Assignment")["required"].remove("fence"),
        "POST /v1/assignments: answer 200.assignment may be what it never was",
    ),
    "type": (
        lambda it: _fields(it, "Assignment")["fence"].update(type="integer"),
        "GET /v1/assignments: answer 200.assignments[].fence may be what it never was",
    ),
    "null": (
        lambda it: _fields(it, "Assignment").update(fence={"anyOf": [{"type": "string"}, NULL]}),
        "POST /v1/assignments: answer 200.assignment.fence may be what it never was",
    ),
    "lost format of an answer": (
        lambda it: _fields(it, "Assignment")["started_at"]["anyOf"][0].pop("format"),
        "POST /v1/assignments: answer 200.assignment.started_at may be what it never was",
    ),
}
KEEPING: dict[str, Change] = {
    "a path more": lambda it: it["paths"].update({"/v1/more": it["paths"][_CLAIM]}),
    "an answer more": lambda it: _claim(it)["responses"].update(
        {"418": _claim(it)["responses"]["400"]}
    ),
    "an optional parameter": lambda it: _claim(it)["parameters"].append(
        _parameter(False, type="string")
    ),
    "an optional field beside a choice of fields": lambda it: _fields(
        it, "SuppressionRequest"
    ).update(x={"type": "string"}),
    "what no client could send is forbidden": lambda it: _schema(it, "NoteRequest").update(
        {"not": {"anyOf": [{"required": ["x"]}, {"properties": {"text": NULL}}]}}
    ),
    "an optional field": lambda it: _fields(it, "OutcomeRequest").update(x={"type": "string"}),
    "a field more in an answer": lambda it: _add(it, "Assignment", "x"),
    "never null again": lambda it: _fields(it, "Assignment").update(
        started_at=_fields(it, "Assignment")["started_at"]["anyOf"][0]
    ),
    "choices in another order": lambda it: _fields(it, "Assignment")["started_at"][
        "anyOf"
    ].reverse(),
    "an enumeration of answers grows": lambda it: _schema(it, "EntryState")["enum"].append("x"),
    "an enumeration of answers shrinks": lambda it: _schema(it, "FreshnessMode")["enum"].pop(),
    "a schema's name": lambda it: _rename(it, "Assignment", "Handed"),
    "an operation's name": lambda it: _claim(it).update(operationId="x"),
    "words": lambda it: _schema(it, "Assignment").update(description="x", title="y"),
}


def _changed(change: Change) -> Node:
    changed = copy.deepcopy(DESCRIPTION)
    change(changed)
    assert changed != DESCRIPTION
    return changed


@pytest.mark.parametrize(("change", "sentence"), BREAKING.values(), ids=BREAKING)
def test_what_breaks_is_named(change: Change, sentence: str) -> None:
    assert sentence in breaks(DESCRIPTION, _changed(change))


@pytest.mark.parametrize("change", KEEPING.values(), ids=KEEPING)
def test_what_breaks_no_client_is_allowed(change: Change) -> None:
    assert breaks(DESCRIPTION, _changed(change)) == []


def test_the_command_fails_by_what_was_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    released = tmp_path / "released.json"
    monkeypatch.setattr(api_compatibility, "RELEASED", released)
    assert api_compatibility.main() == 0
    assert "No API is released yet" in capsys.readouterr().out
    released.write_text(json.dumps(DESCRIPTION), encoding="utf-8")
    assert api_compatibility.main() == 0
    more = _changed(KEEPING["an optional parameter"])
    released.write_text(json.dumps(more), encoding="utf-8")
    assert api_compatibility.main() == 1
    assert "POST /v1/assignments: query x is gone" in capsys.readouterr().err
