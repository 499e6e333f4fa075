"""Finds the words of ``vocabulary.yaml`` that are still in code and documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from os import walk
from pathlib import Path

import yaml

VOCABULARY = Path(__file__).with_name("vocabulary.yaml")
SUFFIXES = frozenset(
    {".py", ".proto", ".md", ".yaml", ".sql", ".sh", ".ts", ".tsx", ".js", ".html"}
)
FOREIGN_FOLDERS = frozenset({"node_modules", "__pycache__", "dist"})

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# Between two words of a phrase: also a line's end, with the next line's comment sign.
_GAP = r"\s+(?:(?:#|//|--|\*) *)?"
# Fenced blocks, backticks, double quotes; the latter two over at most one line's end.
_QUOTATION = re.compile(
    r'```.*?```|`[^`\n]+(?:\n[^`\n|]+)?`|"[^"\n]*(?:\n[^"\n|]+)?"|“[^”]*”', re.DOTALL
)
_PROTO_NAME = re.compile(
    r"\b(?:message|enum|rpc|service|oneof)\s+(?P<type>\w+)|(?P<field>\w+)\s*=\s*\d+"
)


class Where(StrEnum):
    """What an entry is looked for in."""

    ANYWHERE = "anywhere"
    NAMES = "names"


@dataclass(frozen=True)
class Entry:
    """Words that a standard term replaces, and the paths that this holds for."""

    pattern: str
    use: str
    where: Where
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """All entries, and the paths, or parts of paths, and names that none of them holds for."""

    entries: tuple[Entry, ...]
    left_out: tuple[str, ...]
    public_names: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """One word to replace."""

    path: str
    line: int
    word: str
    use: str


def read_vocabulary(path: Path = VOCABULARY) -> Vocabulary:
    """Return the vocabulary that a YAML file holds."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    entries = tuple(
        Entry(
            pattern="|".join(word.replace(" ", _GAP) for word in each["words"]),
            use=each["use"],
            where=Where(each["where"]),
            paths=tuple(each.get("paths", content["paths"])),
        )
        for each in content["entries"]
    )
    return Vocabulary(entries, tuple(content["left_out"]), tuple(content["public_names"]))


def replaced_words(root: Path, vocabulary: Vocabulary, within: list[str]) -> list[Finding]:
    """Return what is left to replace below ``root``, or in its folders and files ``within``."""
    found: list[Finding] = []
    for path in _files(root, vocabulary):
        if within and not is_within(path, within):
            continue
        entries = [each for each in vocabulary.entries if is_within(path, each.paths)]
        text = (root / path).read_text(encoding="utf-8")
        for name in vocabulary.public_names:
            text = text.replace(name, "public_name")
        found += sorted(_in_file(text, path, entries), key=lambda each: each.line)
    return found


def is_within(path: str, prefixes: list[str] | tuple[str, ...]) -> bool:
    """Whether ``path`` is one of the files, or lies in one of the folders, of ``prefixes``."""
    return any(path == each or path.startswith(f"{each.rstrip('/')}/") for each in prefixes)


def _files(root: Path, vocabulary: Vocabulary) -> list[str]:
    """Return the paths of all files that an entry may hold for, in order."""
    found: set[Path] = set()
    for top in {each for entry in vocabulary.entries for each in entry.paths}:
        if (root / top).is_file():
            found.add(root / top)
        for folder, folders, names in walk(root / top):
            folders[:] = [each for each in folders if not _is_foreign(each)]
            found.update(Path(folder) / each for each in names if Path(each).suffix in SUFFIXES)
    paths = sorted(each.relative_to(root).as_posix() for each in found)
    return [each for each in paths if not _is_left_out(each, vocabulary)]


def _is_left_out(path: str, vocabulary: Vocabulary) -> bool:
    return any(f"/{each}/" in f"/{path}/" for each in vocabulary.left_out)


def _is_foreign(folder: str) -> bool:
    return folder in FOREIGN_FOLDERS or folder.startswith(".")


def _in_file(text: str, path: str, entries: list[Entry]) -> Iterator[Finding]:
    file = Path(path)
    if file.suffix == ".md":
        text = _QUOTATION.sub(lambda quoted: re.sub(r"[^\n]", '"', quoted[0]), text)
    anywhere = [each for each in entries if each.where is Where.ANYWHERE]
    for line, word, use in _matches(text, anywhere):
        yield Finding(path, line, word, use)
    module = file.parent.name if file.stem == "__init__" else file.stem
    for _, word, use in _matches(module, entries):
        yield Finding(path, 1, f"{word} (the file's name)", use)
    names = [each for each in entries if each.where is Where.NAMES]
    if not names:
        return
    for line, name in sorted(_defined_names(file.suffix, text)):
        for _, word, use in _matches(name, names):
            yield Finding(path, line, f"{word} (in {name})", use)


def _matches(text: str, entries: list[Entry]) -> Iterator[tuple[int, str, str]]:
    """Yield each match's line, the word and what to use; names are read word by word."""
    if not entries:
        return
    alternatives = "|".join(f"(?P<e{i}>{each.pattern})" for i, each in enumerate(entries))
    words = _WORD_STARTS.sub(" ", text.replace("_", " "))
    line, counted = 1, 0
    for match in re.finditer(rf"\b(?:{alternatives})\b", words, re.IGNORECASE):
        line += words.count("\n", counted, match.start())
        counted = match.start()
        entry = entries[int((match.lastgroup or "e0")[1:])]
        yield line, " ".join(match[0].split()), entry.use


def _defined_names(suffix: str, text: str) -> set[tuple[int, str]]:
    """Return the names that a Python file or a contract defines, with their lines."""
    if suffix == ".proto":
        lines = enumerate((each.split("//")[0] for each in text.split("\n")), start=1)
        return {
            (i, name[name.lastgroup or 0])
            for i, line in lines
            for name in _PROTO_NAME.finditer(line)
        }
    if suffix == ".py":
        return set(_python_names(ast.parse(text)))
    return set()


def _python_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.end_lineno or node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name
