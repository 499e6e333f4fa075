"""The HTTP application: which endpoint stands at which path, for whom, documented how."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.routing import request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import docs, problems, sse, static_page
from gateway.auth import Guard, Role, guarded
from gateway.dead_letters import DeadLetterRoutes
from gateway.health import HealthRoutes, Readiness
from gateway.openapi import (
    CONTEXT_EXTRA,
    CONTEXT_RESPONSES,
    DESCRIPTION,
    EVENTS_EXTRA,
    EVENTS_RESPONSES,
    GUARDED,
    problems_of,
)
from gateway.openapi import problems as documented
from gateway.reconciliations import ReconciliationRoutes
from gateway.resources import DeskRoutes, add_desk_routes
from gateway.routes import AssignmentRoutes, PeopleRoutes, PipelineRoutes, QueueRoutes
from gateway.schemas import Claimed

CONTEXT_PATH = "/v1/people/{user_id}/context"

_CONTEXT = re.compile(r"/v1/people/(?P<user_id>[^/]+)/context")

Endpoint = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Everything that answers requests."""

    people: PeopleRoutes
    queues: QueueRoutes
    assignments: AssignmentRoutes
    pipeline: PipelineRoutes
    reconciliations: ReconciliationRoutes
    dead_letters: DeadLetterRoutes
    desk: DeskRoutes
    events: sse.EventRoutes
    health: HealthRoutes


class LeanRoute(APIRoute):
    """A documented route whose endpoint gets the bare request and guards itself.

    FastAPI's validation and dependencies cost more than the rest of such a request.
    """

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = request_response(endpoint)


def application(guard: Guard, endpoints: Endpoints) -> FastAPI:
    """Return the application with all of its routes."""
    app = FastAPI(
        title="dialler",
        version="1.0.0",
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    problems.install(app)
    _add_lean(app, endpoints)
    _add_queues(_Adder(app, guard), endpoints.queues)
    _add_assignments(_Adder(app, guard), endpoints.assignments)
    _add_pipeline(_Adder(app, guard), endpoints)
    _add_reconciliations(_Adder(app, guard), endpoints.reconciliations)
    _add_dead_letters(_Adder(app, guard), endpoints.dead_letters)
    add_desk_routes(_Adder(app, guard).add, endpoints.desk)
    _add_health(app, endpoints.health)
    docs.install(app)
    static_page.install(app)
    return app


class Express:
    """Takes reads of contexts, the bulk of all requests, past the application's layers.

    Whatever is raised there is answered by the edge, as in the application.
    """

    def __init__(self, described: FastAPI, app: ASGIApp, people: PeopleRoutes) -> None:
        """`app` takes what is no read of a context: the application, or what surrounds it."""
        self._app = app
        self._context = people.context
        self._route = next(
            each
            for each in described.routes
            if isinstance(each, APIRoute) and each.path == CONTEXT_PATH
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a read of a context, or leave the request to the application."""
        match = _CONTEXT.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if match is None or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route
        scope["path_params"] = match.groupdict()
        response = await self._context(Request(scope, receive, send))
        await response(scope, receive, send)


class _Adder:
    """Adds guarded routes."""

    def __init__(self, app: FastAPI, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    def add(
        self,
        method: str,
        path: str,
        endpoint: Endpoint,
        roles: tuple[Role, ...],
        tag: str,
        responses: dict[int | str, dict[str, Any]],
        **options: Any,
    ) -> None:
        self._app.router.add_api_route(
            path,
            endpoint,
            methods=[method],
            tags=[tag],
            operation_id=f"{tag}_{endpoint.__name__}",
            responses=responses,
            openapi_extra=GUARDED | options.pop("openapi_extra", {}),
            route_class_override=guarded(self._guard, *roles),
            **options,
        )


def _add_lean(app: FastAPI, endpoints: Endpoints) -> None:
    app.router.add_api_route(
        CONTEXT_PATH,
        endpoints.people.context,
        methods=["GET"],
        tags=["people"],
        operation_id="people_context",
        response_model=None,
        responses=CONTEXT_RESPONSES | documented(404, 422),
        openapi_extra=CONTEXT_EXTRA,
        route_class_override=LeanRoute,
    )
    app.router.add_api_route(
        sse.PATH,
        endpoints.events.open,
        methods=["GET"],
        tags=["events"],
        operation_id="events_open",
        response_model=None,
        responses=EVENTS_RESPONSES | documented(422),
        openapi_extra=EVENTS_EXTRA,
        route_class_override=LeanRoute,
    )


def _add_queues(routes: _Adder, queues: QueueRoutes) -> None:
    everybody = tuple(Role)
    routes.add("GET", "/v1/queues", queues.stats, everybody, "queues", documented())
    routes.add(
        "GET",
        "/v1/queues/{queue}/entries",
        queues.entries,
        (Role.AGENT, Role.SUPERVISOR),
        "queues",
        documented(400, 422),
    )


def _add_assignments(routes: _Adder, assignments: AssignmentRoutes) -> None:
    writes = documented(400, 409, writes=True)
    of_one = writes | documented(404)
    one = "/v1/assignments/{assignment_id}"
    claimed: dict[int | str, dict[str, Any]] = {
        200: {"model": Claimed, "description": "Already held, or nobody can be called now."},
        201: {"model": Claimed, "description": "A new assignment."},
    }
    for method, path, endpoint, responses, options in (
        ("POST", "/v1/assignments", assignments.claim, claimed | writes, {"status_code": 201}),
        ("GET", "/v1/assignments/current", assignments.current, documented(404), {}),
        ("POST", f"{one}/heartbeat", assignments.heartbeat, of_one, {}),
        ("POST", f"{one}/release", assignments.release, of_one, {}),
        ("POST", f"{one}/outcome", assignments.outcome, of_one, {}),
    ):
        routes.add(method, path, endpoint, (Role.AGENT,), "assignments", responses, **options)


def _add_pipeline(routes: _Adder, endpoints: Endpoints) -> None:
    pipeline, watchers = endpoints.pipeline, (Role.SUPERVISOR, Role.SERVICE)
    everyday = ("GET", "/v1/pipeline", pipeline.pipeline, watchers, "pipeline", documented())
    routes.add(*everyday)
    routes.add(
        "POST",
        f"{sse.PATH}/tickets",
        endpoints.events.issue_ticket,
        tuple(Role),
        "events",
        documented(),
        status_code=201,
    )


def _add_reconciliations(routes: _Adder, runs: ReconciliationRoutes) -> None:
    watchers, path = (Role.SUPERVISOR, Role.SERVICE), "/v1/reconciliations"
    for method, route, endpoint, responses, options in (
        ("GET", path, runs.reconciliations, documented(422), {}),
        ("POST", path, runs.reconcile, documented(400, 409, writes=True), {"status_code": 202}),
        ("GET", f"{path}/{{run_id}}", runs.reconciliation, documented(404, 422), {}),
        ("GET", f"{path}/{{run_id}}/drift", runs.drift, documented(400, 404, 422), {}),
    ):
        routes.add(method, route, endpoint, watchers, "pipeline", responses, **options)


def _add_dead_letters(routes: _Adder, letters: DeadLetterRoutes) -> None:
    watchers = (Role.SUPERVISOR, Role.SERVICE)
    path = "/v1/pipeline/dead-letters"
    writes = documented(400, 409, writes=True)
    routes.add("GET", path, letters.dead_letters, watchers, "pipeline", documented(422))
    for method, route, endpoint in (
        ("POST", f"{path}/redrive", letters.redrive),
        ("POST", "/v1/pipeline/ingest/pause", letters.pause),
        ("POST", "/v1/pipeline/ingest/resume", letters.resume),
    ):
        routes.add(method, route, endpoint, (Role.SUPERVISOR,), "pipeline", writes)


def _add_health(app: FastAPI, health: HealthRoutes) -> None:
    unready: dict[int | str, dict[str, Any]] = {
        503: {"model": Readiness, "description": "Something required is away."}
    }
    app.router.add_api_route("/healthz", health.live, tags=["health"], operation_id="health_live")
    app.router.add_api_route(
        "/readyz",
        health.ready,
        tags=["health"],
        operation_id="health_ready",
        responses=unready | problems_of(500),
    )
