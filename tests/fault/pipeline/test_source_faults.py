"""Faults of the binlog's source never leave the dialler with old data."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from devstack.stack import Stack, wait_until
from tests.fault.pipeline.comparison import await_agreement, runs
from tests.fault.pipeline.storm import Storm

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

_STATEMENT = "SET SESSION binlog_format = 'STATEMENT'"
_FUNCTION = (
    "SET GLOBAL log_bin_trust_function_creators = 1",
    "CREATE OR REPLACE FUNCTION close_claims() RETURNS INT MODIFIES SQL DATA"
    " BEGIN UPDATE claims SET status = 'cancelled' WHERE id % 3 = 0; RETURN 1; END",
)
_UNSEEN = "UPDATE claims SET status = IF(status = 'complete', NULL, 'complete') WHERE id % 2 = 0"


@pytest.fixture
def mended(running_stack: Stack) -> Iterator[Stack]:
    """The stack in agreement with MySQL; a full run has to bring it back there, by itself."""
    await_agreement(running_stack)
    before = runs(running_stack)
    yield running_stack
    await_agreement(running_stack, seconds=90)
    wait_until(lambda: all_ended(running_stack), 60, "the full run to end")
    assert runs(running_stack) > before, "nothing asked for a full run"
    assert all(each.is_running for each in running_stack.services.values())


def all_ended(stack: Stack) -> bool:
    open_runs = "SELECT count(*) FROM reconciler.runs WHERE ended_at IS NULL"
    return stack.postgres.execute(open_runs, database="dialler").strip() == "0"


def as_admin(stack: Stack, *statements: str) -> None:
    with stack.mariadb.connect(database=stack.main_app.name) as connection:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)


@pytest.mark.parametrize(
    "statements",
    [
        ["SET SESSION sql_mode = 'ANSI_QUOTES'", 'TRUNCATE TABLE "claim_requirements"'],
        ["/*!50000 TRUNCATE TABLE claim_requirements */"],
        ["SET STATEMENT lock_wait_timeout=5 FOR TRUNCATE TABLE claim_requirements"],
        [_STATEMENT, f"SET STATEMENT max_statement_time=30 FOR {_UNSEEN}"],
        [*_FUNCTION, _STATEMENT, "DO close_claims()"],
    ],
    ids=["ansi quotes", "versioned comment", "set statement", "statement format", "function"],
)
def test_a_statement_that_changes_rows_without_events(mended: Stack, statements: list[str]) -> None:
    put_requirements_back(mended)
    as_admin(mended, *statements)


def put_requirements_back(stack: Stack) -> None:
    """Have every claim one requirement, which a truncation will take."""
    as_admin(
        stack,
        "INSERT INTO claim_requirements (id, claim_id, type, status)"
        " SELECT UUID(), id, 'id_document', 'PENDING' FROM claims c WHERE NOT EXISTS"
        " (SELECT 1 FROM claim_requirements r WHERE r.claim_id = c.id)",
    )
    await_agreement(stack, seconds=90)


def test_the_binlog_begins_anew(mended: Stack) -> None:
    as_admin(mended, "SET SESSION sql_log_bin = 0", _UNSEEN)
    with Storm(mended, "reset") as storm:
        storm.rages()
        as_admin(mended, "RESET MASTER")
        storm.rages()


def test_another_server_without_the_last_transactions_answers(mended: Stack) -> None:
    # What a promotion without waiting leaves behind: rows that differ from the events we have had.
    as_admin(mended, "SET SESSION sql_log_bin = 0", _UNSEEN)
    with Storm(mended, "promotion") as storm:
        storm.rages()
        as_admin(mended, "SET GLOBAL server_id = 7")
        storm.rages()
    await_agreement(mended, seconds=90)
    # A restart of the server in another test would bring the old identity back.
    before = runs(mended)
    as_admin(mended, "SET GLOBAL server_id = 1")
    wait_until(lambda: runs(mended) > before, 60, "another full run")


def test_settings_that_lose_changes_for_a_while(mended: Stack) -> None:
    as_admin(mended, "SET GLOBAL binlog_row_image = MINIMAL")
    try:
        wait_until(lambda: not mended.is_ready("binlog_relay"), 30, "health to say so")
        as_admin(mended, _UNSEEN)
    finally:
        as_admin(mended, "SET GLOBAL binlog_row_image = FULL")
    wait_until(lambda: mended.is_ready("binlog_relay"), 30, "it to be well again")


def test_a_record_that_sqs_never_takes(mended: Stack) -> None:
    with Storm(mended, "refused") as storm:
        order(mended, refused_text="never to be taken")
        as_admin(mended, "UPDATE users SET status = 'never to be taken' WHERE id % 50 = 0")
        storm.rages()
        order(mended)
        storm.rages()


def test_a_primary_that_is_demoted_is_not_well(stack: Stack) -> None:
    as_admin(stack, "SET GLOBAL read_only = ON")
    try:
        wait_until(lambda: not stack.is_ready("binlog_relay"), 30, "health to say so")
    finally:
        as_admin(stack, "SET GLOBAL read_only = OFF")
    wait_until(lambda: stack.is_ready("binlog_relay"), 30, "it to be well again")
    with Storm(stack, "demoted") as storm:
        storm.rages()
    await_agreement(stack)


def test_checksums_change_while_it_reads(mended: Stack) -> None:
    put_requirements_back(mended)
    with Storm(mended, "checksums") as storm:
        for kind in ("CRC32", "NONE"):
            as_admin(mended, f"SET GLOBAL binlog_checksum = {kind}")
            storm.rages()
    # Its last four characters would have been taken for a checksum.
    as_admin(mended, "TRUNCATE TABLE claim_requirements", "SET GLOBAL binlog_checksum = CRC32")


def test_sqs_takes_less_than_it_is_sent(stack: Stack) -> None:
    with Storm(stack, "small requests") as storm:
        order(stack, max_bytes=6_000)
        as_admin(stack, "UPDATE claims SET lender = 'Halved'")
        storm.rages()
    try:
        await_agreement(stack)
    finally:
        order(stack)


def order(stack: Stack, **faults: object) -> None:
    """Have SQS refuse what is sent to it; without faults, take it again."""
    wanted = {"action": "SendMessageBatch", **faults}
    httpx.post(f"{stack.addresses.sqs_endpoint}/_faults", json=wanted).raise_for_status()
