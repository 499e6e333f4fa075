"""The change generator leaves the rows as the main app would."""

import threading
from random import Random

import pymysql
import pytest

from devstack.changes import MainApp, run_changes
from devstack.mainapp_database import MainAppDatabase
from devstack.processes import wait_until

pytestmark = pytest.mark.integration

OLD = "2020-01-01 00:00:00"


def _one(database: MainAppDatabase, query: str, *arguments: object) -> object:
    ((value,),) = database.rows(query, arguments)
    return value


def _unsigned(database: MainAppDatabase) -> int:
    query = (
        "SELECT min(u.id) FROM users u JOIN claims c ON c.user_id = u.id"
        " JOIN claim_requirements r ON r.claim_id = c.id"
        " WHERE u.current_signature_file_id IS NULL"
        " AND r.type = 'signature' AND r.status = 'PENDING'"
    )
    return int(str(_one(database, query)))


def _orphans(database: MainAppDatabase) -> object:
    return _one(
        database,
        "SELECT (SELECT count(*) FROM claims WHERE user_id NOT IN (SELECT id FROM users))"
        " + (SELECT count(*) FROM claim_requirements"
        "    WHERE claim_id NOT IN (SELECT id FROM claims))"
        " + (SELECT count(*) FROM claim_vehicle_packages"
        "    WHERE claim_id NOT IN (SELECT id FROM claims))"
        " + (SELECT count(*) FROM user_addresses WHERE user_id NOT IN (SELECT id FROM users))",
    )


def test_signing_puts_the_file_on_record_and_completes_the_requirements(
    seeded_mainapp: MainAppDatabase,
) -> None:
    user_id = _unsigned(seeded_mainapp)
    logs = "SELECT count(*) FROM user_logs WHERE type = 'signature_added' AND user_id = %s"
    with MainApp(seeded_mainapp.writer_url) as app:
        app.sign(user_id)
    row = seeded_mainapp.rows(
        "SELECT length(current_signature_file_id), updated_at > utc_timestamp() - INTERVAL 1 HOUR"
        " FROM users WHERE id = %s",
        (user_id,),
    )
    pending = (
        "SELECT count(*) FROM claim_requirements r JOIN claims c ON c.id = r.claim_id"
        " WHERE c.user_id = %s AND r.type = 'signature' AND r.status = 'PENDING'"
    )
    assert row == [(36, 1)]
    assert _one(seeded_mainapp, pending, user_id) == 0
    assert _one(seeded_mainapp, logs, user_id) == 1


def test_life_of_a_new_person(mainapp_database: MainAppDatabase) -> None:
    with MainApp(mainapp_database.writer_url) as app:
        user_id, other = app.add_person(), app.add_person()
        claim_id = app.add_claim(user_id, "Oodle")
        requirement_id = app.add_requirement(claim_id, "bank_statement", "asked by lender")
        app.complete_requirement(requirement_id)
        app.change_phone(user_id, "07700 900456")
        app.move_claim(claim_id, other)
        app.end_claim(claim_id, "cancelled")
    assert mainapp_database.rows(
        "SELECT c.user_id, c.lender, c.status, r.status, r.claim_requirement_reason"
        " FROM claims c JOIN claim_requirements r ON r.claim_id = c.id WHERE c.id = %s",
        (claim_id,),
    ) == [(other, "Oodle", "cancelled", "COMPLETED", "asked by lender")]
    phone = _one(mainapp_database, "SELECT phone_number FROM users WHERE id = %s", user_id)
    assert phone == "07700 900456"


def test_raw_update_leaves_updated_at_alone(seeded_mainapp: MainAppDatabase) -> None:
    seeded_mainapp.execute("UPDATE claims SET status = 'pending', updated_at = %s", (OLD,))
    claim_id = int(str(_one(seeded_mainapp, "SELECT min(id) FROM claims")))
    query = "SELECT status, cast(updated_at AS char) FROM claims WHERE id = %s"
    with MainApp(seeded_mainapp.writer_url) as app:
        app.set_claim_status_quietly(claim_id, "complete")
        assert seeded_mainapp.rows(query, (claim_id,)) == [("complete", OLD)]
        app.end_claim(claim_id, "cancelled")
    ((status, updated_at),) = seeded_mainapp.rows(query, (claim_id,))
    assert status == "cancelled"
    assert updated_at > OLD


def test_bulk_update_is_one_statement_over_all_of_them(seeded_mainapp: MainAppDatabase) -> None:
    claims = [row[0] for row in seeded_mainapp.rows("SELECT id FROM claims LIMIT 200")]
    with MainApp(seeded_mainapp.writer_url) as app:
        assert app.update_claims(claims, "with_solicitor") == 200
    count = "SELECT count(*) FROM claims WHERE status = 'with_solicitor'"
    assert _one(seeded_mainapp, count) == 200


def test_deleting_takes_what_hangs_on_it(seeded_mainapp: MainAppDatabase) -> None:
    user_id = _unsigned(seeded_mainapp)
    claims = [
        row[0]
        for row in seeded_mainapp.rows("SELECT id FROM claims WHERE user_id = %s", (user_id,))
    ]
    with MainApp(seeded_mainapp.writer_url) as app:
        app.delete_claim(claims[0])
        left = "SELECT count(*) FROM claim_requirements WHERE claim_id = %s"
        assert _one(seeded_mainapp, left, claims[0]) == 0
        app.delete_person(user_id)
    gone = "SELECT count(*) FROM claims WHERE user_id = %s"
    assert _one(seeded_mainapp, gone, user_id) == 0
    assert _orphans(seeded_mainapp) == 0


def test_random_changes_are_of_every_kind_and_leave_no_orphans(
    seeded_mainapp: MainAppDatabase,
) -> None:
    rng = Random(11)
    with MainApp(seeded_mainapp.writer_url) as app:
        changes = [app.random_change(rng) for _ in range(700)]
    assert len({change.kind for change in changes}) == 14
    assert sum(1 for change in changes if change.user_ids) > 650
    assert _orphans(seeded_mainapp) == 0


def test_empty_main_app_offers_nothing_to_change_but_new_people(
    mainapp_database: MainAppDatabase,
) -> None:
    with MainApp(mainapp_database.writer_url) as app:
        change = app.random_change(Random(1))
    assert change.user_ids == () or change.kind == "person_added"


def test_steady_changes_go_on_until_stopped(seeded_mainapp: MainAppDatabase) -> None:
    stop = threading.Event()
    logs = "SELECT count(*) FROM user_logs"
    before = int(str(_one(seeded_mainapp, logs)))
    with MainApp(seeded_mainapp.writer_url) as app:
        made: list[int] = []
        runner = threading.Thread(
            target=lambda: made.append(run_changes(app, 500, stop, Random(2)).total())
        )
        runner.start()
        wait_until(
            lambda: int(str(_one(seeded_mainapp, logs))) > before + 5, seconds=20, what="changes"
        )
        stop.set()
        runner.join(timeout=10)
    assert made[0] > 5


def test_a_failed_change_leaves_nothing_and_the_next_one_works(
    seeded_mainapp: MainAppDatabase,
) -> None:
    claim_id = int(str(_one(seeded_mainapp, "SELECT min(id) FROM claims")))
    with MainApp(seeded_mainapp.writer_url) as app:
        with pytest.raises(pymysql.err.IntegrityError):
            app.move_claim(claim_id, 999_999_999)
        app.end_claim(claim_id, "complete")
    assert _one(seeded_mainapp, "SELECT status FROM claims WHERE id = %s", claim_id) == "complete"
