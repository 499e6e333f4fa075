"""`make metrics`: lengths of functions and files, as house rule 11 measures them."""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

LONG_FUNCTION_LINES = 50
LONG_FILE_LINES = 500


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each function of a file with its length in lines, docstring included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1


def main() -> int:
    """Print the distribution and whatever is over the limits."""
    files = sorted(path for root in sys.argv[1:] for path in Path(root).rglob("*.py"))
    lengths = dict(entry for path in files for entry in functions(path))
    ordered = sorted(lengths.values())
    print(f"{len(files)} files, {len(ordered)} functions")
    print(f"median {statistics.median(ordered):.0f} lines, 9 in 10 up to {_nth(ordered, 0.9)}")
    over = {name: length for name, length in lengths.items() if length > LONG_FUNCTION_LINES}
    print(f"over {LONG_FUNCTION_LINES} lines: {len(over)} ({len(over) / len(ordered):.1%})")
    for name, length in sorted(over.items(), key=lambda each: -each[1]):
        print(f"  {length:4} {name}")
    for path in files:
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > LONG_FILE_LINES:
            print(f"  {lines:4} {path} (file)")
    return 0


def _nth(ordered: list[int], share: float) -> int:
    return ordered[int(share * (len(ordered) - 1))]


if __name__ == "__main__":
    sys.exit(main())
