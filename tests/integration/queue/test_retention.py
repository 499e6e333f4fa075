"""Housekeeping: what is old is forgotten; what is needed, and the answers made of it, stay."""

import asyncio
from datetime import timedelta

import pytest
from dialler.model.v1 import call_state_pb2, facts_pb2
from dialler.queue.v1 import queue_pb2

from services.queue.store.retention import DELETE_CALLS, SWEEPS
from tests.fakes.clock import FakeClock
from tests.fakes.rules import load_rules
from tests.fakes.running_queue import RunningQueue
from tests.fakes.user_facts import done, outstanding, unsigned
from tests.integration.queue.bench import Desk, Tables

pytestmark = pytest.mark.integration

DAY = 86_400
NO_ANSWER = call_state_pb2.OUTCOME_NO_ANSWER
KEPT = load_rules().retention
ENDED_STATUS = sorted(load_rules().eligibility.ended_claim_statuses)[0]


async def _purge_expired(queue: RunningQueue) -> dict[str, int]:
    answer = await queue.stub.PurgeExpired(queue_pb2.PurgeExpiredRequest())
    assert not answer.more
    return {name: number for name, number in answer.done.items() if number}


async def _pass(tables: Tables, days: float) -> None:
    """Let everything that has a date be older."""
    for table, columns in _DATED.items():
        older = ", ".join(f"{it} = {it} - make_interval(secs => :secs)" for it in columns)
        await tables.rows(f"UPDATE queue.{table} SET {older}", secs=days * DAY)


_DATED = {
    "attempts": ("ended_at",),
    "assignments": ("started_at", "ended_at"),
    "callbacks": ("created_at", "closed_at"),
    "suppressions": ("created_at", "lifted_at"),
    "prevented_calls": ("prevented_at",),
    "audit": ("at",),
    "requests": ("made_at",),
    "applied_facts": ("absent_since", "ended_since"),
    "complaints": ("opened_at", "closed_at"),
}


async def _counts(tables: Tables) -> dict[str, int]:
    names = [*_DATED, "entries", "conversions"]
    return {it: await tables.value(f"SELECT count(*) FROM queue.{it}") for it in names}


async def _some_history(queue: RunningQueue, desk: Desk, clock: FakeClock) -> None:
    """One called, one called back, one spared a call, one suppressed and lifted, one suppressed."""
    await desk.fill(*(unsigned(n) for n in (1, 2, 3, 4, 5)))
    await desk.cancel((await desk.schedule(2, clock.now() + timedelta(days=9))).callback_id)
    await desk.suppress(4)
    await desk.lift(4)
    await desk.suppress(5)
    await desk.complain(4)
    await desk.complain(4, is_open=False)
    queue.main_app.put(done(4))
    held = (await desk.claim("anna")).assignment
    assert held.user_id == 3
    await desk.record(held, NO_ANSWER, notes="rang out")


async def test_each_table_keeps_what_it_keeps_and_no_longer(
    queue: RunningQueue, desk: Desk, tables: Tables, clock: FakeClock
) -> None:
    await _some_history(queue, desk, clock)
    full = await _counts(tables)
    assert 0 not in full.values()
    assert await _purge_expired(queue) == {}
    assert await _counts(tables) == full
    before = await desk.explain(3)

    await _pass(tables, KEPT.assignment_days + 1)
    found = await _purge_expired(queue)
    assert found == {
        "requests_deleted": full["requests"],
        "assignments_deleted": 1,
        "prevented_calls_deleted": 1,
    }
    await _pass(tables, KEPT.call_notes_days - KEPT.assignment_days)
    assert await _purge_expired(queue) == {"attempts_blanked": 1, "callbacks_deleted": 1}
    kept = await tables.rows(
        "SELECT call.user_id, call.notes, line.phone_e164 FROM queue.attempts AS call"
        " JOIN queue.attempt_lines AS line USING (assignment_id)"
    )
    assert [tuple(it) for it in kept] == [(3, "", "+447700900003")]
    await _pass(tables, KEPT.call_days - KEPT.call_notes_days)
    # The person's claim is open still, and the complaint of another is long closed.
    assert await _purge_expired(queue) == {"complaints_deleted": 1}
    queue.main_app.put(ended(3))
    await desk.apply(3)
    assert await _purge_expired(queue) == {}
    await _pass(tables, KEPT.call_days + 1)
    assert await _purge_expired(queue) == {"attempts_deleted": 1}
    await _pass(tables, KEPT.lifted_suppression_days - 2 * KEPT.call_days)
    assert await _purge_expired(queue) == {
        "suppressions_deleted": 1,
        "audit_entries_deleted": full["audit"],
    }
    await _pass(tables, 100_000)
    assert await _purge_expired(queue) == {}
    left = {name: number for name, number in (await _counts(tables)).items() if number}
    assert left == {
        "suppressions": 1,
        "entries": 5,
        "applied_facts": 5,
        "conversions": full["conversions"] + 1,
    }
    after = await desk.explain(3)
    assert (after.summary, after.score) == (before.summary, before.score)
    assert (await desk.state(3)).last_outcome == NO_ANSWER
    assert not (await desk.explain(5)).is_callable_now


def ended(user_id: int) -> facts_pb2.UserFacts:
    """Return a person whose only claim has ended: withdrawn, settled, or whatever the reason."""
    facts = unsigned(user_id)
    facts.claims[0].status = ENDED_STATUS
    return facts


async def _called_long_ago(queue: RunningQueue, desk: Desk, tables: Tables) -> None:
    """Person 1 was called long ago, and has an open claim."""
    await desk.fill(unsigned(1))
    await desk.record((await desk.claim("anna")).assignment, NO_ANSWER)
    await _pass(tables, 10 * KEPT.call_days)
    assert "attempts_deleted" not in await _purge_expired(queue)


async def test_a_call_is_kept_for_as_long_after_the_claims_have_ended(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    await _called_long_ago(queue, desk, tables)
    queue.main_app.put(ended(1))
    await desk.apply(1)
    await _pass(tables, KEPT.call_days - 1)
    # Another reading that says the same does not begin anew.
    await desk.apply(1)
    assert "attempts_deleted" not in await _purge_expired(queue)
    await _pass(tables, 2)
    assert (await _purge_expired(queue))["attempts_deleted"] == 1
    assert await tables.value("SELECT count(*) FROM queue.attempt_lines") == 0


async def test_a_claim_that_is_open_again_keeps_the_calls(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    await _called_long_ago(queue, desk, tables)
    queue.main_app.put(ended(1))
    await desk.apply(1)
    await _pass(tables, KEPT.call_days + 1)
    queue.main_app.put(outstanding(1))
    await desk.apply(1)
    assert "attempts_deleted" not in await _purge_expired(queue)


async def test_a_person_who_is_disabled_has_not_withdrawn_a_claim(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    await _called_long_ago(queue, desk, tables)
    disabled = unsigned(1)
    disabled.is_enabled = False
    queue.main_app.put(disabled)
    await desk.apply(1)
    await _pass(tables, KEPT.call_days + 1)
    assert "attempts_deleted" not in await _purge_expired(queue)
    disabled = ended(1)
    disabled.is_enabled = False
    queue.main_app.put(disabled)
    await desk.apply(1)
    await _pass(tables, KEPT.call_days + 1)
    assert (await _purge_expired(queue))["attempts_deleted"] == 1


async def test_a_complaint_keeps_the_calls_while_it_is_open_and_as_long_after(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    await _called_long_ago(queue, desk, tables)
    queue.main_app.put(ended(1))
    await desk.apply(1)
    await desk.complain(1)
    await _pass(tables, KEPT.call_days + 1)
    assert "attempts_deleted" not in await _purge_expired(queue)
    await desk.complain(1, is_open=False)
    await _pass(tables, KEPT.call_days - 1)
    assert "attempts_deleted" not in await _purge_expired(queue)
    await _pass(tables, 2)
    done = await _purge_expired(queue)
    assert (done["attempts_deleted"], done["complaints_deleted"]) == (1, 1)


async def test_a_person_who_is_gone_is_kept_while_a_complaint_is_open(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    await desk.fill(unsigned(1))
    await desk.complain(1)
    queue.main_app.people.clear()
    await desk.apply(1)
    await _pass(tables, KEPT.absent_person_days + 1)
    assert "entries_deleted" not in await _purge_expired(queue)
    await desk.complain(1, is_open=False)
    assert (await _purge_expired(queue))["entries_deleted"] == 1


async def test_claims_that_had_ended_before_a_rebuild_keep_no_calls(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    queue.main_app.put(ended(1), outstanding(2))
    await desk.rebuild()
    for user_id in (1, 2):
        await tables.rows(_OLD_CALLS, first=user_id, last=user_id)
    await _pass(tables, KEPT.call_days + 1)
    assert (await _purge_expired(queue))["attempts_deleted"] == 1
    assert await tables.value("SELECT user_id FROM queue.attempts") == 2


_OLD_CALLS = """
    INSERT INTO queue.attempts (assignment_id, user_id, agent_id, queue, outcome, notes, ended_at)
    SELECT gen_random_uuid(), n, 'anna', 1, 5, '', now() - interval '9 years'
    FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n
"""


async def test_calls_that_are_kept_hide_none_that_are_not(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    """The calls of people with open claims pile up before the one that is due."""
    await desk.fill(unsigned(1))
    await tables.rows(_OLD_CALLS, first=1, last=25_000)
    await tables.rows("UPDATE queue.attempts SET user_id = 1")
    await tables.rows(_OLD_CALLS, first=2, last=2)
    await tables.rows(
        "UPDATE queue.attempts SET ended_at = now() - interval '8 years' WHERE user_id = 2"
    )
    rounds = [(await _purge_expired(queue)).get("attempts_deleted", 0) for _ in range(3)]
    # Each round looks at a part of them.
    assert rounds == [0, 0, 1]
    await tables.rows(_OLD_CALLS, first=2, last=2)
    rounds = [(await _purge_expired(queue)).get("attempts_deleted", 0) for _ in range(3)]
    assert sum(rounds) == 1


async def test_caps_hold_for_as_long_as_they_look_back(
    queue: RunningQueue, desk: Desk, tables: Tables, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    for _ in range(3):
        held = (await desk.claim("anna")).assignment
        await desk.record(held, call_state_pb2.OUTCOME_MISSED_CALL, notes="rang us")
        await tables.rows("UPDATE queue.attempts SET notes = ''")
    before = await desk.explain(1)
    assert not before.is_callable_now
    assert await _purge_expired(queue) == {}
    assert (await desk.explain(1)).rules == before.rules


async def test_a_person_who_is_gone_is_deleted_once_nothing_else_is_kept(
    queue: RunningQueue, desk: Desk, tables: Tables, clock: FakeClock
) -> None:
    await desk.fill(*(unsigned(n) for n in (1, 2, 3, 4)), outstanding(5), unsigned(6))
    held = (await desk.claim("anna")).assignment
    assert held.user_id == 6
    await desk.record(held, NO_ANSWER)
    await desk.suppress(2)
    await desk.suppress(3)
    await desk.lift(3)
    queue.main_app.put(done(5))
    await desk.apply(5)
    for user_id in (1, 2, 3, 5, 6):
        del queue.main_app.people[user_id]
    await desk.apply(*range(1, 7))
    await _pass(tables, KEPT.absent_person_days - 1)
    await desk.apply(*range(1, 7))
    assert "entries_deleted" not in await _purge_expired(queue)
    await _pass(tables, 2)
    assert (await _purge_expired(queue))["entries_deleted"] == 2
    sql = "SELECT user_id FROM queue.{} ORDER BY user_id"
    for table in ("entries", "applied_facts"):
        assert [it[0] for it in await tables.rows(sql.format(table))] == [2, 3, 4, 6]
    # A person is kept while anything else is kept of the person.
    await _pass(tables, KEPT.lifted_suppression_days)
    await _purge_expired(queue)
    assert [it[0] for it in await tables.rows(sql.format("entries"))] == [2, 4]
    assert await _purge_expired(queue) == {}
    # Who comes back goes on where they left off: the end of another matter counts as one.
    queue.main_app.put(outstanding(5))
    await desk.apply(5)
    queue.main_app.put(done(5))
    assert (await desk.apply(5)).conversions == 1
    assert await tables.value("SELECT count(*) FROM queue.conversions") == 2


async def test_a_person_who_comes_back_in_time_stays(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    await desk.fill(unsigned(1))
    queue.main_app.people.clear()
    await desk.apply(1)
    await _pass(tables, 1_000)
    await desk.fill(unsigned(1))
    assert "entries_deleted" not in await _purge_expired(queue)
    assert await tables.value("SELECT absent_since FROM queue.applied_facts") is None


async def test_silent_agents_are_noted_offline_once_and_come_back_as_they_were(
    queue: RunningQueue, desk: Desk, tables: Tables, clock: FakeClock
) -> None:
    await desk.fill(unsigned(1))
    await desk.presence("anna", queue_pb2.PRESENCE_WRAP_UP)
    await desk.presence("bob", queue_pb2.PRESENCE_OFFLINE)
    assert await _purge_expired(queue) == {}
    clock.advance(121)
    assert await _purge_expired(queue) == {"agents_set_offline": 1}
    assert await _purge_expired(queue) == {}
    assert (await desk.agents())["anna"].presence == queue_pb2.PRESENCE_OFFLINE
    clock.advance(60)
    assert (await desk.claim("anna")).assignment.user_id == 1
    await desk.release(await desk.current("anna"))
    assert (await desk.agents())["anna"].presence == queue_pb2.PRESENCE_WRAP_UP
    clock.advance(121)
    assert (await _purge_expired(queue))["agents_set_offline"] == 1


async def test_several_copies_do_it_batch_by_batch(
    queue: RunningQueue, desk: Desk, tables: Tables
) -> None:
    await tables.rows(
        "INSERT INTO queue.attempts (assignment_id, user_id, agent_id, queue, outcome, notes,"
        " ended_at) SELECT gen_random_uuid(), n, 'anna', 1, 5, 'x', now() - interval '9 years'"
        " FROM generate_series(1, 2500) AS n"
    )

    async def one() -> int:
        total, answer = 0, queue_pb2.PurgeExpiredResponse(more=True)
        while answer.more:
            answer = await queue.stub.PurgeExpired(queue_pb2.PurgeExpiredRequest())
            assert answer.done["attempts_deleted"] <= 1_000
            total += answer.done["attempts_deleted"]
        return total

    assert sum(await asyncio.gather(*(one() for _ in range(3)))) == 2_500
    assert await tables.value("SELECT count(*) FROM queue.attempts") == 0


async def test_no_sweep_reads_a_whole_table(tables: Tables) -> None:
    for name, sweep in {**SWEEPS, "attempts_deleted": DELETE_CALLS}.items():
        sql = str(sweep).replace(":before", "now()").replace(":limit", "1000")
        sql = sql.replace(":looked_at", "1000").replace(":ended_at", "now() - interval '9 years'")
        sql = sql.replace(":assignment_id", "gen_random_uuid()")
        assert "Seq Scan" not in await tables.plan(sql), name
