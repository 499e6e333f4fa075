"""Users that the main app no longer shows count as gone only when that is plausible."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from dialler.reconciler.v1 import reconciler_pb2
from dialler.reconciler.v1.reconciler_pb2 import (
    DRIFT_KIND_ORPHANED,
    RUN_KIND_CHANGED,
    RUN_KIND_FULL,
    RUN_KIND_WARMING,
    RUN_STATE_FAILED,
    RUN_STATE_SUCCEEDED,
)
from prometheus_client import REGISTRY

from servicekit.errors import InvalidArgument
from tests.fakes.upstreams import ReconcilerUpstreams
from tests.fakes.user_context_rows import packed, person_rows

if TYPE_CHECKING:
    from dialler.reconciler.v1.reconciler_pb2_grpc import ReconcilerServiceAsyncStub

    from tests.integration.reconciler.conftest import ReconcilerBench

pytestmark = [pytest.mark.integration, pytest.mark.fault]

THOUSAND = range(1, 1_001)
STRANGER = 2_000
NEVER = 1e6
CAPTURE = {"change_capture": "auto"}
BATCH = {"change_capture": "off", "batch_every_seconds": NEVER}
BOTH_MODES = pytest.mark.parametrize("mode", [CAPTURE, BATCH], ids=["capture", "batch"])


def _known(fakes: ReconcilerUpstreams, user_ids: Iterable[int]) -> None:
    """Have the main app and the queue know just these people."""
    fakes.user_context.people = {it: packed(person_rows(it)) for it in user_ids}
    fakes.apply_all_users()


def _delete(fakes: ReconcilerUpstreams, user_ids: Iterable[int]) -> None:
    for user_id in user_ids:
        del fakes.user_context.people[user_id]


def _change(fakes: ReconcilerUpstreams, user_id: int) -> None:
    fakes.user_context.people[user_id] = packed(person_rows(user_id, seed=1))


def _gone(fakes: ReconcilerUpstreams) -> set[int]:
    """Return the people whom the queue has taken for gone."""
    return {user_id for user_id, entry in fakes.queue.entries.items() if entry.is_absent}


def _withheld(kind: str) -> float | None:
    return REGISTRY.get_sample_value("dialler_reconciler_people_withheld", {"kind": kind})


@asynccontextmanager
async def _running(
    bench: "ReconcilerBench", mode: dict[str, Any], **overrides: Any
) -> "AsyncIterator[ReconcilerServiceAsyncStub]":
    """Run a reconciler that has come to its mode, and done the full run that this asks for."""
    async with bench.running(**mode, **overrides) as stub:

        async def is_settled() -> bool:
            runs = (await stub.ListRuns(reconciler_pb2.ListRunsRequest())).runs
            return any("CAPTURE_OFF" in it.reason and it.HasField("ended_at") for it in runs)

        if mode is BATCH:
            await bench.until_async(is_settled)
        yield stub


@BOTH_MODES
async def test_an_emptied_table_takes_no_person_for_gone(
    bench: "ReconcilerBench", mode: dict[str, Any]
) -> None:
    """The cached context of a stranger is put right all the same."""
    fakes = bench.fakes
    people = fakes.user_context.people
    fakes.apply_all_users()
    before = {**fakes.queue.entries}
    async with _running(bench, mode) as stub:
        fakes.user_context.people = {}
        fakes.user_context.cached[STRANGER] = 123, True
        run = await bench.run(stub)
        assert run.state == RUN_STATE_FAILED
        assert "TOO_MANY_GONE: 100 of 100 people would be gone" in run.error
        assert "allow_gone" in run.error
        assert (run.users_withheld, _withheld("full")) == (100, 100)
        assert {it: entry for it, entry in fakes.queue.entries.items() if it in before} == before
        assert STRANGER not in fakes.user_context.cached
        assert not fakes.user_context.refreshed.keys() & people.keys(), "their contexts stay cached"
        fakes.user_context.people = people
        again = await bench.run(stub)
    assert (again.state, again.error, again.users_withheld) == (RUN_STATE_SUCCEEDED, "", 0)
    assert _withheld("full") == 0
    assert not fakes.queue.applied.keys() & people.keys(), "no fresh start"


@BOTH_MODES
async def test_what_else_has_drifted_is_repaired(
    bench: "ReconcilerBench", mode: dict[str, Any]
) -> None:
    fakes = bench.fakes
    _known(fakes, THOUSAND)
    async with _running(bench, mode) as stub:
        _delete(fakes, range(1, 301))
        _change(fakes, 500)
        fakes.user_context.people[STRANGER] = packed(person_rows(STRANGER))
        run = await bench.run(stub)
    assert (run.state, run.users_withheld, run.users_refreshed) == (RUN_STATE_FAILED, 300, 2)
    drift = {it.kind: it.users for it in run.drift}
    assert "300 of 1001 people" in run.error
    assert fakes.queue.applied == {500: 1, STRANGER: 1}
    assert not _gone(fakes)
    if mode is CAPTURE:
        assert drift[DRIFT_KIND_ORPHANED] == 300


@BOTH_MODES
async def test_people_really_deleted_are_taken_for_gone(
    bench: "ReconcilerBench", mode: dict[str, Any]
) -> None:
    fakes = bench.fakes
    _known(fakes, THOUSAND)
    async with _running(bench, mode) as stub:
        _delete(fakes, range(1, 51))
        run = await bench.run(stub)
        again = await bench.run(stub)
    assert (run.state, run.users_refreshed, run.users_withheld) == (RUN_STATE_SUCCEEDED, 50, 0)
    assert _gone(fakes) == set(range(1, 51))
    assert (again.state, again.users_refreshed) == (RUN_STATE_SUCCEEDED, 0)


@BOTH_MODES
async def test_allow_gone_takes_any_number_for_gone_for_one_run(
    bench: "ReconcilerBench", mode: dict[str, Any]
) -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    people = set(fakes.user_context.people)
    async with _running(bench, mode) as stub:
        fakes.user_context.people = {}
        assert (await bench.run(stub)).state == RUN_STATE_FAILED
        run = await bench.run(stub, allow_gone=True)
        assert run.allow_gone
        assert (run.state, run.error, run.users_withheld) == (RUN_STATE_SUCCEEDED, "", 0)
        assert _gone(fakes) == people
        fakes.queue.entries = {
            it: e._replace(is_absent=False) for it, e in fakes.queue.entries.items()
        }
        assert (await bench.run(stub)).state == RUN_STATE_FAILED, "it was for one run"


@pytest.mark.parametrize(
    ("deleted", "share", "is_believed"),
    [(100, 0.0, True), (101, 0.0, False), (200, 0.2, True), (201, 0.2, False)],
)
async def test_a_hundred_or_a_share_of_the_people_may_be_gone(
    bench: "ReconcilerBench", deleted: int, share: float, is_believed: bool
) -> None:
    fakes = bench.fakes
    _known(fakes, THOUSAND)
    gone = set(range(1, deleted + 1))
    _delete(fakes, gone)
    async with bench.running(gone_share_at_most=share) as stub:
        run = await bench.run(stub)
    assert run.state == (RUN_STATE_SUCCEEDED if is_believed else RUN_STATE_FAILED)
    assert _gone(fakes) == (gone if is_believed else set())


async def test_people_said_to_have_changed_are_not_gone_because_a_table_is_empty(
    bench: "ReconcilerBench",
) -> None:
    fakes = bench.fakes
    fakes.apply_all_users()
    fakes.user_context.changed = {3, 6, 9}
    fakes.user_context.people = {}
    async with bench.running() as stub:
        run = await bench.run(stub, RUN_KIND_CHANGED)
    assert (run.state, run.users_withheld) == (RUN_STATE_FAILED, 3)
    assert not _gone(fakes)


async def test_people_of_whom_no_rows_are_known_are_not_gone_because_a_table_is_empty(
    bench: "ReconcilerBench",
) -> None:
    """As a rebuild leaves them: their ranges come to nothing on either side."""
    fakes = bench.fakes
    fakes.apply_all_users()
    entries = fakes.queue.entries
    async with _running(bench, BATCH) as stub:
        for user_id, entry in entries.items():
            entries[user_id] = entry._replace(rows=b"", context=0)
        fakes.user_context.people = {}
        run = await bench.run(stub)
    assert (run.state, run.users_withheld) == (RUN_STATE_FAILED, 100)
    assert not fakes.queue.applied


@BOTH_MODES
async def test_a_table_emptied_during_the_repair_takes_no_person_for_gone(
    bench: "ReconcilerBench", mode: dict[str, Any]
) -> None:
    fakes = bench.fakes
    _known(fakes, THOUSAND)
    async with _running(bench, mode, pages_in_flight=1) as stub:
        for user_id in THOUSAND:
            _change(fakes, user_id)
        fakes.queue.free_calls = 2
        run = await bench.start_run(stub)
        await bench.until(lambda: fakes.queue.calls > 2)
        fakes.user_context.people = {}
        fakes.queue.gate.set()
        ended = await bench.ended(stub, run.run_id)
    assert ended.state == RUN_STATE_FAILED
    assert "TOO_MANY_GONE" in ended.error
    assert not _gone(fakes)


async def test_people_whom_the_queue_does_not_have_do_not_count(bench: "ReconcilerBench") -> None:
    """Claims whose person was deleted long ago, changed all at once."""
    fakes = bench.fakes
    fakes.apply_all_users()
    fakes.user_context.changed = set(range(5_000, 5_500))
    async with _running(bench, BATCH) as stub:
        run = await bench.run(stub, RUN_KIND_CHANGED)
    assert (run.state, run.users_withheld) == (RUN_STATE_SUCCEEDED, 0)
    assert fakes.queue.applied.keys() == fakes.user_context.changed


@pytest.mark.parametrize("cut_before", [{2}, {8}, {2, 3}], ids=str)
async def test_a_table_added_up_in_part_is_read_on_to_its_end(
    bench: "ReconcilerBench", cut_before: set[int]
) -> None:
    fakes = bench.fakes
    _known(fakes, THOUSAND)
    fakes.user_context.cut_before = cut_before
    async with bench.running() as stub:
        run = await bench.run(stub)
    assert (run.state, run.users_refreshed) == (RUN_STATE_SUCCEEDED, 0)
    assert not fakes.user_context.calls["ReadOwnerFingerprints"], "what was added up is whole"


async def test_a_run_that_may_not_is_no_answer_to_a_request_that_may(
    bench: "ReconcilerBench",
) -> None:
    fakes = bench.fakes
    fakes.queue.free_calls = 0
    once = str(uuid4())
    async with bench.running() as stub:
        await bench.start_run(stub)
        await bench.until(lambda: fakes.queue.calls > 0)
        waiting = await bench.start_run(stub)
        allowed = await bench.start_run(stub, request_id=once, allow_gone=True)
        assert (waiting.allow_gone, allowed.allow_gone) == (False, True)
        assert (await bench.start_run(stub, allow_gone=True)).run_id == allowed.run_id == once
        assert (await bench.start_run(stub)).run_id == waiting.run_id
        with pytest.raises(InvalidArgument, match="REQUEST_ID_REUSED"):
            await bench.start_run(stub, kind=RUN_KIND_FULL, request_id=once)
        with pytest.raises(InvalidArgument, match="ALLOW_GONE_UNSUITABLE"):
            await bench.start_run(stub, kind=RUN_KIND_WARMING, allow_gone=True)
        fakes.queue.gate.set()
        ended = await bench.ended(stub, once)
    assert ended.state == RUN_STATE_SUCCEEDED
