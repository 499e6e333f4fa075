"""Loads and validates the description of the main app."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class ColumnType(StrEnum):
    """The form of a column's values in messages and contexts."""

    UINT64 = "uint64"
    UUID = "uuid"
    TEXT = "text"
    BOOL = "bool"
    DATE = "date"
    TIMESTAMP = "timestamp"
    DECIMAL = "decimal"
    JSON = "json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Column(_Frozen):
    """A column that is read. ``name_with_us`` is set where the dialler has another name for it."""

    type: ColumnType
    name_with_us: str | None = Field(default=None, alias="as")


def _long_form(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class UserPath(_Frozen):
    """The path from a row to its user.

    ``column`` holds ``users.id`` when ``table`` is unset, else the primary key of ``table``, whose
    own path continues.
    """

    column: str
    table: str | None = None


class Table(_Frozen):
    """One table of the main app."""

    key: str
    user: UserPath
    columns: dict[str, Annotated[Column, BeforeValidator(_long_form)]]
    facts: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()
    secret: frozenset[str] = frozenset()

    def our_name(self, column: str) -> str:
        """Return the dialler's name for a column that is read."""
        return self.columns[column].name_with_us or column

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        leaked = self.secret & self.columns.keys()
        if leaked:
            raise ValueError(f"columns both read and secret: {', '.join(sorted(leaked))}")
        named = {self.key, self.user.column, *self.facts, *self.compared}
        unread = named - self.columns.keys()
        if unread:
            raise ValueError(f"columns named but not read: {', '.join(sorted(unread))}")
        return self


class Description(_Frozen):
    """A validated ``description.yaml``: the tables of the main app."""

    tables: dict[str, Table]

    @model_validator(mode="after")
    def _paths_lead_to_users(self) -> Self:
        for name, table in self.tables.items():
            seen = {name}
            step = table.user
            while step.table is not None:
                if step.table not in self.tables or step.table in seen:
                    raise ValueError(f"the path from {name} to its user does not end at a user")
                seen.add(step.table)
                step = self.tables[step.table].user
        return self

    @cached_property
    def secret_columns(self) -> frozenset[str]:
        """The names of all columns that must never leave MySQL."""
        return frozenset().union(*(table.secret for table in self.tables.values()))


def load(path: Path | None = None) -> Description:
    """Return the description in ``path``, or the one shipped here.

    Raises:
        ValueError: the file is not YAML or contradicts itself; the message says where.
    """
    source = path or resources.files("mainapp") / "description.yaml"
    try:
        text = source.read_text(encoding="utf-8")
        content = yaml.load(text, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: {error}") from error
    return Description.model_validate(content)
