"""Where a transaction ends, and what a statement in the binlog means.

Positions may be saved only between transactions: the description of a table precedes the row
events of a statement, and whoever starts reading in between never gets it.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, StrEnum

_NAME = r"(?:`(?:[^`]|``)+`|[\w$]+)"
_TABLE = rf"({_NAME})(?:\s*\.\s*({_NAME}))?"
_COMMENT = re.compile(r"\A\s*(?:/\*(?!M?!).*?\*/|--[^\n]*\n|#[^\n]*\n)", re.DOTALL)
_FIRST_WORD = re.compile(r"\A\s*(?:/\*M?![0-9]*\s*)?([A-Za-z]+)")
_WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD"})
_ENDS = (["COMMIT"], ["ROLLBACK"])
_DEFINITIONS = (
    (re.compile(rf"TRUNCATE\s+(?:TABLE\s+)?{_TABLE}", re.I), "truncate-table"),
    (
        re.compile(r"RENAME\s+TABLES?\s+(?:IF\s+EXISTS\s+)?(?P<list>.*)", re.I | re.S),
        "rename-table",
    ),
    (
        re.compile(
            r"DROP\s+(?:TEMPORARY\s+)?TABLES?\s+(?:IF\s+EXISTS\s+)?(?P<list>.*)", re.I | re.S
        ),
        "drop-table",
    ),
    (
        re.compile(rf"ALTER\s+(?:\w+\s+){{0,2}}?TABLE\s+(?:IF\s+EXISTS\s+)?{_TABLE}", re.I),
        "change-columns",
    ),
    (
        re.compile(
            rf"CREATE\s+(?:OR\s+REPLACE\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{_TABLE}", re.I
        ),
        "create-table",
    ),
)
_RENAMING_ALTER = re.compile(
    rf"\bRENAME\s+(?:TO\s+|AS\s+)?(?!COLUMN\b|INDEX\b|KEY\b){_TABLE}", re.I
)


class Effect(Enum):
    """What a statement event does to the transaction it stands in."""

    BEGINS = "begins"
    ENDS = "ends"
    NONE = "none"


_XA_EFFECTS = {
    "START": Effect.BEGINS,
    "BEGIN": Effect.BEGINS,
    "COMMIT": Effect.ENDS,
    "ROLLBACK": Effect.ENDS,
}


@dataclass(frozen=True, slots=True)
class Definition:
    """A change of a table itself, which the binlog tells as text only."""

    operation: str
    table: str


class Boundary:
    """Tracks whether reading is between transactions."""

    def __init__(self) -> None:
        self.is_inside = False

    def begin(self) -> None:
        """A transaction has begun."""
        self.is_inside = True

    def end(self) -> None:
        """The transaction is over."""
        self.is_inside = False

    def pass_statement(self, statement: str) -> bool:
        """Take note of a statement event; return whether the place after it may be saved."""
        effect = effect_of(statement)
        if effect is Effect.BEGINS:
            self.begin()
        elif effect is Effect.ENDS:
            self.end()
        return not self.is_inside


class Loss(StrEnum):
    """Why rows may have changed without a row event that we can read."""

    STATEMENT_FORMAT = "statement_format"
    XA_COMMIT = "xa_commit"


def effect_of(statement: str) -> Effect:
    """Return how a statement event bounds its transaction."""
    words = [word.upper() for word in statement.rstrip("; \n").split(None, 3)]
    if words[:1] == ["BEGIN"] or statement.rstrip("; \n").upper().endswith("START TRANSACTION"):
        return Effect.BEGINS
    if words[:1] == ["XA"]:
        return _XA_EFFECTS.get(words[1], Effect.NONE)
    is_partial = words[:1] == ["ROLLBACK"] and "TO" in words[1:3]
    return Effect.ENDS if words[:1] in _ENDS and not is_partial else Effect.NONE


def loss_of(statement: str, current_schema: str, schema: str) -> Loss | None:
    """Return why a statement event may hide changes of rows in `schema`; None when it cannot."""
    first = _first_word(statement)
    if first in _WRITES:
        is_ours = current_schema == schema or schema.lower() in statement.lower()
        return Loss.STATEMENT_FORMAT if is_ours else None
    # The rows of an XA transaction are logged when it is prepared, before anyone can read them.
    is_commit = first == "XA" and statement.split(None, 2)[1].upper() == "COMMIT"
    return Loss.XA_COMMIT if is_commit else None


def definitions_of(
    statement: str, current_schema: str, schema: str, tables: Collection[str]
) -> list[Definition]:
    """Return what the statement does to the given tables of `schema`."""
    bare = _without_comments(statement)
    for pattern, operation in _DEFINITIONS:
        match = pattern.match(bare)
        if match is None:
            continue
        names = _listed(match["list"]) if "list" in match.groupdict() else [match.groups()]
        if operation == "change-columns" and (renamed := _RENAMING_ALTER.search(bare)):
            operation, names = "rename-table", [*names, renamed.groups()]
        found = (_qualified(name, current_schema) for name in names)
        return [
            Definition(operation, table)
            for table_schema, table in dict.fromkeys(found)
            if table_schema == schema and table in tables
        ]
    return []


def _listed(text: str) -> list[tuple[str | None, ...]]:
    separated = re.split(r"\s*,\s*|\s+TO\s+", text.strip(" ;\n\t"), flags=re.I)
    matches = (re.match(_TABLE, part.strip()) for part in separated)
    return [match.groups() for match in matches if match is not None]


def _qualified(name: tuple[str | None, ...], current_schema: str) -> tuple[str, str]:
    first, second = name[0] or "", name[1]
    if second is None:
        return current_schema, _unquoted(first)
    return _unquoted(first), _unquoted(second)


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name


def _without_comments(statement: str) -> str:
    bare = statement
    while match := _COMMENT.match(bare):
        bare = bare[match.end() :]
    return re.sub(r"\s*/\*(?!M?!).*?\*/\s*", " ", bare, flags=re.S).strip()


def _first_word(statement: str) -> str:
    match = _FIRST_WORD.match(_without_comments(statement))
    return match[1].upper() if match else ""
