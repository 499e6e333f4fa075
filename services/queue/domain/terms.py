"""The words of the queue. The numbers of the enums are those of the contract and of the tables."""

from enum import IntEnum, StrEnum
from typing import NewType

UserId = NewType("UserId", int)
AgentId = NewType("AgentId", str)


class Queue(IntEnum):
    """A queue of people to phone."""

    UNSIGNED_USERS = 1
    OUTSTANDING_REQUESTS = 2


class State(IntEnum):
    """Where a person stands. RESERVED is ours alone: READY to everybody outside."""

    READY = 1
    WAITING = 2
    ASSIGNED = 3
    SUPPRESSED = 4
    OUT = 5
    RESERVED = 6

    @property
    def seen_outside(self) -> "State":
        """The state that others are told."""
        return State.READY if self is State.RESERVED else self


class Outcome(IntEnum):
    """How a call ended."""

    COMPLETED_FORM = 1
    GOING_TO_COMPLETE = 2
    MIGHT_COMPLETE = 3
    CALL_BACK = 4
    NO_ANSWER = 5
    MISSED_CALL = 6
    HUNG_UP = 7
    BAD_NUMBER = 8
    NO_CLAIM = 9
    NOT_INTERESTED = 10
    DO_NOT_CONTACT = 11


class Conversion(IntEnum):
    """Why a person no longer owes what the queue was for."""

    SIGNATURE_OBTAINED = 1
    REQUIREMENTS_MET = 2
    CLAIMS_ENDED = 3


class Block(IntEnum):
    """Why calls have stopped until a supervisor says otherwise."""

    NO_CLAIM = 1
    DO_NOT_CONTACT = 2


class Ending(IntEnum):
    """How an assignment ended."""

    OUTCOME = 1
    RELEASED = 2
    EXPIRED = 3


class Reason(StrEnum):
    """Why a person is in a queue, or in none."""

    NO_SIGNATURE = "NO_SIGNATURE"
    REQUIREMENT_PENDING = "REQUIREMENT_PENDING"
    NOTHING_OUTSTANDING = "NOTHING_OUTSTANDING"
    NO_CLAIMS = "NO_CLAIMS"
    CLAIMS_ENDED = "CLAIMS_ENDED"
    USER_NOT_FOUND = "USER_NOT_FOUND"
    USER_DISABLED = "USER_DISABLED"
    USER_INACTIVE = "USER_INACTIVE"
    NO_CLAIM_REPORTED = "NO_CLAIM_REPORTED"
    DO_NOT_CONTACT = "DO_NOT_CONTACT"
    FROZEN = "FROZEN"
