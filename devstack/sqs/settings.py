"""A queue's settable attributes, validated as CreateQueue and SetQueueAttributes do."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from devstack.sqs.errors import SqsError, invalid_value

_RANGES: Mapping[str, tuple[int, int, int]] = {
    # attribute: default, lowest, highest
    "DelaySeconds": (0, 0, 900),
    "MaximumMessageSize": (1_048_576, 1024, 1_048_576),
    "MessageRetentionPeriod": (345_600, 60, 1_209_600),
    "ReceiveMessageWaitTimeSeconds": (0, 0, 20),
    "VisibilityTimeout": (30, 0, 43_200),
    "KmsDataKeyReusePeriodSeconds": (300, 60, 86_400),
}
_BOOLEANS = frozenset({"FifoQueue", "ContentBasedDeduplication", "SqsManagedSseEnabled"})
_TEXTS = frozenset(
    {
        "Policy",
        "RedrivePolicy",
        "RedriveAllowPolicy",
        "KmsMasterKeyId",
        "DeduplicationScope",
        "FifoThroughputLimit",
    }
)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
_SHOWN_BY_DEFAULT = (
    "DelaySeconds",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds",
    "VisibilityTimeout",
)


@dataclass(frozen=True, slots=True)
class Redrive:
    """Where messages go that were received too often, and how often that is."""

    target_arn: str
    max_receives: int


@dataclass(slots=True)
class SqsQueueSettings:
    """The attributes as given, with typed access to the ones that steer behaviour."""

    given: dict[str, str] = field(default_factory=dict)
    redrive: Redrive | None = None

    def update(self, changes: Mapping[str, str]) -> None:
        """Validate and take the changes; an empty value removes an optional attribute."""
        for name, value in changes.items():
            _check(name, value)
        redrive = self.redrive
        if "RedrivePolicy" in changes:
            redrive = parse_redrive(changes["RedrivePolicy"])
        self.redrive = redrive
        for name, value in changes.items():
            if value:
                self.given[name] = value
            else:
                self.given.pop(name, None)

    def seconds(self, name: str) -> int:
        """Return a numeric attribute or its default."""
        return int(self.given.get(name, _RANGES[name][0]))

    @property
    def is_fifo(self) -> bool:
        """Whether the queue keeps order within groups."""
        return self.given.get("FifoQueue") == "true"

    @property
    def deduplicates_by_content(self) -> bool:
        """Whether a missing deduplication id is taken from the body."""
        return self.given.get("ContentBasedDeduplication") == "true"

    @property
    def deduplicates_per_group(self) -> bool:
        """Whether equal deduplication ids in different groups are different messages."""
        return self.given.get("DeduplicationScope") == "messageGroup"

    def shown(self) -> dict[str, str]:
        """Return what GetQueueAttributes reports of the settings."""
        found = {name: str(self.seconds(name)) for name in _SHOWN_BY_DEFAULT}
        found["SqsManagedSseEnabled"] = "true"
        if self.is_fifo:
            found |= {
                "ContentBasedDeduplication": "false",
                "DeduplicationScope": "queue",
                "FifoThroughputLimit": "perQueue",
            }
        return found | self.given


def check_name(name: str, *, is_fifo: bool) -> None:
    """Raise InvalidParameterValue unless the name suits the kind of queue."""
    stem = name.removesuffix(".fifo")
    if len(name) > 80 or not _NAME.fullmatch(stem):
        raise SqsError(
            "InvalidParameterValue",
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
        )
    if name.endswith(".fifo") != is_fifo:
        raise SqsError(
            "InvalidParameterValue",
            "The name of a FIFO queue can only include alphanumeric characters, hyphens, or "
            "underscores, must end with .fifo suffix and be 1 to 80 in length."
            if is_fifo
            else "Can only include alphanumeric characters, hyphens, or underscores. "
            "1 to 80 in length",
        )


def parse_redrive(policy: str) -> Redrive | None:
    """Read a RedrivePolicy document; an empty one means there is none."""
    if not policy:
        return None
    try:
        document: dict[str, Any] = orjson.loads(policy)
        redrive = Redrive(str(document["deadLetterTargetArn"]), int(document["maxReceiveCount"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise invalid_value(
            policy, "RedrivePolicy", "Redrive policy is not a valid JSON map."
        ) from error
    if not 1 <= redrive.max_receives <= 1000:
        raise invalid_value(
            policy,
            "RedrivePolicy",
            "Invalid value for maxReceiveCount: "
            f"{redrive.max_receives}, valid values are from 1 to 1000 both inclusive.",
        )
    return redrive


def _check(name: str, value: str) -> None:
    if name in _RANGES:
        _, lowest, highest = _RANGES[name]
        if not value.isdigit() or not lowest <= int(value) <= highest:
            raise _invalid_attribute(name)
    elif name in _BOOLEANS:
        if value not in {"true", "false"}:
            raise _invalid_attribute(name)
    elif name not in _TEXTS:
        raise SqsError("InvalidAttributeName", f"Unknown Attribute {name}.")


def _invalid_attribute(name: str) -> SqsError:
    return SqsError("InvalidAttributeValue", f"Invalid value for the parameter {name}.")
