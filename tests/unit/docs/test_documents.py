"""What the documents name exists: links, files, commands, settings, metrics, paths of the API."""

import fnmatch
import importlib
import importlib.util
import json
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

import gateway
import servicekit
import services

ROOT = Path(__file__).parents[3]
_FOLDERS = (
    *("bench", "clients", "deploy", "devstack", "docs", "examples", "gateway", "gen", "mainapp"),
    *("protos", "servicekit", "services", "simulation", "tests"),
)
# Decisions and the changelog tell of the past: only their links must hold.
_OF_THE_PAST = ("docs/decisions/*", "CHANGELOG.md")


def _documents() -> Iterator[str]:
    for path in ROOT.rglob("*.md"):
        name = path.relative_to(ROOT).as_posix()
        if not re.search(r"(^|/)(node_modules|\.[^/]+|dist)/", name):
            yield name


DOCUMENTS = sorted(_documents())
PRESENT = [name for name in DOCUMENTS if not any(fnmatch.fnmatch(name, it) for it in _OF_THE_PAST)]

_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_MAKE = re.compile(r"\bmake ([a-z][a-z0-9-]*)((?: [A-Z_]+=\S+)*)")
_PYTHON = re.compile(r"\bpython3? -m ([\w.]+)")
_PREFIX = r"(?:QUEUE|USER_CONTEXT|CDC_INGEST|RECONCILER|BINLOG_RELAY|GATEWAY)_"
_SETTING = re.compile(rf"\b{_PREFIX}[A-Z0-9_]+\b")
# Kubernetes would set it by itself.
_OF_KUBERNETES = {"QUEUE_PORT"}
_METRIC = re.compile(r"\bdialler_[a-z0-9_]+\b(?!\.)")
_REQUEST = re.compile(r"\b(GET|POST|PUT|PATCH|DELETE) (/[\w/{}.-]*)")


@cache
def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _commands(name: str) -> Iterator[str]:
    """Code blocks and code spans; everything else is prose."""
    text = _text(name)
    yield from _CODE.findall(text)
    yield from _SPAN.findall(_CODE.sub("", text))


def _anchor(heading: str) -> str:
    plain = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    prose = _SPAN.sub("", _CODE.sub("", _text(name)))
    for target in _LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if anchor:
            headings = _HEADING.findall(path.read_text(encoding="utf-8"))
            assert anchor in map(_anchor, headings), target


@pytest.mark.parametrize("name", PRESENT)
def test_every_file_is_there(name: str) -> None:
    """A path begins with a folder of the project, or with the document's own."""
    missing = [it for it in _paths(name) if not _is_there(name, it)]
    assert not missing


def _paths(name: str) -> Iterator[str]:
    for span in _SPAN.findall(_CODE.sub("", _text(name))):
        for word in re.split(r"[\s,]+", span):
            path = word.rstrip(":.;)")
            is_ours = path.split("/")[0] in _FOLDERS and "/" in path
            is_file = re.fullmatch(r"[\w./*-]+\.(py|yaml|proto|sql|md|sh|json|toml|ts|tsx)", path)
            if (
                (is_ours or is_file)
                and not path.startswith("/")
                and re.fullmatch(r"[\w./*{},-]+", path)
            ):
                yield path


def _is_there(name: str, path: str) -> bool:
    bases = (ROOT, (ROOT / name).parent)
    if any(any(base.glob(path)) for base in bases):
        return True
    # A file named alone, in a folder of the document's, or in one that the document names.
    return "/" not in path and any(any(folder.rglob(path)) for folder in _folders(name))


@cache
def _folders(name: str) -> set[Path]:
    own = (ROOT / name).parent
    named = {ROOT / it for it in _paths(name) if "/" in it and "*" not in it}
    linked = {own / it.partition("#")[0] for it in _LINK.findall(_text(name))}
    found = {it if it.is_dir() else it.parent for it in named | linked if it.exists()}
    return found - {ROOT, own.parent} | ({own} - {ROOT})


@pytest.mark.parametrize("name", PRESENT)
def test_every_command_exists(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    for code in _commands(name):
        for target, variables in _MAKE.findall(code):
            assert target in targets
            for variable in re.findall(r"([A-Z_]+)=", variables):
                assert re.search(rf"\b{variable}\b", makefile), variable
        for module in _PYTHON.findall(code):
            assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("name", PRESENT)
def test_every_setting_exists(name: str) -> None:
    known = set(_SETTING.findall(_text("docs/configuration.md")))
    assert len(known) > 100
    contracts = (path.read_text(encoding="utf-8") for path in ROOT.glob("protos/**/*.proto"))
    known |= {it for text in contracts for it in _SETTING.findall(text)} | _OF_KUBERNETES
    unknown = {
        it
        for code in _commands(name)
        for it in _SETTING.findall(code)
        if it not in known and not _is_prefix(it, known)
    }
    assert not unknown


def _is_prefix(written: str, known: set[str]) -> bool:
    return written.endswith("_") and any(it.startswith(written) for it in known)


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    """The names of every time series of the services, and of their families."""
    for package in (servicekit, services, gateway):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not re.search(r"__main__|\.migrations|\.env$", module.name):
                importlib.import_module(module.name)
    known: set[str] = set()
    for family in REGISTRY.collect():
        known |= {family.name + it for it in ("", "_total", "_bucket", "_sum", "_count")}
    return known


@pytest.mark.parametrize("name", PRESENT)
def test_every_metric_exists(name: str, metrics: set[str]) -> None:
    written = {it for code in _commands(name) for it in _METRIC.findall(code)}
    assert not {it for it in written if it not in metrics and not _is_prefix(it, metrics)}


@pytest.mark.parametrize("name", PRESENT)
def test_every_path_of_the_api_exists(name: str) -> None:
    paths = json.loads(_text("clients/typescript/openapi.json"))["paths"]
    known = [
        (method.upper(), re.compile(re.sub(r"\{[^}]*\}", r"[^/]+", path)))
        for path, methods in paths.items()
        for method in methods
    ]
    assert len(known) > 40
    written = {
        (method, path.rstrip("."))
        for code in _commands(name)
        for method, path in _REQUEST.findall(code)
        if path.startswith("/v1/")
    }
    unknown = {
        (method, path)
        for method, path in written
        if not any(method == other and shape.fullmatch(path) for other, shape in known)
    }
    assert not unknown
