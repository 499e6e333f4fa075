"""The templates of ``deploy/aws`` as values, for the tests that hold them to their promises."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent.parent / "deploy" / "aws"
ORDER = (
    "queues",
    "alarms",
    "service-alarms",
    "store-alarms",
    "service-roles",
    "stream",
    "account-roles",
    "replication",
    "task",
    "replication-alarms",
)
"""In this order each template finds what it imports; a test sees to it."""

Template = dict[str, Any]


class _Loader(yaml.CSafeLoader):
    """Reads `!Sub x` as `{"Fn::Sub": x}`, and the like."""


def _function(loader: yaml.CSafeLoader, suffix: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.ScalarNode):
        value: object = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise TypeError(f"!{suffix} of neither text nor list")
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _function)


def load(name: str) -> Template:
    """Return one template; short forms of functions are written out."""
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    loaded: Template = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    return loaded


def load_all() -> dict[str, Template]:
    """Return every template of the folder by name."""
    return {path.stem: load(path.stem) for path in sorted(FOLDER.glob("*.yaml"))}


def resources(kind: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the properties of all resources of a type, by template and logical name."""
    return {
        (name, logical): resource.get("Properties", {})
        for name, template in load_all().items()
        for logical, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def imports(value: object) -> Iterator[str]:
    """Yield the exports a value relies on, without the suite's name."""
    for function in functions("Fn::ImportValue", value):
        yield exported(function)


def exported(name: object) -> str:
    """Return the name of an export without the suite's."""
    text = name["Fn::Sub"] if isinstance(name, dict) else str(name)
    return str(text).removeprefix("${SuiteName}-")


def functions(function: str, value: object) -> Iterator[Any]:
    """Yield the arguments of a CloudFormation function wherever it stands in a value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == function:
                yield inner
            yield from functions(function, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from functions(function, inner)


@dataclass(frozen=True)
class Statement:
    """One statement of any policy in the templates; ``kind`` is the property it stands in."""

    template: str
    resource: str
    kind: str
    effect: str
    actions: tuple[str, ...]
    resources: tuple[object, ...]
    principal: Mapping[str, Any] | str | None
    condition: Mapping[str, Any]
    sid: str


def statements() -> list[Statement]:
    """Return every statement of every policy: of roles, trusts, keys, queues and topics."""
    return [
        _statement(name, logical, kind, document)
        for name, template in load_all().items()
        for logical, resource in template["Resources"].items()
        for kind, policy in _policies(resource.get("Properties", {}), "")
        for document in policy["Statement"]
    ]


def _policies(value: object, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        if "Statement" in value:
            yield key, value
        elif key == "AssumeRolePolicyDocument":
            yield key, json.loads(value["Fn::Sub"])
        for inner_key, inner in value.items():
            yield from _policies(inner, inner_key)
    elif isinstance(value, list):
        for inner in value:
            yield from _policies(inner, key)


def _statement(name: str, logical: str, kind: str, document: dict[str, Any]) -> Statement:
    return Statement(
        template=name,
        resource=logical,
        kind=kind,
        effect=document["Effect"],
        actions=tuple(_several(document["Action"])),
        resources=tuple(_several(document.get("Resource", []))),
        principal=document.get("Principal"),
        condition=document.get("Condition", {}),
        sid=document.get("Sid", ""),
    )


def _several(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]
