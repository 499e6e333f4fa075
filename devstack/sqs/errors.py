"""The errors SQS answers with, spelled as the service spells them."""

from collections.abc import Mapping
from typing import NamedTuple

_SERVICE = "com.amazonaws.sqs#"
_FRAMEWORK = "com.amazon.coral.service#"
_QUERY = "AWS.SimpleQueueService."


class _Spelling(NamedTuple):
    """How one error is named in the JSON protocol and in the older query protocol."""

    json_type: str
    query_code: str


_SPELLINGS: Mapping[str, _Spelling] = {
    **{
        name: _Spelling(_SERVICE + name, _QUERY + name)
        for name in (
            "BatchEntryIdsNotDistinct",
            "BatchRequestTooLong",
            "EmptyBatchRequest",
            "InvalidBatchEntryId",
            "TooManyEntriesInBatchRequest",
            "UnsupportedOperation",
        )
    },
    **{
        name: _Spelling(_SERVICE + name, name)
        for name in (
            "InvalidAttributeName",
            "InvalidAttributeValue",
            "InvalidMessageContents",
            "OverLimit",
            "ReceiptHandleIsInvalid",
            "ResourceNotFoundException",
        )
    },
    "QueueDoesNotExist": _Spelling(_SERVICE + "QueueDoesNotExist", _QUERY + "NonExistentQueue"),
    "QueueNameExists": _Spelling(_SERVICE + "QueueNameExists", "QueueAlreadyExists"),
    "InvalidParameterValue": _Spelling(
        _FRAMEWORK + "InvalidParameterValueException", "InvalidParameterValue"
    ),
    "MissingParameter": _Spelling(
        _FRAMEWORK + "MissingRequiredParameterException", "MissingParameter"
    ),
    "SerializationException": _Spelling(_FRAMEWORK + "SerializationException", "MalformedInput"),
    "UnknownOperation": _Spelling(_FRAMEWORK + "UnknownOperationException", "InvalidAction"),
}


class SqsError(Exception):
    """A request, or one entry of a batch, that SQS refuses; always the sender's fault."""

    def __init__(self, name: str, message: str) -> None:
        """Take one of the names AWS documents; an unknown name raises KeyError."""
        super().__init__(message)
        self.message = message
        spelling = _SPELLINGS[name]
        self.json_type = spelling.json_type
        self.query_code = spelling.query_code

    def entry(self, entry_id: str) -> dict[str, object]:
        """Return the BatchResultErrorEntry of this error."""
        return {
            "Id": entry_id,
            "SenderFault": True,
            "Code": self.query_code,
            "Message": self.message,
        }


def invalid_value(value: object, parameter: str, reason: str) -> SqsError:
    """Return InvalidParameterValue in the wording AWS uses for a parameter out of range."""
    return SqsError(
        "InvalidParameterValue",
        f"Value {value} for parameter {parameter} is invalid. Reason: {reason}",
    )


def missing(parameter: str) -> SqsError:
    """Return MissingParameter for a parameter the action cannot do without."""
    return SqsError("MissingParameter", f"The request must contain the parameter {parameter}.")


def no_such_queue() -> SqsError:
    """Return QueueDoesNotExist."""
    return SqsError("QueueDoesNotExist", "The specified queue does not exist.")
