"""/openapi.json and the page at /docs with all of its assets."""

from collections.abc import Awaitable, Callable

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from gateway.description.openapi import described
from gateway.http.compression import FixedContent, fixed, fixed_file

_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}
# Swagger UI sets style attributes; scripts and requests are limited to this origin.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>dialler API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
  tryItOutEnabled: true
});
"""


def install(app: FastAPI) -> None:
    """Add the routes."""
    document: FixedContent | None = None

    async def openapi(request: Request) -> Response:
        nonlocal document
        if document is None:
            document = fixed(orjson.dumps(described(app)))
        return document.answer(request, "application/json", {"cache-control": "no-cache"})

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            raise HTTPException(404)
        content = fixed_file("fastapi_offline", "static", name)
        headers = {"cache-control": "public, max-age=86400"}
        return content.answer(request, _ASSETS[name], headers)

    for path, endpoint in (
        ("/openapi.json", openapi),
        ("/docs", _fixed(_PAGE, "text/html; charset=utf-8")),
        ("/docs/start.js", _fixed(_START, "text/javascript; charset=utf-8")),
        ("/docs/{name}", asset),
    ):
        app.router.routes.append(Route(path, endpoint, methods=["GET"], include_in_schema=False))


def _fixed(text: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return Response(text, headers={"content-security-policy": _POLICY}, media_type=media_type)

    return answer
