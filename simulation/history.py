"""What was done in a simulated week, what was answered, and what was in MySQL meanwhile.

`at` is simulated time, which stands still while a request is under way; a `Window` is real time,
which does not, and so tells what overlapped.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, TypeAlias

CALLBACKS = "callbacks"
UNSIGNED = "unsigned_users"
OUTSTANDING = "outstanding_requests"


class Window(NamedTuple):
    """Real time from the beginning of a request to its answer, in seconds of one clock."""

    began: float
    ended: float


class View(NamedTuple):
    """What a person's rows in MySQL meant at one moment, by the checker's own reading.

    `matter` is the queue of what the person owes, whether or not they may be contacted; None with
    `ending` saying why nothing is owed. `phones` are the numbers in the phone field, each once.
    """

    exists: bool
    is_contactable: bool
    matter: str | None
    ending: str
    is_signed: bool
    phones: tuple[str, ...]
    registered_at: datetime | None
    first_claim_at: datetime | None


@dataclass(frozen=True, slots=True)
class Truth:
    """A person's rows were other than before from some moment within the window on."""

    at: datetime
    window: Window
    user_id: int
    view: View
    # False when the change was kept out of the binlog, so that capture can never see it.
    is_captured: bool = True


class HandOutRecord(NamedTuple):
    """A person in an agent's hands."""

    assignment_id: str
    agent_id: str
    user_id: int
    queue: str
    started_at: datetime
    lease_expires_at: datetime


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """An agent asked for a person. With neither a person nor an error, there was none."""

    at: datetime
    window: Window
    agent_id: str
    request_id: str
    queues: tuple[str, ...]
    hand_out: HandOutRecord | None = None
    already_held: bool = False
    rejected: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class HeartbeatRecord:
    """A heartbeat was answered with the lease's new end, or refused."""

    at: datetime
    window: Window
    assignment_id: str
    lease_expires_at: datetime | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """A person was released: `how` is skipped, leaving or forced."""

    at: datetime
    window: Window
    assignment_id: str
    how: str
    error: str = ""


class CallbackRecord(NamedTuple):
    """A callback as an answer tells of it."""

    callback_id: str
    user_id: int
    scheduled_for: datetime
    preferred_agent_id: str
    state: str


@dataclass(frozen=True, slots=True)
class OutcomeRecord:
    """An outcome was acknowledged, or refused with `error`; repeats share their request id."""

    at: datetime
    window: Window
    assignment_id: str
    agent_id: str
    request_id: str
    outcome: str
    notes: str
    callback_at: datetime | None = None
    open_callback: CallbackRecord | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class CallbackChanged:
    """A supervisor scheduled, moved or cancelled a callback: `how` says which.

    `asked_for` is the time asked for; None for a cancellation.
    """

    at: datetime
    window: Window
    how: str
    callback: CallbackRecord | None
    user_id: int = 0
    error: str = ""
    asked_for: datetime | None = None


@dataclass(frozen=True, slots=True)
class SuppressionRecord:
    """A supervisor or an agent took an objection outside a call.

    It is about a person and the numbers of the person, or about the bare number `phone`, as the
    checker writes it; then `user_id` is 0.
    """

    at: datetime
    window: Window
    user_id: int
    error: str = ""
    phone: str = ""


@dataclass(frozen=True, slots=True)
class LiftRecord:
    """A supervisor lifted what stops the calls to a person, or to the bare number `phone`.

    `what` is objection or no_claim; empty for the only one that stands.
    """

    at: datetime
    window: Window
    user_id: int
    error: str = ""
    what: str = ""
    phone: str = ""


@dataclass(frozen=True, slots=True)
class PhonesImported:
    """A list of numbers that may not be called was imported, as the checker writes numbers."""

    at: datetime
    window: Window
    phones: frozenset[str]
    error: str = ""


@dataclass(frozen=True, slots=True)
class PresenceSet:
    """An agent said what they are doing."""

    at: datetime
    window: Window
    agent_id: str
    presence: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class AgentLimited:
    """A supervisor limited an agent to some queues; none lifts the limit."""

    at: datetime
    window: Window
    agent_id: str
    queues: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class CaptureStopped:
    """Nothing was captured from `at` until `until`; what was written is captured afterwards."""

    at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Every person was looked at between `at` and `until`."""

    at: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class CallbackClosed:
    """The queue closed a callback by itself, as its table tells."""

    at: datetime
    window: Window
    row: "CallbackRow"


Record: TypeAlias = (
    Truth
    | ClaimRecord
    | HeartbeatRecord
    | ReleaseRecord
    | OutcomeRecord
    | CallbackChanged
    | SuppressionRecord
    | LiftRecord
    | PhonesImported
    | PresenceSet
    | AgentLimited
    | CallbackClosed
)


class AssignmentRow(NamedTuple):
    """A row of the queue's assignments at the end."""

    assignment_id: str
    agent_id: str
    user_id: int
    queue: str
    started_at: datetime
    lease_expires_at: datetime
    ended_at: datetime | None


class AttemptRow(NamedTuple):
    """A row of the queue's attempts at the end; `outcome` is empty for a call without a report."""

    assignment_id: str
    user_id: int
    agent_id: str
    outcome: str
    notes: str
    ended_at: datetime


class ConversionRecord(NamedTuple):
    """A row of the queue's conversions at the end."""

    user_id: int
    queue: str
    conversion: str
    agent_id: str | None
    recorded_at: datetime


class CallbackRow(NamedTuple):
    """A row of the queue's callbacks at the end."""

    callback_id: str
    user_id: int
    state: str
    scheduled_for: datetime
    misses: int
    closed_at: datetime | None
    closed_reason: str


class EntryRow(NamedTuple):
    """A row of the queue's entries at the end; `last_agent_id` spoke with the person last."""

    user_id: int
    attempts: int
    last_outcome: str | None
    last_agent_id: str | None


@dataclass(frozen=True, slots=True)
class Tables:
    """The queue's tables when the week was over and every change had arrived.

    `objections` are the people and the bare numbers of whom the queue tells that an objection
    stands.
    """

    assignments: tuple[AssignmentRow, ...] = ()
    attempts: tuple[AttemptRow, ...] = ()
    conversions: tuple[ConversionRecord, ...] = ()
    callbacks: tuple[CallbackRow, ...] = ()
    entries: tuple[EntryRow, ...] = ()
    objections: frozenset[int | str] = frozenset()


@dataclass(slots=True)
class WeekHistory:
    """Everything the checker is told."""

    began_at: datetime
    people: dict[int, View] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    stops: list[CaptureStopped] = field(default_factory=list)
    reconciliations: list[Reconciled] = field(default_factory=list)
    ended_at: datetime | None = None
    tables: Tables = field(default_factory=Tables)
