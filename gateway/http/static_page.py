"""The wallboard at /wallboard: static files; its figures come over the API."""

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from gateway.http.compression import fixed_file

PATH = "/wallboard"

_SCRIPT = "text/javascript; charset=utf-8"
_STYLE = "text/css; charset=utf-8"
_ASSETS = {
    "main.js": ("main.js", _SCRIPT),
    "stream.js": ("stream.js", _SCRIPT),
    "figures.js": ("figures.js", _SCRIPT),
    "charts.js": ("charts.js", _SCRIPT),
    "wallboard.css": ("wallboard.css", _STYLE),
    "uplot.js": ("vendor/uplot.js", _SCRIPT),
    "uplot.css": ("vendor/uplot.css", _STYLE),
}
# No inline script or style, nothing of other origins, and no text parsed as HTML.
_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "permissions-policy": "browsing-topics=()",
}


def install(app: FastAPI) -> None:
    """Add the routes."""

    async def page(request: Request) -> Response:
        return answer(request, "index.html", "text/html; charset=utf-8", _PAGE_HEADERS)

    async def asset(request: Request) -> Response:
        found = _ASSETS.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        return answer(request, *found, {})

    def answer(request: Request, name: str, media_type: str, more: dict[str, str]) -> Response:
        content = fixed_file("gateway", "wallboard_page", *name.split("/"))
        # Revalidated each time, or a page would run with another version's scripts.
        return content.answer(request, media_type, {"cache-control": "no-cache", **more})

    for path, endpoint in ((PATH, page), (f"{PATH}/{{name}}", asset)):
        app.router.routes.append(Route(path, endpoint, methods=["GET"], include_in_schema=False))
