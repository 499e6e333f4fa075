"""Where the resources of a desk and of its supervisors stand, and for whom."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.agents import AgentRoutes
from gateway.audit_entries import AuditRoutes
from gateway.auth import Role
from gateway.callbacks import CallbackRoutes
from gateway.openapi import problems as documented
from gateway.openapi import problems_of
from gateway.people import PersonRoutes
from gateway.rebuilds import RebuildRoutes
from gateway.reference import Reference, ReferenceRoutes
from gateway.suppressions import PHONE_LISTS, SuppressionRoutes

Add = Callable[..., None]

_EVERYBODY = tuple(Role)
_DESK = (Role.AGENT, Role.SUPERVISOR)
_SUPERVISORS = (Role.SUPERVISOR,)

_ETAG = {"ETag": {"description": "Changes with the data.", "schema": {"type": "string"}}}
_REFERENCE: dict[int | str, dict[str, Any]] = {
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


@dataclass(frozen=True, slots=True)
class DeskRoutes:
    """The endpoints."""

    people: PersonRoutes
    agents: AgentRoutes
    callbacks: CallbackRoutes
    suppressions: SuppressionRoutes
    rebuilds: RebuildRoutes
    audit: AuditRoutes
    reference: ReferenceRoutes


def add_desk_routes(add: Add, desk: DeskRoutes) -> None:
    """Add them all."""
    _add_people(add, desk.people)
    _add_agents(add, desk.agents)
    _add_callbacks(add, desk.callbacks)
    _add_suppressions(add, desk.suppressions)
    _add_rest(add, desk)


def _add_people(add: Add, people: PersonRoutes) -> None:
    one, reads = "/v1/people/{user_id}", documented(400, 422)
    found = documented(400, writes=True)
    add("POST", "/v1/people/search", people.search, _EVERYBODY, "people", found)
    add("GET", f"{one}/explanation", people.explanation, _EVERYBODY, "people", reads)
    add("GET", f"{one}/calls", people.calls, _EVERYBODY, "people", reads)


def _add_agents(add: Add, agents: AgentRoutes) -> None:
    writes, held = documented(400, 409, writes=True), "/v1/assignments"
    add("PUT", "/v1/agents/me/presence", agents.set_presence, (Role.AGENT,), "agents", writes)
    add("GET", "/v1/agents", agents.agents, _SUPERVISORS, "agents", documented(422))
    queues = "/v1/agents/{agent_id}/queues"
    add("PUT", queues, agents.set_queues, _SUPERVISORS, "agents", writes)
    add("GET", held, agents.assignments, _SUPERVISORS, "assignments", documented())
    release = f"{held}/{{assignment_id}}/force-release"
    writes = documented(400, 404, 409, writes=True)
    add("POST", release, agents.force_release, _SUPERVISORS, "assignments", writes)


def _add_callbacks(add: Add, callbacks: CallbackRoutes) -> None:
    path = "/v1/callbacks"
    one, writes = f"{path}/{{callback_id}}", documented(400, 404, 409, writes=True)
    add("GET", path, callbacks.callbacks, _DESK, "callbacks", documented(400, 422))
    add("POST", path, callbacks.schedule, _DESK, "callbacks", writes, status_code=201)
    add("POST", f"{one}/reschedule", callbacks.reschedule, _DESK, "callbacks", writes)
    add("POST", f"{one}/cancel", callbacks.cancel, _DESK, "callbacks", writes)


def _add_suppressions(add: Add, suppressions: SuppressionRoutes) -> None:
    path, tag = "/v1/suppressions", "suppressions"
    writes = documented(400, 404, 409, writes=True)
    add("GET", path, suppressions.suppressions, _SUPERVISORS, tag, documented(400, 422))
    add("POST", path, suppressions.suppress, _SUPERVISORS, tag, writes, status_code=201)
    add("POST", f"{path}/lift", suppressions.lift, _SUPERVISORS, tag, writes)
    add(
        "PUT",
        f"{PHONE_LISTS}{{list_name}}",
        suppressions.import_phones,
        _SUPERVISORS,
        tag,
        documented(400, 409, writes=True),
        openapi_extra=_CSV_BODY,
    )


def _add_rest(add: Add, desk: DeskRoutes) -> None:
    path, writes = "/v1/rebuilds", documented(400, 409, writes=True)
    add("POST", path, desk.rebuilds.start, _SUPERVISORS, "queues", writes, status_code=202)
    one = f"{path}/{{rebuild_id}}"
    add("GET", one, desk.rebuilds.rebuild, _SUPERVISORS, "queues", documented(404, 422))
    audit = documented(400, 422)
    add("GET", "/v1/audit-entries", desk.audit.entries, _SUPERVISORS, "audit", audit)
    add(
        "GET",
        "/v1/reference",
        desk.reference.reference,
        _EVERYBODY,
        "reference",
        _REFERENCE | documented(422) | problems_of(),
        response_model=None,
    )
