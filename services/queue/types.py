"""The queue's enums and ids. Their numbers are those of the contract and of the tables."""

from enum import IntEnum, IntFlag, StrEnum
from typing import NewType

UserId = NewType("UserId", int)
AgentId = NewType("AgentId", str)


class Queue(IntEnum):
    """A queue of people to phone."""

    UNSIGNED_USERS = 1
    OUTSTANDING_REQUESTS = 2
    CALLBACKS = 3


# The queues a person is in by the facts alone, in order of a score.
SCORED_QUEUES = (Queue.UNSIGNED_USERS, Queue.OUTSTANDING_REQUESTS)


class State(IntEnum):
    """A person's state. RESERVED is internal: other services see READY."""

    READY = 1
    WAITING = 2
    ASSIGNED = 3
    SUPPRESSED = 4
    OUT = 5
    RESERVED = 6

    @property
    def seen_outside(self) -> "State":
        """The state that other services see."""
        return State.READY if self is State.RESERVED else self


class Hold(IntEnum):
    """Why a person in a queue may not be called yet."""

    COOLING = 1
    NEXT_CALL = 2
    CALLBACK = 3
    DAILY_CAP = 4
    PERIOD_CAP = 5
    SHARED_PHONE = 6
    UNREPORTED_CALL = 7


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
    VOICEMAIL_LEFT = 12
    VOICEMAIL_NOT_LEFT = 13
    WRONG_PERSON = 14
    DECEASED = 15
    LANGUAGE_BARRIER = 16


class Direction(IntEnum):
    """How an agent came to a person: by the queue, by the person's own call, or by choice."""

    OUTBOUND = 1
    INBOUND = 2
    MANUAL = 3


class CallEventKind(IntEnum):
    """What happened to a call."""

    DIALLED = 1
    RINGING = 2
    ANSWERED = 3
    VOICEMAIL = 4
    ENDED = 5


class Conversion(IntEnum):
    """Why a person's case has ended."""

    SIGNATURE_OBTAINED = 1
    REQUIREMENTS_MET = 2
    CLAIMS_ENDED = 3


class ContactBlock(IntFlag):
    """Why calls to a person have stopped until a supervisor lifts it; each is independent."""

    NO_CLAIM = 1
    DO_NOT_CONTACT = 2
    DECEASED = 4


# Blocks that are recorded as objections, which stop calls to all lines of the person. The numbers
# are those of `suppressions.kind`.
OBJECTIONS = ContactBlock.DO_NOT_CONTACT | ContactBlock.DECEASED


class PhoneBlock(IntFlag):
    """Why one of a person's numbers is not called, whichever person it belongs to."""

    LISTED = 1
    DO_NOT_CONTACT = 2


class EditionState(IntEnum):
    """What an edition of a list of phone numbers is; only CURRENT ones have any effect."""

    LOADING = 1
    CURRENT = 2
    RETIRED = 3


class CallbackState(IntEnum):
    """A callback's state."""

    OPEN = 1
    DONE = 2
    MISSED = 3
    CANCELLED = 4
    CLOSED = 5
    REPLACED = 6


class Presence(IntEnum):
    """What an agent is doing."""

    AVAILABLE = 1
    ON_CALL = 2
    WRAP_UP = 3
    BREAK = 4
    OFFLINE = 5

    @property
    def takes_calls(self) -> bool:
        """Whether an agent with this presence is handed people."""
        return self not in (Presence.BREAK, Presence.OFFLINE)


class Ending(IntEnum):
    """How an assignment ended."""

    OUTCOME = 1
    RELEASED = 2
    EXPIRED = 3
    FORCED = 4
    SKIPPED = 5


class Action(StrEnum):
    """What an actor did that is kept for audit."""

    HANDED_OUT = "HANDED_OUT"
    OUTCOME_RECORDED = "OUTCOME_RECORDED"
    OUTCOME_AMENDED = "OUTCOME_AMENDED"
    RELEASED = "RELEASED"
    SKIPPED = "SKIPPED"
    FORCED_RELEASE = "FORCED_RELEASE"
    CALLBACK_SCHEDULED = "CALLBACK_SCHEDULED"
    CALLBACK_RESCHEDULED = "CALLBACK_RESCHEDULED"
    CALLBACK_CANCELLED = "CALLBACK_CANCELLED"
    SUPPRESSED = "SUPPRESSED"
    SUPPRESSION_LIFTED = "SUPPRESSION_LIFTED"
    NO_CLAIM_LIFTED = "NO_CLAIM_LIFTED"
    COMPLAINT_OPENED = "COMPLAINT_OPENED"
    COMPLAINT_CLOSED = "COMPLAINT_CLOSED"
    NOTED = "NOTED"
    PHONES_IMPORTED = "PHONES_IMPORTED"
    OBJECTIONS_EXPORTED = "OBJECTIONS_EXPORTED"
    QUEUES_SET = "QUEUES_SET"
    REBUILT = "REBUILT"
    PAUSED = "PAUSED"
    PAUSE_ENDED = "PAUSE_ENDED"


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
    DECEASED = "DECEASED"
    FROZEN = "FROZEN"
    CALLBACK_DUE = "CALLBACK_DUE"
    CALLBACK_AGREED = "CALLBACK_AGREED"
    PHONE_LISTED = "PHONE_LISTED"
    PHONE_SUPPRESSED = "PHONE_SUPPRESSED"
    NO_CALLABLE_NUMBER = "NO_CALLABLE_NUMBER"


# Why a person is in a queue.
QUEUED_REASONS = (
    Reason.NO_SIGNATURE,
    Reason.REQUIREMENT_PENDING,
    Reason.CALLBACK_DUE,
    Reason.CALLBACK_AGREED,
)
# Why a person is in no queue although calls are allowed.
UNQUEUED_REASONS = (
    Reason.NOTHING_OUTSTANDING,
    Reason.NO_CLAIMS,
    Reason.CLAIMS_ENDED,
    Reason.FROZEN,
)
# The main app does not let the person be contacted, whether or not a case is open.
NO_CONTACT_REASONS = (Reason.USER_NOT_FOUND, Reason.USER_DISABLED, Reason.USER_INACTIVE)


class Counted(IntEnum):
    """What a report counts."""

    CALLS = 1
    CONVERSIONS = 2
    CALLBACKS = 3
    PEOPLE = 4


class Dimension(IntEnum):
    """By what the counts of a day are told apart, besides queue and result."""

    AGENT = 1
    HOUR = 2
    CALL_NUMBER = 3


class Period(IntEnum):
    """The days that one row of a report adds up."""

    DAY = 1
    WEEK = 2
    MONTH = 3
    TOTAL = 4


class HistoryKind(IntEnum):
    """What an entry of a person's history is of."""

    CALL = 1
    NOTE = 2
    CALLBACK_AGREED = 3
    CALLBACK_ENDED = 4
    OBJECTION = 5
    OBJECTION_LIFTED = 6
    COMPLAINT_OPENED = 7
    COMPLAINT_CLOSED = 8
    AMENDMENT = 9
    CONVERSION = 10
