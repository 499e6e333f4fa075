"""The HTTP application: its routes, and the fast path for contexts."""

import re
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.routing import request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.access.auth import Guard, Role, guarded
from gateway.description import docs
from gateway.description.openapi import DESCRIPTION, GUARDED
from gateway.http import problems, static_page
from gateway.registry import (
    CONTEXT_PATH,
    Endpoints,
    Responses,
    add_guarded,
    add_lean,
    add_public,
)
from gateway.resources.contexts import ContextRoutes
from servicekit.version import VERSION

_CONTEXT = re.compile(r"/v1/people/(?P<user_id>[^/]+)/context")

Endpoint = Callable[..., Any]


class LeanRoute(APIRoute):
    """A documented route whose endpoint takes the bare request and calls the guard itself.

    FastAPI's validation and dependencies cost more than the rest of such a request.
    """

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = request_response(endpoint)


def application(guard: Guard, endpoints: Endpoints) -> FastAPI:
    """Return the application with all of its routes."""
    app = FastAPI(
        title="dialler",
        version=VERSION,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    problems.install(app)

    def add(
        path: str, endpoint: Endpoint, tag: str, responses: Responses | None = None, **options: Any
    ) -> None:
        name = f"{tag}_{endpoint.__name__}"
        app.router.add_api_route(
            path, endpoint, tags=[tag], operation_id=name, responses=responses, **options
        )

    def add_lean_route(
        path: str, endpoint: Endpoint, tag: str, responses: Responses, extra: dict[str, Any]
    ) -> None:
        options = {"response_model": None, "openapi_extra": extra}
        add(path, endpoint, tag, responses, route_class_override=LeanRoute, **options)

    def add_guarded_route(
        method: str,
        path: str,
        endpoint: Endpoint,
        roles: tuple[Role, ...],
        tag: str,
        responses: Responses,
        **options: Any,
    ) -> None:
        options["openapi_extra"] = GUARDED | options.pop("openapi_extra", {})
        route_class = guarded(guard, *roles)
        add(
            path,
            endpoint,
            tag,
            responses,
            methods=[method],
            route_class_override=route_class,
            **options,
        )

    add_lean(add_lean_route, endpoints)
    add_guarded(add_guarded_route, endpoints)
    add_public(add, endpoints)
    docs.install(app)
    static_page.install(app)
    return app


class Express:
    """Routes reads of contexts, most of all requests, past the application's layers.

    The edge answers their errors, as it does those of the application.
    """

    def __init__(self, described: FastAPI, app: ASGIApp, contexts: ContextRoutes) -> None:
        """`app` answers all other requests: the application, or a layer around it."""
        self._app = app
        self._context = contexts.context
        self._route = next(
            each
            for each in described.routes
            if isinstance(each, APIRoute) and each.path == CONTEXT_PATH
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a read of a context, or pass the request to the application."""
        match = _CONTEXT.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if match is None or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route
        scope["path_params"] = match.groupdict()
        response = await self._context(Request(scope, receive, send))
        await response(scope, receive, send)
