"""The invented main app is always the same and looks like the real one."""

import re
from collections.abc import Iterator

import pytest

from devstack.mainapp_database import MainAppDatabase
from devstack.people import CANARY, Population
from devstack.seed import seed
from devstack.servers import MariaDB
from devstack.vocabulary import INVALID_PHONES, LANDLINE_RANGES, MOBILE_RANGE
from mainapp.description import load

pytestmark = pytest.mark.integration

USERS = 3000
TABLES = (
    "users",
    "claims",
    "claim_requirements",
    "claim_vehicle_packages",
    "user_addresses",
    "user_logs",
)
OPEN = "(c.status IS NULL OR c.status NOT IN ('complete', 'cancelled'))"


@pytest.fixture(scope="module")
def crowd(mariadb: MariaDB) -> Iterator[MainAppDatabase]:
    database = MainAppDatabase.create(mariadb)
    seed(database.writer_url, USERS)
    yield database
    database.drop()


def _sums(database: MainAppDatabase) -> list[object]:
    return [row[1] for row in database.rows(f"CHECKSUM TABLE {', '.join(TABLES)}")]


def _share(database: MainAppDatabase, condition: str) -> float:
    """The share of people, in hundredths, of whom `condition` holds; `u` is the person."""
    ((count,),) = database.rows(f"SELECT count(*) FROM users u WHERE {condition}")
    return 100 * float(count) / USERS


def test_same_number_and_seed_give_the_same_rows(
    mariadb: MariaDB, mainapp_database: MainAppDatabase
) -> None:
    other = MainAppDatabase.create(mariadb)
    try:
        seed(mainapp_database.writer_url, 700, 3)
        seed(other.url.replace("dialler:dialler-local", "admin:admin-local"), 700, 3)
        assert _sums(mainapp_database) == _sums(other)
    finally:
        other.drop()


def test_another_seed_gives_other_people() -> None:
    assert Population(1).rows(1, 20) == Population(1).rows(1, 20)
    assert Population(1).rows(1, 20)["users"] != Population(2).rows(1, 20)["users"]


def test_a_person_does_not_depend_on_the_portion_it_is_made_in() -> None:
    whole, first, rest = (Population(1).rows(*ids) for ids in ((1, 30), (1, 11), (12, 30)))
    assert whole == {table: first[table] + rest[table] for table in whole}


def test_progress_counts_up_to_every_user(mainapp_database: MainAppDatabase) -> None:
    seen: list[tuple[int, int]] = []
    seed(mainapp_database.writer_url, 1100, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(500, 1100), (1000, 1100), (1100, 1100)]
    assert mainapp_database.rows("SELECT count(*) FROM users") == [(1100,)]


def test_people_have_three_claims_and_four_requirements_each(crowd: MainAppDatabase) -> None:
    ((claims,),) = crowd.rows("SELECT count(*) FROM claims")
    ((requirements,),) = crowd.rows("SELECT count(*) FROM claim_requirements")
    assert claims / USERS == pytest.approx(3, rel=0.05)
    assert requirements / USERS == pytest.approx(4, rel=0.08)


@pytest.mark.parametrize(
    ("condition", "share", "tolerance"),
    [
        (
            "u.current_signature_file_id IS NULL AND EXISTS"
            f" (SELECT 1 FROM claims c WHERE c.user_id = u.id AND {OPEN})",
            18,
            2,
        ),
        (
            "EXISTS (SELECT 1 FROM claims c JOIN claim_requirements r ON r.claim_id = c.id"
            f" WHERE c.user_id = u.id AND r.status = 'PENDING' AND {OPEN})",
            65,
            2.5,
        ),
        ("u.status IS NULL", 56, 3),
        ("u.status = 'inactive'", 4, 1.5),
        ("u.is_enabled = 0", 3, 1.5),
        ("NOT EXISTS (SELECT 1 FROM claims c WHERE c.user_id = u.id)", 5, 1.5),
        ("u.current_user_address_id IS NULL", 8, 2),
        (
            "EXISTS (SELECT 1 FROM claims c WHERE c.user_id = u.id) AND NOT EXISTS"
            f" (SELECT 1 FROM claims c WHERE c.user_id = u.id AND {OPEN})",
            14,
            4,
        ),
    ],
)
def test_proportions(
    crowd: MainAppDatabase, condition: str, share: float, tolerance: float
) -> None:
    assert _share(crowd, condition) == pytest.approx(share, abs=tolerance)


@pytest.mark.parametrize(
    "condition",
    [
        "u.phone_number IS NULL",
        "u.phone_number = ''",
        "u.phone_number = 'n/a'",
        "u.created_at IS NULL",
        "u.updated_at IS NULL",
        "u.last_name LIKE '%''%'",
        "u.first_name = _utf8mb4'Łukasz' COLLATE utf8mb4_bin",
        "u.phone_number IN (SELECT phone_number FROM users o WHERE o.id <> u.id)",
        "u.current_user_address_id NOT IN (SELECT id FROM user_addresses)",
        "EXISTS (SELECT 1 FROM claims c WHERE c.user_id = u.id AND c.status IS NULL)",
        "length(u.checkboard_address_links_api_response) > 20000",
    ],
)
def test_oddities_occur_but_are_few(crowd: MainAppDatabase, condition: str) -> None:
    assert 0 < _share(crowd, condition) < 60


def test_requirements_have_every_excluded_kind_and_both_reasons_of_id_documents(
    crowd: MainAppDatabase,
) -> None:
    pending = crowd.rows("SELECT DISTINCT type FROM claim_requirements WHERE status = 'PENDING'")
    assert {kind for (kind,) in pending} >= {
        "signature",
        "vehicle_registration",
        "cfa",
        "solicitor_letter_of_authority",
        "letter_of_authority",
        "id_document",
        "bank_statement",
    }
    reasons = crowd.rows(
        "SELECT DISTINCT claim_requirement_reason FROM claim_requirements"
        " WHERE type = 'id_document' AND status = 'PENDING'"
    )
    assert ("base requirement for claim.",) in reasons
    assert len(reasons) > 1


def test_lenders_are_spelt_in_several_ways(crowd: MainAppDatabase) -> None:
    stored = {row[0] for row in crowd.rows("SELECT DISTINCT binary lender FROM claims")}
    assert {b"Black Horse", b"BLACK HORSE", b"black horse", b"Blackhorse"} <= stored


def test_every_phone_number_is_from_a_drama_range(crowd: MainAppDatabase) -> None:
    rows = crowd.rows("SELECT phone_number FROM users WHERE phone_number <> ''")
    numbers = {number for (number,) in rows} - set(INVALID_PHONES)
    drama = tuple(area + rest for area, rest in (*LANDLINE_RANGES, MOBILE_RANGE))
    shapes = set()
    for number in numbers:
        digits = re.sub(r"\D", "", number.replace("(0)", ""))
        national = "0" + re.sub(r"^(0044|44|0)", "", digits)
        assert national.startswith(drama), number
        assert len(national) == 11 or national.startswith("01632"), number
        shapes.add(re.sub(r"\d+", "9", number))
    assert len(shapes) >= 7


def test_every_secret_column_holds_nothing_but_canaries(crowd: MainAppDatabase) -> None:
    secrets = {name: table.secret for name, table in load().tables.items() if table.secret}
    secrets["user_logs"] = frozenset({"ip_address"})
    for table, columns in secrets.items():
        for column in columns:
            ((filled, canaries),) = crowd.rows(
                f"SELECT count({column}), coalesce(sum({column} LIKE %s), 0) FROM {table}",
                (f"%{CANARY}%",),
            )
            assert filled == canaries, column
            assert filled > 0, column


def test_no_row_is_an_orphan(crowd: MainAppDatabase) -> None:
    for child, key, parent in (
        ("claims", "user_id", "users"),
        ("claim_requirements", "claim_id", "claims"),
        ("claim_vehicle_packages", "claim_id", "claims"),
        ("user_addresses", "user_id", "users"),
        ("user_logs", "user_id", "users"),
    ):
        query = f"SELECT count(*) FROM {child} WHERE {key} NOT IN (SELECT id FROM {parent})"
        assert crowd.rows(query) == [(0,)], child
