"""MySQL against what the dialler holds, by queries that share nothing with its code."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
from dialler.user_context.v1 import user_context_pb2 as pb
from dialler.user_context.v1.user_context_pb2_grpc import UserContextServiceStub

from devstack.stack import DIALLER, Stack

_PAGE = 200
_OPEN = "(c.status IS NULL OR c.status NOT IN ('complete', 'cancelled'))"
# The columns are utf8mb4_unicode_ci, as the main app compares them.
_QUEUE = f"""
SELECT u.id, CASE
  WHEN NOT u.is_enabled OR u.status <=> 'inactive' THEN NULL
  WHEN NOT EXISTS (SELECT 1 FROM claims c WHERE c.user_id = u.id AND {_OPEN}) THEN NULL
  WHEN u.current_signature_file_id IS NULL THEN 1
  WHEN EXISTS (
    SELECT 1 FROM claims c JOIN claim_requirements r ON r.claim_id = c.id
    WHERE c.user_id = u.id AND {_OPEN} AND r.status = 'PENDING'
      AND (r.type IS NULL OR r.type NOT IN ('signature', 'vehicle_registration', 'cfa',
           'solicitor_letter_of_authority', 'letter_of_authority'))
      AND NOT (r.type <=> 'id_document'
           AND r.claim_requirement_reason <=> 'base requirement for claim.')
  ) THEN 2
  ELSE NULL END
FROM users u
"""
_USERS = """
SELECT id, first_name, last_name, status, is_enabled, current_signature_file_id IS NOT NULL,
  last_login FROM users
"""
_CLAIMS = "SELECT id, user_id, status, lender FROM claims"
_REQUIREMENTS = "SELECT id, claim_id, type, status FROM claim_requirements"


@dataclass(frozen=True)
class Holdings:
    """The data of one side for every person: the queue, and what an agent would see."""

    queues: dict[int, int | None]
    contexts: dict[int, Any]


def in_mysql(stack: Stack) -> Holdings:
    """The data of MySQL."""
    rows = stack.main_app.rows
    requirements: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for key, claim_id, *columns in rows(_REQUIREMENTS):
        requirements[claim_id][str(key)] = tuple(columns)
    claims: defaultdict[int, dict[int, Any]] = defaultdict(dict)
    for claim_id, user_id, *columns in rows(_CLAIMS):
        claims[user_id][claim_id] = (*columns, requirements[claim_id])
    contexts = {}
    for user_id, first, last, status, is_enabled, is_signed, last_login in rows(_USERS):
        moment = last_login.replace(tzinfo=UTC) if last_login else None
        person = (first, last, status, bool(is_enabled), bool(is_signed), moment)
        contexts[user_id] = (person, claims[user_id])
    return Holdings({int(u): q for u, q in rows(_QUEUE)}, contexts)


def in_the_dialler(stack: Stack) -> Holdings:
    """The data of the queue's table and of the contexts, from the cache where cached."""
    found = stack.postgres.execute(
        "SELECT user_id, eligible_queue FROM queue.entries", database=DIALLER
    )
    queues = {}
    for line in found.splitlines():
        user_id, _, queue = line.partition("|")
        queues[int(user_id)] = int(queue) if queue else None
    contexts: dict[int, Any] = {}
    ids = sorted(queues)
    with grpc.insecure_channel(stack.addresses.grpc["user_context"]) as channel:
        stub = UserContextServiceStub(channel)
        for start in range(0, len(ids), _PAGE):
            request = pb.BatchGetUserContextsRequest(
                user_ids=ids[start : start + _PAGE], view=pb.CONTEXT_VIEW_MESSAGE
            )
            answer = stub.BatchGetUserContexts(request, timeout=10)
            if answer.remaining_user_ids:
                raise ValueError("more contexts than fit one answer")
            for each in answer.contexts:
                contexts[each.context.user.user_id] = _shown(each.context)
    return Holdings(queues, contexts)


def differences(stack: Stack) -> list[str]:
    """All differences between the two sides; a person in no queue need not be known."""
    truth, held = in_mysql(stack), in_the_dialler(stack)
    wrong = []
    for user_id in truth.contexts.keys() | held.queues.keys():
        expected, actual = truth.queues.get(user_id), held.queues.get(user_id)
        if expected != actual:
            wrong.append(f"person {user_id} is in queue {actual} instead of {expected}")
        if user_id in held.queues and truth.contexts.get(user_id) != held.contexts.get(user_id):
            wrong.append(f"the context of person {user_id} is not what MySQL has")
    return wrong


def _shown(context: pb.UserContext) -> Any:
    user = context.user
    login = user.last_login if user.HasField("last_login") else None
    moment = None if login is None else datetime.fromtimestamp(login.seconds, UTC)
    person = (
        _value(user, "first_name"),
        _value(user, "last_name"),
        _value(user, "status"),
        user.is_enabled,
        user.has_signature,
        moment,
    )
    claims = {
        claim.claim_id: (
            _value(claim, "status"),
            _value(claim, "lender"),
            {
                each.requirement_id: (_value(each, "type"), _value(each, "status"))
                for each in claim.requirements
            },
        )
        for claim in context.claims
    }
    return person, claims


def _value(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None
