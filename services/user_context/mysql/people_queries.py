"""The statements that read everything of some people, made once as texts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from mainapp.description import Description
from services.user_context.domain import OF_CLAIMS, PeopleRows, Row, UserId
from services.user_context.mysql.fingerprints import ROW_FINGERPRINT, expression
from services.user_context.mysql.rows import RowReader, Values

# Stands for the ids, which are numbers, in the texts.
_IDS = ":user_ids"


class _Query(NamedTuple):
    text: str
    reader: RowReader


class PeopleQueries:
    """One statement for each table, and how to read its rows.

    With ``fingerprinted`` the same statements return the checksum of each row, and one more those
    of all addresses by owner, among which the current ones are.
    """

    def __init__(
        self, tables: Mapping[str, sa.Table], description: Description, *, fingerprinted: bool
    ) -> None:
        self._tables = tables
        self._described = description.tables
        self._is_fingerprinted = fingerprinted
        users, claims, addresses = (tables[name] for name in ("users", "claims", "user_addresses"))
        user_id, owner = users.c.user_id, claims.c.user_id
        is_current = addresses.c.address_id == users.c.current_user_address_id
        self._queries = [
            self._query("users", users, user_id),
            self._query("claims", claims, owner),
            *(
                self._query(
                    name,
                    tables[name].join(claims, claims.c.claim_id == tables[name].c.claim_id),
                    owner,
                )
                for name in OF_CLAIMS
            ),
            self._query("user_addresses", users.join(addresses, is_current), user_id),
        ]
        checksum = sa.func.bit_xor(self._checksum("user_addresses"))
        of_all = sa.select(addresses.c.user_id, checksum).group_by(addresses.c.user_id)
        self._every_address = _text(of_all.order_by(sa.null()), addresses.c.user_id)

    def texts(self, user_ids: Sequence[UserId]) -> list[str]:
        """Return the statements for these people, at least one."""
        texts = [query.text for query in self._queries]
        if self._is_fingerprinted:
            texts.append(self._every_address)
        ids = ",".join(map(str, user_ids))
        return [text.replace(_IDS, ids) for text in texts]

    def rows(self, found: Sequence[Sequence[Values]]) -> PeopleRows:
        """Return the rows that the statements found, without the checksums of addresses."""
        rows: list[list[Row]] = [
            query.reader.rows(values) for query, values in zip(self._queries, found, strict=False)
        ]
        return PeopleRows(*rows)

    def _query(self, name: str, source: sa.FromClause, owner: sa.ColumnElement[Any]) -> _Query:
        described, columns = self._described[name], self._tables[name].c
        plain = RowReader(described, described.columns)
        selected: list[sa.ColumnElement[Any]] = [columns[each] for each in plain.names]
        # The checksums of all addresses are read apart.
        if not self._is_fingerprinted or name == "user_addresses":
            return _Query(_text(sa.select(*selected).select_from(source), owner), plain)
        query = sa.select(*selected, self._checksum(name)).select_from(source)
        return _Query(
            _text(query, owner), RowReader(described, described.columns, (ROW_FINGERPRINT,))
        )

    def _checksum(self, name: str) -> sa.ColumnElement[Any]:
        return sa.literal_column(expression(name, self._described[name]), sa.BigInteger)


def _text(query: sa.Select[Any], owner: sa.ColumnElement[Any]) -> str:
    """Return the statement for the rows of owners to be named later."""
    ids: sa.ColumnElement[Any] = sa.literal_column(f"({_IDS})")
    # A driver that gets no values leaves percent signs alone.
    dialect = mysql.dialect(paramstyle="named")
    return str(query.where(owner.op("IN")(ids)).compile(dialect=dialect))
