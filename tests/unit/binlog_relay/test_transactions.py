"""Where a position may be saved."""

import pytest

from services.binlog_relay.domain.transactions import Boundary


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["BEGIN", "SAVEPOINT a", "ROLLBACK TO a", "COMMIT"], [False, False, False, True]),
        (["BEGIN", "ROLLBACK TO SAVEPOINT `a`", "RELEASE SAVEPOINT a"], [False, False, False]),
        (["BEGIN", "UPDATE users SET a = 1", "COMMIT"], [False, False, True]),
        (["BEGIN", "ROLLBACK"], [False, True]),
        (["ALTER TABLE users ADD x int"], [True]),
        (["CREATE TABLE t (a int) START TRANSACTION", "COMMIT"], [False, True]),
        (["XA START X'61',X'',1", "XA END X'61',X'',1"], [False, False]),
        (["XA COMMIT X'61',X'',1"], [True]),
    ],
)
def test_only_the_ends_of_transactions_may_be_saved(
    statements: list[str], expected: list[bool]
) -> None:
    boundary = Boundary()
    assert [boundary.pass_statement(statement) for statement in statements] == expected


def test_row_events_open_a_transaction_until_its_end() -> None:
    boundary = Boundary()
    boundary.begin()
    assert not boundary.pass_statement("SAVEPOINT a")
    boundary.end()
    assert boundary.pass_statement("ANALYZE TABLE users")
