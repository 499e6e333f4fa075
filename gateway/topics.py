"""The topics of the event stream, and who may follow which."""

from collections.abc import Collection
from enum import StrEnum

from gateway.auth import Caller, Role
from servicekit.errors import PermissionDenied


class Topic(StrEnum):
    """What a stream can be opened for."""

    ASSIGNMENT = "assignment"
    QUEUES = "queues"
    WALLBOARD = "wallboard"
    PIPELINE = "pipeline"


# Only an agent is ever assigned somebody.
_ROLES = {
    Topic.ASSIGNMENT: frozenset({Role.AGENT}),
    Topic.QUEUES: frozenset(Role),
    Topic.WALLBOARD: frozenset({Role.SUPERVISOR}),
    Topic.PIPELINE: frozenset({Role.SUPERVISOR, Role.SERVICE}),
}


def require(caller: Caller, topics: Collection[Topic]) -> None:
    """Raise PermissionDenied (TOPIC_NOT_ALLOWED) unless the caller may follow all of them."""
    for each in topics:
        if caller.role not in _ROLES[each]:
            raise PermissionDenied(
                "TOPIC_NOT_ALLOWED",
                f"the topic {each} is not allowed to role {caller.role}",
                topic=each,
                role=caller.role,
            )
