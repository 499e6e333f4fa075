"""Whether a server has executed a transaction."""

import pytest

from services.cdc_ingest.domain.gtids import ExecutedGtids, Gtid, gtid_of

ONE, OTHER = (f"{letter * 8}-0000-0000-0000-{letter * 12}" for letter in "ab")


@pytest.mark.parametrize(
    ("executed", "gtid"),
    [
        (f"{ONE}:1-9", f"{ONE}:9"),
        (f"{ONE}:1-9", f"{ONE.upper()}:1"),
        (f"{ONE}:1-3:7", f"{ONE}:7"),
        (f"{OTHER}:5,\n{ONE}:1-9", f"{ONE}:4"),
        (f"{ONE}:1-2:tag:5-6", f"{ONE}:tag:5"),
        (f"{ONE}:1-2:Tag:5-6:other:1", f"{ONE}:tag:6"),
        ("0-1-9", "0-1-9"),
        ("1-1-3,0-1-9", "0-1-1"),
    ],
)
def test_what_a_server_has_executed(executed: str, gtid: str) -> None:
    assert gtid_of(gtid) in ExecutedGtids(executed)


@pytest.mark.parametrize(
    ("executed", "gtid"),
    [
        ("", f"{ONE}:1"),
        (f"{ONE}:1-9", f"{ONE}:10"),
        (f"{ONE}:1-3:7", f"{ONE}:5"),
        (f"{OTHER}:1-9", f"{ONE}:4"),
        (f"{ONE}:1-2:tag:5-6", f"{ONE}:5"),
        (f"{ONE}:1-9", f"{ONE}:tag:5"),
        ("0-1-9", "0-1-10"),
        ("1-1-9", "0-1-1"),
        # It is not certain that the first server's had been executed where the second wrote.
        ("0-2-9", "0-1-1"),
        ("no set", "0-1-1"),
        ("0-1-9", "no transaction"),
    ],
)
def test_what_a_server_has_not_executed_as_far_as_is_known(executed: str, gtid: str) -> None:
    assert gtid_of(gtid) not in ExecutedGtids(executed)


@pytest.mark.parametrize("written", [None, 7, "", f"{ONE}:1-9", "0-1", ["0-1-2"], "1" * 5_000])
def test_what_is_no_gtid(written: object) -> None:
    assert gtid_of(written) is None


def test_a_gtid_is_the_same_in_either_case() -> None:
    assert gtid_of(f"{ONE.upper()}:TAG:5") == Gtid(f"{ONE}:tag", 5)
    assert gtid_of("0-1-5") == Gtid("0-1", 5, is_mariadb=True)
