"""The wallboard at /wallboard: fixed files of this package; everything else comes over the API."""

from functools import cache
from importlib.resources import files

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route

from gateway.fixed_content import FixedContent, fixed

PATH = "/wallboard"
_FOLDER = "wallboard_page"

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
# No inline script or style, nothing from elsewhere, and no text ever parsed as HTML.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def install(app: FastAPI) -> None:
    """Add the routes."""
    for path, endpoint in ((PATH, _page), (f"{PATH}/{{name}}", _asset)):
        app.router.routes.append(Route(path, endpoint, methods=["GET"], include_in_schema=False))


async def _page(request: Request) -> Response:
    policy = {"content-security-policy": _POLICY, "permissions-policy": "browsing-topics=()"}
    return _answer(request, "index.html", "text/html; charset=utf-8", policy)


async def _asset(request: Request) -> Response:
    found = _ASSETS.get(request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    return _answer(request, *found, {})


def _answer(request: Request, name: str, media_type: str, more: dict[str, str]) -> Response:
    # Asked for anew each time, or a page would run with another version's scripts.
    headers = {"cache-control": "no-cache", **more}
    return _content(name).answer(request, media_type, headers)


@cache
def _content(name: str) -> FixedContent:
    return fixed((files("gateway") / _FOLDER / name).read_bytes())
