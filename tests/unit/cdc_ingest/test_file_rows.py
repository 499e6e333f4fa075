"""Rows of the files DMS writes to S3."""

import decimal
import gzip
import io
from collections.abc import Callable, Mapping, Sequence

import pyarrow as arrow
import pyarrow.parquet
import pytest

from services.cdc_ingest.domain.formats.dms_file import CSV, PARQUET, row_change, wanted_columns
from services.cdc_ingest.domain.formats.records import ChangeFile, Image, Operation, UnreadableError
from services.cdc_ingest.domain.people import Demand
from services.cdc_ingest.files.file_rows import rows_of_csv, rows_of_parquet
from tests.unit.cdc_ingest.bodies import PEOPLE

CLAIMS = ChangeFile("changes", "mainapp/claims/a.csv", "claims")
WANTED = wanted_columns(PEOPLE.columns("claims"))


def _csv(*lines: str) -> list[Image]:
    return list(rows_of_csv("\n".join(lines).encode(), WANTED, "id"))


def _parquet(columns: Mapping[str, Sequence[object] | arrow.Array], **options: object) -> bytes:
    target = io.BytesIO()
    pyarrow.parquet.write_table(arrow.table(columns), target, **options)
    return target.getvalue()


def _demand(rows: list[Image], form: str = CSV, file: ChangeFile = CLAIMS) -> Demand:
    return PEOPLE.demand(row_change(file, row, form) for row in rows)


def test_csv_with_operations() -> None:
    rows = _csv(
        "Op,id,status,user_id",
        "I,1,open,11",
        'U,2,"a ""quoted"", long',
        'status",12',
        "D,3,,13",
    )
    assert [row["Op"] for row in rows] == ["I", "U", "D"]
    changes = [row_change(CLAIMS, row, CSV) for row in rows]
    assert [change.operation for change in changes] == [
        Operation.INSERT,
        Operation.UPDATE,
        Operation.DELETE,
    ]
    assert _demand(rows).keys == {11, 12, 13}


def test_only_columns_that_lead_to_the_person_are_read() -> None:
    (row,) = _csv("Op,id,first_name,user_id", "U,1,Personal,11")
    assert row == {"Op": "U", "id": "1", "user_id": "11"}


def test_a_file_without_operations_is_a_load() -> None:
    (row,) = _csv("user_id,id", "11,1")
    assert row_change(CLAIMS, row, CSV).operation is Operation.LOAD
    assert _demand([row]).keys == {11}


def test_old_values_concern_people_too() -> None:
    rows = _csv("Op,id,user_id,BI_id,BI_user_id", "U,2,5,1,4", "I,3,6,,")
    assert _demand(rows).keys == {4, 5, 6}


@pytest.mark.parametrize("null", ["", "NULL", r"\N"])
def test_nulls(null: str) -> None:
    (row,) = _csv("Op,id,user_id", f"D,2,{null}")
    lost = _demand([row]).lost_track
    assert lost is not None
    assert lost.table == "claims"


def test_the_whole_file_is_one_bulk() -> None:
    rows = _csv("Op,id,user_id", *(f"U,{n},{n}" for n in range(1, 200)))
    ((transaction, people),) = _demand(rows).by_transaction.items()
    assert "mainapp/claims/a.csv" in transaction
    assert len(people) == 199


def test_a_line_cut_short_is_bad_alone() -> None:
    rows = _csv("Op,status,id,user_id", "U,x", "", "U,x,2,5")
    found = _demand(rows)
    assert (found.keys, found.fault) == ({5}, "ROW_NOT_IDENTIFIED")


def test_gzip_byte_order_mark_and_bad_characters() -> None:
    text = b"\xef\xbb\xbfid,user_id,status\r\n1,5,\xff\xfe\r\n"
    for content in (text, gzip.compress(text)):
        assert _demand(list(rows_of_csv(content, WANTED, "id"))).keys == {5}


def test_a_column_of_a_megabyte() -> None:
    assert _demand(_csv("Op,id,big,user_id", f"U,1,{'x' * 1_000_000},5")).keys == {5}


def test_unsigned_numbers_arrive_intact() -> None:
    assert _demand(_csv("Op,id,user_id", f"U,1,{2**64 - 1}")).keys == {2**64 - 1}
    assert _demand(_csv("Op,id,user_id", "U,1,1.2345678901234568e18")).fault == "KEY_NOT_EXACT"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "S3_FILE_WITHOUT_COLUMN_NAMES"),
        (b"I,101,Smith,Bob\nU,101,Smith,Bob\n", "S3_FILE_WITHOUT_COLUMN_NAMES"),
        (gzip.compress(b"Op,id,user_id\n" + b"U,1,5\n" * 1000, mtime=0)[:-20], "S3_FILE_DAMAGED"),
        (b"\x1f\x8bno gzip", "S3_FILE_DAMAGED"),
    ],
    ids=["empty", "no header", "cut short", "no gzip"],
)
def test_a_csv_that_cannot_be_read_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        list(rows_of_csv(content, WANTED, "id"))
    assert caught.value.reason == reason


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_parquet(compression: str, version: str, dictionary: bool) -> None:
    """The settings DMS offers: compression, version and encoding."""
    content = _parquet(
        {
            "Op": ["I", "U", "D"],
            "id": arrow.array([1, 2, 3], arrow.uint64()),
            "first_name": ["Personal"] * 3,
            "user_id": arrow.array([2**64 - 1, 5, None], arrow.uint64()),
            "BI_user_id": arrow.array([None, 4, None], arrow.uint64()),
        },
        compression=compression,
        data_page_version=version,
        use_dictionary=dictionary,
    )
    rows = list(rows_of_parquet(content, WANTED, "id"))
    assert rows[1] == {"Op": "U", "id": 2, "user_id": 5, "BI_user_id": 4}
    found = _demand(rows, PARQUET)
    assert found.keys == {2**64 - 1, 5, 4}
    assert found.lost_track is not None


@pytest.mark.parametrize(
    ("column", "number"),
    [
        (arrow.array([-1], arrow.int64()), 2**64 - 1),
        (arrow.array([decimal.Decimal(2**64 - 1)], arrow.decimal128(20, 0)), 2**64 - 1),
        (arrow.array(["7"]), 7),
        (arrow.array([b"7"], arrow.binary()), 7),
        (arrow.array([7.0]), 7),
    ],
)
def test_keys_of_other_types_in_parquet(column: arrow.Array, number: int) -> None:
    content = _parquet({"id": [1], "user_id": column})
    assert _demand(list(rows_of_parquet(content, WANTED, "id"))).keys == {number}


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _footer(content: bytes) -> bytes:
    return content[:-40] + b"\xff" * 32 + content[-8:]


def _empty(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("harm", [_cut, _footer, _empty])
def test_a_damaged_parquet_says_so(harm: Callable[[bytes], bytes]) -> None:
    content = harm(_parquet({"id": [1], "user_id": [2]}))
    with pytest.raises(UnreadableError) as caught:
        list(rows_of_parquet(content, WANTED, "id"))
    assert caught.value.reason == "S3_FILE_DAMAGED"


def test_a_parquet_without_the_key_says_so() -> None:
    with pytest.raises(UnreadableError) as caught:
        list(rows_of_parquet(_parquet({"user_id": [2]}), WANTED, "id"))
    assert caught.value.reason == "S3_FILE_WITHOUT_COLUMN_NAMES"
