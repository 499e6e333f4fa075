"""deploy/sql follows the main app's description, and no account may read what must not leave."""

from __future__ import annotations

import re

import pytest

from devstack import sql_grants
from mainapp.description import load

DESCRIPTION = load()


def test_the_files_are_current() -> None:
    assert {path: path.read_text("utf-8") for path in sql_grants.FOLDER.iterdir()} == (
        sql_grants.files()
    )


def _granted(sql: str) -> dict[str, set[str]]:
    found = re.findall(r"GRANT SELECT \(([^)]+)\)\s+ON `(\w+)`", sql)
    return {table: set(re.findall(r"`(\w+)`", columns)) for columns, table in found}


def test_the_reader_may_read_the_columns_that_are_described() -> None:
    granted = _granted(sql_grants.reader(DESCRIPTION))
    assert granted == {name: set(table.columns) for name, table in DESCRIPTION.tables.items()}


@pytest.mark.parametrize("file", ["mysql-grants.sql", "mysql-grants-relay.sql"])
def test_no_secret_column_and_no_whole_table_is_granted(file: str) -> None:
    sql = (sql_grants.FOLDER / file).read_text("utf-8")
    assert not DESCRIPTION.secret_columns & set(re.findall(r"`(\w+)`", sql))
    assert not re.search(r"\b(INSERT|UPDATE|DELETE|ALL ON|SELECT ON)\b", sql)


def test_a_column_that_is_described_anew_makes_the_file_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claims = DESCRIPTION.tables["claims"]
    more = claims.model_copy(update={"columns": {**claims.columns, "more": claims.columns["type"]}})
    changed = DESCRIPTION.model_copy(update={"tables": {**DESCRIPTION.tables, "claims": more}})
    monkeypatch.setattr(sql_grants, "load", lambda: changed)
    monkeypatch.setattr("sys.argv", ["sql_grants", "--check"])
    assert sql_grants.main() == 1
