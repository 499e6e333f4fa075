"""Looks for secret columns in change messages taken from AWS, before anything consumes them.

DMS does not say whether a removed column is gone from before-images too, so the runbook has this
look at real ones. Reads the output of `aws kinesis get-records` or `aws sqs receive-message`, or
messages one a line, from standard input.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from mainapp.description import load

BEFORE_IMAGE = "before-image"


@dataclass(frozen=True)
class Sight:
    """What was in the messages."""

    secret: frozenset[str]
    before_images: int


def look(text: str, secret: frozenset[str]) -> Sight:
    """Return the secret columns whose names occur as keys, however deep or encoded."""
    keys = list(_keys(_documents(text)))
    return Sight(secret & frozenset(keys), keys.count(BEFORE_IMAGE))


def _documents(text: str) -> list[object]:
    try:
        return [json.loads(text)]
    except ValueError:
        return [found for line in text.splitlines() if (found := _decoded(line)) is not None]


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
    elif isinstance(value, str):
        yield from _keys(_decoded(value))


def _decoded(text: str) -> object:
    """The object or array that the text is, in base64 or not; None when it is neither."""
    for candidate in (text, _from_base64(text)):
        try:
            found: object = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(found, dict | list):
            return found
    return None


def _from_base64(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def main() -> int:
    """0: before-images were seen and no secret column; 1: one was; 2: nothing is proven."""
    sight = look(sys.stdin.read(), load().secret_columns)
    if sight.secret:
        print(f"Secret columns leave MySQL: {', '.join(sorted(sight.secret))}. Stop the task.")
        return 1
    if not sight.before_images:
        print("No before-image among these messages: nothing is proven. Update a person first.")
        return 2
    print(f"{sight.before_images} before-images, no secret column.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
