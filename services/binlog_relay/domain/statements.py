"""What a statement in the binlog does to the described tables; only a known form is harmless.

With binlog_format=ROW most statements in the binlog are definitions. A statement that may change
rows or columns of a described table without row events leads to a full run; so does every statement
of our schema whose meaning is not certain. Names are compared without case, which at worst requests
a full run too many.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Final, NamedTuple


class Loss(StrEnum):
    """Why rows may have changed without a readable row event."""

    STATEMENT_FORMAT = "statement_format"
    UNKNOWN_STATEMENT = "unknown_statement"
    XA_COMMIT = "xa_commit"


@dataclass(frozen=True, slots=True)
class Definition:
    """A change of a table's definition, which the binlog has as text only."""

    operation: str
    table: str


@dataclass(frozen=True, slots=True)
class Meaning:
    """The effects of a statement on the described tables; empty for a harmless one."""

    definitions: tuple[Definition, ...] = ()
    loss: Loss | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """The described tables of one schema, whose changes are published."""

    schema: str
    tables: Collection[str]
    _by_name: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {name.lower(): name for name in self.tables})

    def is_schema(self, name: str) -> bool:
        """Return whether `name` is the schema's name."""
        return name.lower() == self.schema.lower()

    def described(self, schema: str, table: str) -> str | None:
        """Return the description's name of a table, None for one that it does not have."""
        return self._by_name.get(table.lower()) if self.is_schema(schema) else None


class NotUnderstoodError(Exception):
    """The statement does not have the form that its first words announce."""


_HARMLESS: Final = Meaning()
_LONGEST: Final = 200_000
"""Characters of a statement that are read; longer ones are rows in statement format, not DDL."""
_ROUTINES: Final = frozenset({"DO", "SELECT", "CALL", "EXECUTE", "WITH", "BEGIN", "ANALYZE"})
"""Their text does not name what they write, so it may be in any schema."""
_WRITES: Final = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD"}) | _ROUTINES
_HARMLESS_VERBS: Final = frozenset({
    "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "GRANT", "REVOKE", "FLUSH", "INSTALL",
    "UNINSTALL", "PURGE", "UNLOCK",
})  # fmt: skip
_HARMLESS_SETS: Final = frozenset({"PASSWORD", "DEFAULT", "ROLE"})
_HARMLESS_OBJECTS: Final = frozenset({
    "VIEW", "TRIGGER", "PROCEDURE", "FUNCTION", "EVENT", "PACKAGE", "USER", "ROLE", "INDEX",
    "SERVER", "SEQUENCE", "TABLESPACE", "LOGFILE", "RESOURCE", "SPATIAL", "INSTANCE", "CATALOG",
})  # fmt: skip
_SCHEMAS: Final = frozenset({"DATABASE", "SCHEMA"})
_TABLES: Final = frozenset({"TABLE", "TABLES"})
# Words before the kind of object that do not change the statement's effect.
_ADJECTIVES: Final = frozenset({
    "OR", "REPLACE", "TEMPORARY", "ONLINE", "OFFLINE", "IGNORE", "AGGREGATE", "UNIQUE", "FULLTEXT",
    "VECTOR", "UNDO",
})  # fmt: skip
_MOVING: Final = frozenset({"RENAME", "EXCHANGE", "CONVERT"})
_FILLING: Final = frozenset({"SELECT", "TABLE", "VALUES", "WITH"})


def meaning_of(
    statement: str,
    scope: Scope,
    *,
    current_schema: str,
    written_schemas: Collection[str] = (),
    has_backslash_escapes: bool = True,
) -> Meaning:
    """Return what a statement event means for the described tables.

    `written_schemas` are the schemas that the event itself names, as MySQL's events do. Whether a
    backslash in a string escapes depends on the statement's settings (NO_BACKSLASH_ESCAPES).
    """
    parser = _StatementParser(statement[:_LONGEST], has_backslash_escapes)
    verb = ""
    try:
        parser.read()
        verb = parser.skip_settings()
        if len(statement) > _LONGEST:
            raise NotUnderstoodError
        return _read(verb, parser, scope, current_schema)
    except NotUnderstoodError:
        concerns_us = verb in _ROUTINES or scope.schema.lower() in statement.lower()
        if not concerns_us and not any(map(scope.is_schema, (current_schema, *written_schemas))):
            return _HARMLESS
        return Meaning(loss=Loss.STATEMENT_FORMAT if verb in _WRITES else Loss.UNKNOWN_STATEMENT)


def _read(verb: str, parser: "_StatementParser", scope: Scope, current_schema: str) -> Meaning:
    """Return the meaning of a statement of a known form; a branch for each verb.

    Raises NotUnderstoodError for every other statement.
    """
    if not verb and parser.is_over:
        return _HARMLESS
    if verb == "XA":
        # The rows of an XA transaction are logged when it is prepared, before they can be read.
        return Meaning(loss=Loss.XA_COMMIT) if parser.take("COMMIT") else _HARMLESS
    if verb in _HARMLESS_VERBS or (verb == "SET" and parser.peek() in _HARMLESS_SETS):
        return _HARMLESS
    if verb == "BEGIN" and (parser.is_over or parser.take("WORK")):
        return _HARMLESS
    if verb in ("ANALYZE", "OPTIMIZE"):
        parser.take("LOCAL", "NO_WRITE_TO_BINLOG")
        parser.must_take(*_TABLES)
        return _HARMLESS
    found: Iterator[tuple[str, _Name]]
    if verb == "TRUNCATE":
        found = parser.truncated()
    elif verb == "RENAME":
        found = parser.renamed()
    elif verb in ("CREATE", "ALTER", "DROP"):
        kind = parser.skip_adjectives()
        if kind in _HARMLESS_OBJECTS:
            return _HARMLESS
        if kind in _SCHEMAS:
            is_removed = verb == "DROP" or (verb == "CREATE" and "REPLACE" in parser.adjectives)
            if not is_removed:
                return _HARMLESS
            parser.take_if_exists()
            if not scope.is_schema(parser.name().table):
                return _HARMLESS
            return Meaning(tuple(Definition("drop-table", table) for table in scope.tables))
        if kind not in _TABLES:
            raise NotUnderstoodError
        productions = {"CREATE": parser.created, "ALTER": parser.altered, "DROP": parser.dropped}
        found = productions[verb]()
    else:
        raise NotUnderstoodError
    definitions = []
    for operation, name in found:
        table = scope.described(name.schema or current_schema, name.table)
        if table is not None:
            definitions.append(Definition(operation, table))
    return Meaning(tuple(dict.fromkeys(definitions)))


class _Name(NamedTuple):
    schema: str
    table: str


class _Token(NamedTuple):
    """`word` is a bare word in capitals, or a mark; `name` is the name that it may stand for."""

    word: str
    name: str


_MARKS_OF_QUOTES: Final = frozenset("`'\"")
_PATTERN: Final = r"""
    (?P<skipped> \s+ | \#[^\n]* | --(?=\s|\Z)[^\n]* | /\*(?!M?!).*?\*/ | /\*M?!\d* | \*/ )
  | (?P<name> `(?:[^`]|``)*` )
  | (?P<string> '(?:[^'{escape}]|''{escaped})*' | "(?:[^"{escape}]|""{escaped})*" )
  | (?P<word> [\w$]+ )
  | (?P<mark> [^`'"] )
"""
# The server executes the text in a comment like /*!50000 ... */, so it is read.
_PATTERNS: Final = {
    True: re.compile(_PATTERN.format(escape=r"\\", escaped=r"|\\."), re.VERBOSE | re.DOTALL),
    False: re.compile(_PATTERN.format(escape="", escaped=""), re.VERBOSE | re.DOTALL),
}


class _StatementParser:
    """Parses a statement: splits it into words, names and marks, and takes these in turn."""

    def __init__(self, statement: str, has_backslash_escapes: bool) -> None:
        self._statement = statement
        self._pattern = _PATTERNS[has_backslash_escapes]
        self._tokens: list[_Token] = []
        self._at = 0
        self.adjectives: set[str] = set()

    def read(self) -> None:
        """Split the statement; raises NotUnderstoodError for a quote that has no end."""
        position = 0
        while position < len(self._statement):
            match = self._pattern.match(self._statement, position)
            if match is None:
                raise NotUnderstoodError
            position = match.end()
            if match.lastgroup != "skipped":
                text = match[0]
                quote = text[0]
                if quote in _MARKS_OF_QUOTES:
                    # With ANSI_QUOTES names stand in double quotes; an account's parts in any kind.
                    self._tokens.append(_Token("", text[1:-1].replace(quote * 2, quote)))
                else:
                    name = text if match.lastgroup == "word" else ""
                    self._tokens.append(_Token(text.upper(), name))
        while self._tokens and self._tokens[-1].word == ";":
            self._tokens.pop()

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._tokens)

    def peek(self) -> str:
        return "" if self.is_over else self._tokens[self._at].word

    def rest(self) -> list[_Token]:
        return self._tokens[self._at :]

    def take(self, *words: str) -> str:
        """Take one of the words; an empty text when something else comes next."""
        word = self.peek()
        if not word or word not in words:
            return ""
        self._at += 1
        return word

    def word(self) -> str:
        """Take a bare word or a mark; an empty text when a quoted name or nothing comes next."""
        return self.take(self.peek())

    def must_take(self, *words: str) -> None:
        if not self.take(*words):
            raise NotUnderstoodError

    def must_end(self) -> None:
        if not self.is_over:
            raise NotUnderstoodError

    def name(self) -> _Name:
        first = self._part()
        return _Name(first, self._part()) if self.take(".") else _Name("", first)

    def _part(self) -> str:
        found = "" if self.is_over else self._tokens[self._at].name
        if not found:
            raise NotUnderstoodError
        self._at += 1
        return found

    def take_if_exists(self) -> None:
        if self.take("IF"):
            self.take("NOT")
            self.must_take("EXISTS")

    def skip_wait(self) -> None:
        if self.take("WAIT"):
            self._part()
        else:
            self.take("NOWAIT")

    def skip_settings(self) -> str:
        """Take the verb, after MariaDB's optional `SET STATEMENT variable=value FOR`."""
        verb = self.word()
        while verb == "SET" and self.take("STATEMENT"):
            while not self.take("FOR"):
                if self.is_over:
                    raise NotUnderstoodError
                self._at += 1
            verb = self.word()
        return verb

    def skip_adjectives(self) -> str:
        """Take the kind of object that is created, altered or dropped, and the words before it."""
        while True:
            word = self.word()
            if word in _ADJECTIVES:
                self.adjectives.add(word)
            elif word in ("DEFINER", "ALGORITHM"):
                self.must_take("=")
                self._skip_value()
            elif word == "SQL":
                self.must_take("SECURITY")
                self._skip_value()
            else:
                return word

    def _skip_value(self) -> None:
        """Skip a word, or an account such as `user`@`host` or CURRENT_USER()."""
        self._part()
        if self.take("@"):
            self._part()
        if self.take("("):
            self.must_take(")")

    def truncated(self) -> Iterator[tuple[str, _Name]]:
        """Yield the table of TRUNCATE."""
        self.take("TABLE")
        yield "truncate-table", self.name()
        self.skip_wait()
        self.must_end()

    def renamed(self) -> Iterator[tuple[str, _Name]]:
        """Yield both names of each table of RENAME TABLE."""
        if self.take("USER"):
            return
        self.must_take(*_TABLES)
        self.take_if_exists()
        while True:
            yield "rename-table", self.name()
            self.skip_wait()
            self.must_take("TO")
            yield "rename-table", self.name()
            if not self.take(","):
                break
        self.must_end()

    def dropped(self) -> Iterator[tuple[str, _Name]]:
        """Yield the tables of DROP TABLE."""
        if "TEMPORARY" in self.adjectives:
            return
        self.take_if_exists()
        while True:
            yield "drop-table", self.name()
            if not self.take(","):
                break
        self.take("RESTRICT", "CASCADE")
        self.skip_wait()
        self.must_end()

    def altered(self) -> Iterator[tuple[str, _Name]]:
        """Yield the table, and each name where another table may take part, as a partition's."""
        self.take_if_exists()
        name = self.name()
        rest = self.rest()
        is_moving = any(each.word in _MOVING for each in rest)
        is_renamed = any(
            each.word == "RENAME" and after.word not in ("COLUMN", "INDEX", "KEY")
            for each, after in pairwise(rest)
        )
        yield "rename-table" if is_renamed else "change-columns", name
        for number, token in enumerate(rest if is_moving else []):
            if token.name:
                is_qualified = number >= 2 and rest[number - 1].word == "."
                schema = rest[number - 2].name if is_qualified else ""
                yield "rename-table", _Name(schema, token.name)

    def created(self) -> Iterator[tuple[str, _Name]]:
        """Yield the table of CREATE TABLE, unless it is temporary."""
        if "TEMPORARY" in self.adjectives:
            return
        self.take_if_exists()
        name = self.name()
        if "REPLACE" in self.adjectives:
            yield "drop-table", name
        elif any(each.word in _FILLING for each in self.rest()):
            # In row format the rows follow as events, and the statement shows the columns only.
            yield "change-columns", name
        else:
            yield "create-table", name
