"""The description of the main app holds together, and says so when it does not."""

from pathlib import Path

import pytest

from mainapp.description import ColumnType, Description, load

# domain.md: "columns that exist and must never leave MySQL".
NEVER_LEAVES = {
    "users": {
        "password",
        "remember_token",
        "checkboard_address_links_api_request",
        "checkboard_address_links_api_response",
        "checkboard_user_invite_api_request",
        "checkboard_user_batch_api_request",
        "checkboard_user_verify_otp_api_request",
        "justcall_id",
        "voluum_click_id",
        "pipedrive_id",
        "google_drive_link",
    },
    "user_addresses": {
        "checkboard_raw_address",
        "openai_matching_result",
        "openai_matching_api_details",
    },
}


def test_shipped_description_names_every_secret_column() -> None:
    description = load()
    for table, columns in NEVER_LEAVES.items():
        assert description.tables[table].secret == columns


def test_requirement_reaches_its_person_through_its_claim() -> None:
    path = load().tables["claim_requirements"].user
    assert (path.table, path.column) == ("claims", "claim_id")


def test_short_and_long_columns_read_alike() -> None:
    columns = load().tables["claims"].columns
    assert columns["id"].name_with_us == "claim_id"
    assert columns["lender"].type is ColumnType.TEXT


def _table(**changes: object) -> dict[str, object]:
    return {"key": "id", "user": {"column": "id"}, "columns": {"id": "uint64"}} | changes


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ({"users": _table(secret=["id"])}, "both read and secret: id"),
        ({"users": _table(facts=["name"])}, "named but not read: name"),
        ({"users": _table(columns={"id": "bigint"})}, "bigint"),
        (
            {"a": _table(user={"table": "b", "column": "id"})},
            "from a to its user does not end at a user",
        ),
        (
            {
                "a": _table(user={"table": "b", "column": "id"}),
                "b": _table(user={"table": "a", "column": "id"}),
            },
            "does not end at a user",
        ),
        ({"users": _table(colour="red")}, "colour"),
    ],
)
def test_contradiction_is_refused(tables: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Description.model_validate({"tables": tables})


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("tables: [", encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.yaml"):
        load(path)
