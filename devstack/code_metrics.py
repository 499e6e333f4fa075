"""`make metrics`: the figures of house rule 11, and the lists of what to mend.

python -m devstack.code_metrics [ROOTS]            the figures
python -m devstack.code_metrics --crumbs [PATHS]   private functions with exactly one caller
python -m devstack.code_metrics --imports [PATHS]  files with too many imports
python -m devstack.code_metrics --classes [PATHS]  class names that stand for several classes
python -m devstack.code_metrics --words [PATHS]    words that `devstack/vocabulary.yaml` replaces
python -m devstack.code_metrics --check            fail when a class name or a word relapses
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.replaced_words import is_within, read_vocabulary, replaced_words

PRODUCTION = ("services", "gateway", "servicekit", "mainapp")
LONG_FUNCTION_LINES = 50
LONG_FILE_LINES = 500
SHORT_FILE_LINES = 60
MOST_IMPORTS = 7

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class SourceFile:
    """A Python file, read and parsed."""

    path: str
    lines: int
    tree: ast.Module


@dataclass(frozen=True)
class Function:
    """A function or method, with its length in lines, docstring included."""

    place: str
    name: str
    lines: int


@dataclass(frozen=True)
class Crumb:
    """A private function with exactly one caller: often clearer where it is called."""

    function: Function
    caller: str


def source_files(root: Path, paths: Sequence[str]) -> list[SourceFile]:
    """Return the Python files below ``paths``, which are relative to ``root``."""
    found: set[Path] = set()
    for each in paths:
        path = root / each
        found.update([path] if path.is_file() else path.rglob("*.py"))
    return [_source_file(root, path) for path in sorted(found)]


def functions(file: SourceFile) -> list[Function]:
    """Return all functions of a file, methods and nested ones too."""
    return [
        Function(f"{file.path}:{node.lineno}", node.name, _length(node))
        for node in ast.walk(file.tree)
        if isinstance(node, FunctionNode)
    ]


def crumbs(file: SourceFile) -> list[Crumb]:
    """Return the private functions that the file refers to exactly once, outside themselves.

    A function is referred to by its bare name, a method as an attribute of anything
    (`self._x`, `cls._x`, `other._x`); handing it over as a callback counts. `self._x` in a class
    that defines its own `_x` does not count for another class's. Other files are not
    searched: private names are not imported from one file into another.
    """
    names = _Names()
    names.visit(file.tree)
    found = []
    for scope, node in names.functions:
        callers = [each for each in names.references[node.name] if _is_caller(each, scope, node)]
        if _is_private(node.name) and len(callers) == 1:
            function = Function(f"{file.path}:{node.lineno}", node.name, _length(node))
            found.append(Crumb(function, _scope_name(callers[0].scope)))
    return found


def import_statements(file: SourceFile) -> int:
    """Return how many `import` and `from ... import` statements a file has.

    One statement counts once however many names it brings in; those inside functions and under
    `TYPE_CHECKING`, and `from __future__`, count as well. The mean is over all files, those
    without a single import too.
    """
    return sum(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(file.tree))


# One thing, as a service has it and as the gateway's JSON shows it: one name is right for both.
SHOWN_BY_GATEWAY = frozenset(
    [
        "Agent",
        "Assignment",
        "Attempt",
        "AuditEntry",
        "Call",
        "CallEventKind",
        "Callback",
        "CallbackRule",
        "CallbackState",
        "Complaint",
        "Conversion",
        "DeadLetter",
        "DriftKind",
        "Factor",
        "Freshness",
        "FreshnessMode",
        "Hold",
        "Outcome",
        "QueuePause",
        "Presence",
        "Rebuild",
        "RunKind",
        "RunPhase",
        "RunState",
        "Suppression",
    ]
)


def repeated_classes(files: list[SourceFile]) -> dict[str, list[str]]:
    """Return each class name that stands for more than one thing, with its places.

    A class of one service and the gateway's JSON of the same thing (`SHOWN_BY_GATEWAY`) may share
    their name.
    """
    places: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        for node in ast.walk(file.tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{file.path}:{node.lineno}")
    return {
        name: places[name]
        for name in sorted(places)
        if len(places[name]) > 1 and not _is_one_thing(name, places[name])
    }


def _is_one_thing(name: str, places: list[str]) -> bool:
    shown = [each for each in places if each.startswith("gateway/resources/")]
    return name in SHOWN_BY_GATEWAY and len(shown) == 1 and len(places) == 2


def main(arguments: list[str], root: Path = Path()) -> int:
    """Print the figures or one list; return 1 when `--check` finds something.

    Paths are relative to ``root``, the project's folder.
    """
    options = _options(arguments, root)
    paths = [Path(each).as_posix() for each in options.paths]
    lines = _report(options.list, paths, root)
    for line in lines:
        print(line)
    return 1 if lines and options.list == "check" else 0


def _report(name: str | None, paths: list[str], root: Path) -> list[str]:
    match name:
        case "crumbs":
            return _crumb_lines(source_files(root, paths or PRODUCTION))
        case "imports":
            return _import_lines(source_files(root, paths or PRODUCTION))
        case "classes":
            return _class_lines(source_files(root, PRODUCTION), paths)
        case "words":
            return _word_lines(root, paths)
        case "check":
            return _class_lines(source_files(root, PRODUCTION), []) + _word_lines(root, [])
    words = len(_word_lines(root, []))
    return [
        *_figure_lines(source_files(root, paths or PRODUCTION)),
        f"words in code and documents that the vocabulary replaces: {words} (aim: 0)",
    ]


def _options(arguments: list[str], root: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The figures of house rule 11.")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="folders and files to look at")
    lists = parser.add_mutually_exclusive_group()
    for name, meaning in (
        ("crumbs", "list private functions with exactly one caller"),
        ("imports", f"list files with over {MOST_IMPORTS} import statements"),
        ("classes", "list class names that stand for several classes"),
        ("words", "list words that the vocabulary replaces, and what to use instead"),
        ("check", "fail, with the list, when there is such a class name or word"),
    ):
        lists.add_argument(f"--{name}", dest="list", action="store_const", const=name, help=meaning)
    options = parser.parse_args(arguments)
    for path in options.paths:
        if not (root / path).exists():
            parser.error(f"there is no {path} here")
    return options


def _figure_lines(files: list[SourceFile]) -> Iterator[str]:
    """Yield each figure with its aim, and below it the places that are over a limit."""
    measured = sorted((each for file in files for each in functions(file)), key=_length_of)
    if not measured:
        yield "no functions"
        return
    count = len(measured)
    over = [each for each in reversed(measured) if each.lines > LONG_FUNCTION_LINES]
    single = sum(len(crumbs(file)) for file in files)
    imports = statistics.mean(import_statements(file) for file in files)
    short = sum(file.lines < SHORT_FILE_LINES for file in files)
    yield f"functions: {count}"
    yield f"  half have at most {measured[count // 2].lines} lines (aim: about 10)"
    yield f"  9 in 10 have at most {measured[int(0.9 * (count - 1))].lines} lines (aim: under 35)"
    yield f"  over {LONG_FUNCTION_LINES} lines: {_share(len(over), count)} (aim: under 5 %)"
    yield from (f"    {each.lines:4} {each.place} {each.name}" for each in over)
    yield f"  private with exactly one caller: {_share(single, count)} (aim: under 10 %)"
    yield f"files: {len(files)}, lines: {sum(file.lines for file in files)}"
    yield f"  import statements in a file, on average: {imports:.1f} (aim: at most {MOST_IMPORTS})"
    yield f"  under {SHORT_FILE_LINES} lines: {_share(short, len(files))}"
    long = [file for file in files if file.lines > LONG_FILE_LINES]
    yield f"  over {LONG_FILE_LINES} lines: {len(long)} (aim: 0)"
    yield from (f"    {file.lines:4} {file.path}" for file in long)
    yield f"class names that stand for several classes: {len(repeated_classes(files))} (aim: 0)"


def _crumb_lines(files: list[SourceFile]) -> list[str]:
    return [
        f"{each.function.place}: {each.function.name}, {each.function.lines} lines,"
        f" called by {each.caller}"
        for file in files
        for each in crumbs(file)
    ]


def _import_lines(files: list[SourceFile]) -> list[str]:
    counted = sorted(((import_statements(file), file.path) for file in files), reverse=True)
    return [f"{count:4} {path}" for count, path in counted if count > MOST_IMPORTS]


def _class_lines(files: list[SourceFile], within: list[str]) -> list[str]:
    """Return a line for each repeated class name, if one of its places lies ``within``."""
    return [
        f"class {name}: {', '.join(places)}"
        for name, places in repeated_classes(files).items()
        if not within or any(is_within(each.split(":")[0], within) for each in places)
    ]


def _word_lines(root: Path, within: list[str]) -> list[str]:
    return [
        f"{each.path}:{each.line}: {each.word} -> {each.use}"
        for each in replaced_words(root, read_vocabulary(), within)
    ]


@dataclass(frozen=True)
class _Reference:
    """A name that is read: bare, or as an attribute of something."""

    name: str
    scope: tuple[ast.AST, ...]
    owner: str | None  # what it is an attribute of: "self", "cls", or "" for anything else


class _Names(ast.NodeVisitor):
    """Collects a file's functions and references, each with the definitions that it is inside."""

    def __init__(self) -> None:
        self._scope: tuple[ast.AST, ...] = ()
        self.functions: list[tuple[tuple[ast.AST, ...], FunctionNode]] = []
        self.references: defaultdict[str, list[_Reference]] = defaultdict(list)

    def visit_FunctionDef(self, node: FunctionNode) -> None:
        self.functions.append((self._scope, node))
        self._inside(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._inside(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.references[node.id].append(_Reference(node.id, self._scope, None))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        base = node.value.id if isinstance(node.value, ast.Name) else ""
        owner = base if base in ("self", "cls") else ""
        self.references[node.attr].append(_Reference(node.attr, self._scope, owner))
        self.generic_visit(node)

    def _inside(self, node: ast.AST) -> None:
        outer = self._scope
        self._scope = (*outer, node)
        self.generic_visit(node)
        self._scope = outer


def _is_caller(reference: _Reference, scope: tuple[ast.AST, ...], node: FunctionNode) -> bool:
    """Whether a reference by a function's name means this function, and from outside it."""
    if node in reference.scope:
        return False
    is_method = bool(scope) and isinstance(scope[-1], ast.ClassDef)
    if not is_method:
        return reference.owner is None
    if reference.owner in ("self", "cls"):
        classes = [each for each in reference.scope if isinstance(each, ast.ClassDef)]
        return not classes or classes[-1] is scope[-1] or not _defines(classes[-1], node.name)
    return reference.owner is not None or reference.scope == scope


def _defines(node: ast.ClassDef, name: str) -> bool:
    return any(isinstance(each, FunctionNode) and each.name == name for each in node.body)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _scope_name(scope: tuple[ast.AST, ...]) -> str:
    names = [each.name for each in scope if isinstance(each, FunctionNode | ast.ClassDef)]
    return ".".join(names) or "the module itself"


def _source_file(root: Path, path: Path) -> SourceFile:
    text = path.read_text(encoding="utf-8")
    return SourceFile(path.relative_to(root).as_posix(), text.count("\n"), ast.parse(text))


def _length(node: FunctionNode) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def _share(part: int, whole: int) -> str:
    return f"{part}, {part / whole:.1%}"


def _length_of(function: Function) -> int:
    return function.lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
