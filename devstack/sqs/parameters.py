"""Typed access to the parameters of one request."""

from collections.abc import Mapping
from typing import Any

from devstack.sqs.errors import SqsError, invalid_value, missing
from devstack.sqs.messages import Attribute


class Parameters:
    """The JSON object of a request or of one batch entry."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def has(self, name: str) -> bool:
        """Return whether the parameter was given at all."""
        return self._values.get(name) is not None

    def text(self, name: str) -> str:
        """Return a required string."""
        value = self.optional_text(name)
        if value is None:
            raise missing(name)
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a string or None."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise _malformed(name)
        return value

    def integer(self, name: str, default: int, lowest: int, highest: int) -> int:
        """Return a number within the bounds, else raise InvalidParameterValue."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise _malformed(name)
        if not lowest <= value <= highest:
            raise invalid_value(
                value, name, f"Must be between {lowest} and {highest}, if provided."
            )
        return value

    def required_integer(self, name: str, lowest: int, highest: int) -> int:
        """Return a number within the bounds that must have been given."""
        if not self.has(name):
            raise missing(name)
        return self.integer(name, lowest, lowest, highest)

    def texts(self, name: str) -> list[str]:
        """Return a list of strings, empty when absent."""
        value = self._values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _malformed(name)
        return value

    def strings(self, name: str) -> dict[str, str]:
        """Return a map of strings, empty when absent."""
        value = self._values.get(name) or {}
        if not isinstance(value, dict):
            raise _malformed(name)
        return {str(key): str(item) for key, item in value.items()}

    def attributes(self, name: str) -> dict[str, Attribute]:
        """Return message attributes by name, empty when absent."""
        value = self._values.get(name) or {}
        if not isinstance(value, dict) or not all(isinstance(a, dict) for a in value.values()):
            raise _malformed(name)
        return {
            key: {part: str(text) for part, text in attribute.items() if text is not None}
            for key, attribute in value.items()
        }

    def entries(self, entry_type: str) -> "list[Parameters]":
        """Return the batch's entries, checked for number and distinct, well-formed ids."""
        entries = [Parameters(entry) for entry in self._values.get("Entries") or []]
        if not entries:
            raise SqsError(
                "EmptyBatchRequest",
                f"There should be at least one {entry_type} in the request.",
            )
        if len(entries) > 10:
            raise SqsError(
                "TooManyEntriesInBatchRequest",
                f"Maximum number of entries per request are 10. You have sent {len(entries)}.",
            )
        _check_ids([entry.text("Id") for entry in entries])
        return entries


def _check_ids(ids: list[str]) -> None:
    seen: set[str] = set()
    for entry_id in ids:
        plain = entry_id.replace("-", "").replace("_", "")
        if len(entry_id) > 80 or not (plain.isascii() and plain.isalnum()):
            raise SqsError(
                "InvalidBatchEntryId",
                "A batch entry id can only contain alphanumeric characters, hyphens and "
                "underscores. It can be at most 80 letters long.",
            )
        if entry_id in seen:
            raise SqsError("BatchEntryIdsNotDistinct", f"Id {entry_id} repeated.")
        seen.add(entry_id)


def _malformed(name: str) -> SqsError:
    return SqsError("SerializationException", f"Unexpected type for {name}.")
