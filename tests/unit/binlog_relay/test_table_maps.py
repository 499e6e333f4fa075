"""Table descriptions with types that the library does not know."""

from hypothesis import given
from hypothesis import strategies as st
from pymysqlreplication.constants import FIELD_TYPE

from services.binlog_relay.binlog.table_maps import readable_description

METADATA_BYTES = {
    FIELD_TYPE.LONG: 0,
    FIELD_TYPE.VARCHAR: 2,
    FIELD_TYPE.BLOB: 1,
    FIELD_TYPE.DATETIME2: 1,
    FIELD_TYPE.NEWDECIMAL: 2,
}
VECTOR, UNHEARD_OF = 242, 243
CHECKSUM = b"\xaa\xbb\xcc\xdd"
NAMES = bytes([4, 3, 1]) + b"x" + b"y"  # the field of column names, whatever is in it
NEWER = bytes([13, 2, 9, 9])


def body(types: list[int], metadata: bytes, fields: bytes) -> bytes:
    nulls = b"\xff" * ((len(types) + 7) // 8)
    head = bytes(8) + b"\x03app\x00" + b"\x05users\x00"
    described = bytes([len(types)]) + bytes(types) + bytes([len(metadata)]) + metadata
    return head + described + nulls + fields + CHECKSUM


def metadata_of(types: list[int]) -> bytes:
    return b"".join(bytes(METADATA_BYTES.get(kind, 1)) for kind in types)


@given(st.lists(st.sampled_from([*METADATA_BYTES, VECTOR]), max_size=40))
def test_a_vector_becomes_a_type_of_the_same_layout(types: list[int]) -> None:
    given_body = body(types, metadata_of(types), NAMES + NEWER)
    expected = [FIELD_TYPE.BLOB if kind == VECTOR else kind for kind in types]
    found, opaque = readable_description(given_body)
    assert found == body(expected, metadata_of(types), NAMES)
    assert opaque == [number for number, kind in enumerate(types) if kind == VECTOR]


@given(st.lists(st.sampled_from([*METADATA_BYTES, VECTOR]), max_size=20), st.integers(0, 20))
def test_a_type_without_a_known_layout_leaves_the_names_alone(types: list[int], at: int) -> None:
    types.insert(at, UNHEARD_OF)
    found, opaque = readable_description(body(types, metadata_of(types) + b"??", NAMES + NEWER))
    expected = [FIELD_TYPE.NULL if kind in METADATA_BYTES else kind for kind in types]
    assert found == body(expected, b"", NAMES)
    assert UNHEARD_OF in {types[number] for number in opaque}
