"""The registry of all endpoints: path, roles and documented answers of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.access.auth import Role
from gateway.description.openapi import (
    CONTEXT_EXTRA,
    CONTEXT_RESPONSES,
    EVENTS_EXTRA,
    EVENTS_RESPONSES,
)
from gateway.http.problems import documented, documented_only
from gateway.live import sse
from gateway.resources.agents import AgentRoutes
from gateway.resources.assignments import AssignmentRoutes, Claimed
from gateway.resources.audit_entries import AuditRoutes
from gateway.resources.call_events import CallEventRoutes
from gateway.resources.callbacks import CallbackRoutes
from gateway.resources.contexts import ContextRoutes
from gateway.resources.dead_letters import DeadLetterRoutes
from gateway.resources.health import HealthRoutes, Readiness
from gateway.resources.pauses import PauseRoutes
from gateway.resources.people import PeopleRoutes
from gateway.resources.pipeline import PipelineRoutes
from gateway.resources.queues import QueueRoutes
from gateway.resources.rebuilds import RebuildRoutes
from gateway.resources.reconciliations import ReconciliationRoutes
from gateway.resources.reference import Reference, ReferenceRoutes
from gateway.resources.reports import Report, ReportRoutes
from gateway.resources.spreadsheets import CSV
from gateway.resources.suppressions import PHONE_LISTS, SuppressionRoutes

CONTEXT_PATH = "/v1/people/{user_id}/context"

Add = Callable[..., None]
Responses = dict[int | str, dict[str, Any]]

_EVERY_ROLE = tuple(Role)
_AGENTS = (Role.AGENT,)
_SERVICES = (Role.SERVICE,)
_SUPERVISORS = (Role.SUPERVISOR,)
_AGENTS_AND_SUPERVISORS = (Role.AGENT, Role.SUPERVISOR)
_SUPERVISORS_AND_SERVICES = (Role.SUPERVISOR, Role.SERVICE)

_CLAIMED: Responses = {
    200: {
        "model": Claimed,
        "description": "The agent held it already, or no person can be called now.",
    },
    201: {"model": Claimed, "description": "A new assignment."},
}
_ETAG = {"ETag": {"description": "Changes with the data.", "schema": {"type": "string"}}}
_REFERENCE: Responses = {
    200: {"model": Reference, "description": "The reference data.", "headers": _ETAG},
    304: {"description": "The client holds the present version.", "headers": _ETAG},
}
_CSV_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "text/csv": {
                "example": "phone\n07700 900123\n+44 7700 900124\n",
            }
        },
    }
}
_EXPORTED: Responses = {
    200: {
        "description": "The objections; the numbers are in E.164.",
        "content": {CSV: {"schema": {"type": "string"}}},
    }
}
_UNREADY: Responses = {
    503: {"model": Readiness, "description": "A required dependency is unavailable."}
}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """All objects with endpoints."""

    contexts: ContextRoutes
    people: PeopleRoutes
    queues: QueueRoutes
    assignments: AssignmentRoutes
    call_events: CallEventRoutes
    agents: AgentRoutes
    callbacks: CallbackRoutes
    suppressions: SuppressionRoutes
    pauses: PauseRoutes
    rebuilds: RebuildRoutes
    pipeline: PipelineRoutes
    reconciliations: ReconciliationRoutes
    dead_letters: DeadLetterRoutes
    audit: AuditRoutes
    reports: ReportRoutes
    reference: ReferenceRoutes
    events: sse.EventRoutes
    health: HealthRoutes


def add_lean(add: Add, endpoints: Endpoints) -> None:
    """Add the endpoints that take the bare request: the most frequent ones."""
    contexts, events = endpoints.contexts, endpoints.events
    responses = CONTEXT_RESPONSES | documented(404, 422)
    add(CONTEXT_PATH, contexts.context, "people", responses, CONTEXT_EXTRA)
    add(sse.PATH, events.open, "events", EVENTS_RESPONSES | documented(422), EVENTS_EXTRA)


def add_guarded(add: Add, endpoints: Endpoints) -> None:
    """Add the endpoints that need a token: one table, in the order of the API description."""
    reads, lists, queries = documented(), documented(422), documented(400, 422)
    writes = documented(400, 409, writes=True)
    writes_one = documented(400, 404, 409, writes=True)
    searches = documented(400, writes=True)

    queues, rebuilds = endpoints.queues, endpoints.rebuilds
    add("GET", "/v1/queues", queues.stats, _EVERY_ROLE, "queues", reads)
    path = "/v1/queues/{queue}/entries"
    add("GET", path, queues.entries, _AGENTS_AND_SUPERVISORS, "queues", queries)

    assignments, path, tag = endpoints.assignments, "/v1/assignments", "assignments"
    one, roles = f"{path}/{{assignment_id}}", _AGENTS_AND_SUPERVISORS
    add(
        "POST",
        path,
        assignments.claim,
        _AGENTS_AND_SUPERVISORS,
        tag,
        _CLAIMED | writes,
        status_code=201,
        response_model=Claimed,
    )
    add("GET", f"{path}/current", assignments.current, roles, tag, documented(404))
    add("POST", f"{one}/heartbeat", assignments.heartbeat, roles, tag, writes_one)
    add("POST", f"{one}/release", assignments.release, roles, tag, writes_one)
    add("POST", f"{one}/outcome", assignments.outcome, roles, tag, writes_one)
    events, path = endpoints.call_events, "/v1/missed-calls"
    add("POST", f"{one}/events", events.record, _EVERY_ROLE, tag, writes_one)
    add("POST", path, events.missed, _SERVICES, "callbacks", writes)

    pipeline, path, tag = endpoints.pipeline, "/v1/pipeline", "pipeline"
    add("GET", path, pipeline.pipeline, _SUPERVISORS_AND_SERVICES, tag, reads)
    tickets = f"{sse.PATH}/tickets"
    add(
        "POST",
        tickets,
        endpoints.events.issue_ticket,
        _EVERY_ROLE,
        "events",
        reads,
        status_code=201,
    )

    runs, path, watchers = (
        endpoints.reconciliations,
        "/v1/reconciliations",
        _SUPERVISORS_AND_SERVICES,
    )
    one = f"{path}/{{run_id}}"
    add("GET", path, runs.reconciliations, watchers, tag, lists)
    add("POST", path, runs.reconcile, watchers, tag, writes, status_code=202)
    add("GET", one, runs.reconciliation, watchers, tag, documented(404, 422))
    add("GET", f"{one}/drift", runs.drift, watchers, tag, documented(400, 404, 422))

    letters, path = endpoints.dead_letters, "/v1/pipeline/dead-letters"
    add("GET", path, letters.dead_letters, watchers, tag, lists)
    add("POST", f"{path}/redrive", letters.redrive, _SUPERVISORS, tag, writes)
    add("POST", f"{path}/discard", letters.discard, _SUPERVISORS, tag, writes)
    add("POST", "/v1/pipeline/ingest/pause", letters.pause, _SUPERVISORS, tag, writes)
    add("POST", "/v1/pipeline/ingest/resume", letters.resume, _SUPERVISORS, tag, writes)

    people, one, tag = endpoints.people, "/v1/people/{user_id}", "people"
    add("POST", "/v1/people/search", people.search, _EVERY_ROLE, tag, searches)
    add("GET", f"{one}/explanation", people.explanation, _EVERY_ROLE, tag, queries)
    add("GET", f"{one}/calls", people.calls, _EVERY_ROLE, tag, queries)
    add("GET", f"{one}/history", people.history, _EVERY_ROLE, tag, queries)
    add(
        "POST",
        f"{one}/notes",
        people.note,
        _AGENTS_AND_SUPERVISORS,
        tag,
        writes_one,
        status_code=201,
    )
    add("POST", f"{one}/complaint", people.complaint, watchers, tag, writes_one)

    agents, path = endpoints.agents, "/v1/agents"
    add("GET", f"{path}/me", agents.me, _AGENTS, "agents", reads)
    add("PUT", f"{path}/me/presence", agents.set_presence, _AGENTS, "agents", writes)
    add("GET", path, agents.agents, _SUPERVISORS, "agents", lists)
    add("PUT", f"{path}/{{agent_id}}/queues", agents.set_queues, _SUPERVISORS, "agents", writes)
    path, tag = "/v1/assignments", "assignments"
    release = f"{path}/{{assignment_id}}/force-release"
    add("GET", path, assignments.assignments, _SUPERVISORS, tag, reads)
    add("POST", release, assignments.force_release, _SUPERVISORS, tag, writes_one)
    amend, roles = f"{path}/{{assignment_id}}/outcome/amend", _AGENTS_AND_SUPERVISORS
    add("POST", amend, assignments.amend, roles, tag, writes_one)
    add("POST", f"{path}/undo-outcomes", assignments.undo, _SUPERVISORS, tag, writes)

    callbacks, path, tag = endpoints.callbacks, "/v1/callbacks", "callbacks"
    one = f"{path}/{{callback_id}}"
    add("GET", path, callbacks.callbacks, roles, tag, queries)
    add("POST", path, callbacks.schedule, roles, tag, writes_one, status_code=201)
    add("POST", f"{one}/reschedule", callbacks.reschedule, roles, tag, writes_one)
    add("POST", f"{one}/cancel", callbacks.cancel, roles, tag, writes_one)

    blocks, path, tag = endpoints.suppressions, "/v1/suppressions", "suppressions"
    add("GET", path, blocks.suppressions, _SUPERVISORS, tag, queries)
    add("POST", f"{path}/search", blocks.search, _SUPERVISORS, tag, searches)
    add("POST", path, blocks.suppress, roles, tag, writes_one, status_code=201)
    add("POST", f"{path}/lift", blocks.lift, _SUPERVISORS, tag, writes_one)
    add(
        "GET",
        f"{path}/export",
        blocks.export,
        _SUPERVISORS,
        tag,
        _EXPORTED | reads,
        response_model=None,
    )
    add("GET", PHONE_LISTS.rstrip("/"), blocks.phone_lists, _SUPERVISORS, tag, reads)
    path = f"{PHONE_LISTS}{{list_name}}"
    add("PUT", path, blocks.import_phones, _SUPERVISORS, tag, writes, openapi_extra=_CSV_BODY)

    pauses, path, tag = endpoints.pauses, "/v1/pauses", "queues"
    add("GET", path, pauses.pauses, _SUPERVISORS, tag, reads)
    add("POST", path, pauses.begin, _SUPERVISORS, tag, writes, status_code=201)
    add("POST", f"{path}/{{pause_id}}/end", pauses.end, _SUPERVISORS, tag, writes_one)

    path, tag = "/v1/rebuilds", "queues"
    add("POST", path, rebuilds.start, _SUPERVISORS, tag, writes, status_code=202)
    add("GET", f"{path}/{{rebuild_id}}", rebuilds.rebuild, _SUPERVISORS, tag, documented(404, 422))

    add("GET", "/v1/audit-entries", endpoints.audit.entries, _SUPERVISORS, "audit", queries)
    path = "/v1/reports/{report}"
    answers: Responses = {200: {"content": {CSV: {"schema": {"type": "string"}}}}}
    report = endpoints.reports.report
    add("GET", path, report, _SUPERVISORS, "reports", answers | queries, response_model=Report)
    add(
        "GET",
        "/v1/reference",
        endpoints.reference.reference,
        _EVERY_ROLE,
        "reference",
        _REFERENCE | lists,
        response_model=None,
    )


def add_public(add: Add, endpoints: Endpoints) -> None:
    """Add the endpoints without a token."""
    health = endpoints.health
    add("/healthz", health.live, "health")
    add("/readyz", health.ready, "health", _UNREADY | documented_only(500))
