"""Contexts as they are asked for, from real databases."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest
from dialler.model.v1 import call_state_pb2
from dialler.user_context.v1 import user_context_pb2 as pb
from dialler.user_context.v1 import user_context_pb2_grpc
from google.protobuf import json_format

from devstack.mainapp_database import MainAppDatabase
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound
from services.user_context.domain import PEOPLE_PER_READING
from tests.fakes.running_user_context import RunningUserContext, insertion, link_to

pytestmark = pytest.mark.integration

HUGE = 2**64 - 1


async def _get(
    service: RunningUserContext,
    user_id: int,
    view: pb.ContextView.ValueType = pb.CONTEXT_VIEW_MESSAGE,
) -> pb.GetUserContextResponse:
    return await service.stub.GetUserContext(pb.GetUserContextRequest(user_id=user_id, view=view))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


async def test_both_views_show_the_same_of_every_person(
    seeded_user_context: RunningUserContext,
) -> None:
    service = seeded_user_context
    for user_id in range(1, 301, 3):
        service.queue.states[user_id] = call_state_pb2.CallState(
            user_id=user_id, reason="NO_SIGNATURE", score=user_id / 8, version=user_id
        )
    batch = pb.BatchGetUserContextsRequest(user_ids=range(1, 301))
    messages = await service.stub.BatchGetUserContexts(batch)
    batch.view = pb.CONTEXT_VIEW_JSON
    as_json = await service.stub.BatchGetUserContexts(batch)

    assert len(messages.contexts) == len(as_json.contexts) == 300
    for user_id, (message, text) in enumerate(
        zip(messages.contexts, as_json.contexts, strict=True), start=1
    ):
        assert message.context.user.user_id == user_id
        shown = orjson.loads(text.context_json)
        call_state = shown.pop("call_state")
        assert (call_state["user_id"], call_state["version"]) == (
            str(message.context.call_state.user_id),
            str(message.context.call_state.version),
        )
        message.context.ClearField("call_state")
        assert _without_nulls(shown) == json_format.MessageToDict(
            message.context,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        assert text.freshness.etag == message.freshness.etag


async def test_the_second_answer_comes_from_the_cache_and_is_the_same(
    seeded_user_context: RunningUserContext, mysql_statements: list[str]
) -> None:
    first = await _get(seeded_user_context, 7)
    sent = len(mysql_statements)
    second = await _get(seeded_user_context, 7)

    assert not first.freshness.cached
    assert second.freshness.cached
    assert not second.freshness.stale
    assert second.context == first.context
    assert second.freshness.etag == first.freshness.etag
    assert second.freshness.read_at == first.freshness.read_at
    assert len(mysql_statements) == sent
    stats = await seeded_user_context.stub.GetCacheStats(pb.GetCacheStatsRequest())
    assert (stats.hits, stats.misses, stats.errors) == (1, 1, 0)


async def test_nulls_everywhere_are_ordinary(
    user_context: RunningUserContext, mainapp_database: MainAppDatabase
) -> None:
    mainapp_database.execute(*insertion("users", id=HUGE, email_address="a@example.com"))
    mainapp_database.execute(*insertion("claims", id=HUGE - 1, user_id=HUGE, type="pcp"))
    mainapp_database.execute(
        *insertion("claim_requirements", id="r" * 36, claim_id=HUGE - 1, type="cfa")
    )
    mainapp_database.execute(*insertion("claim_vehicle_packages", id="v" * 36, claim_id=HUGE - 1))

    answer = await _get(user_context, HUGE)
    text = orjson.loads((await _get(user_context, HUGE, pb.CONTEXT_VIEW_JSON)).context_json)

    assert answer.context.user.user_id == HUGE
    assert not answer.context.user.HasField("status")
    assert not answer.context.user.HasField("current_address")
    assert answer.context.claims[0].claim_id == HUGE - 1
    assert not answer.context.claims[0].HasField("status")
    assert text["user"]["user_id"] == str(HUGE)
    assert text["user"]["status"] is None
    assert text["user"]["last_login"] is None
    assert text["claims"][0]["vehicle_packages"][0]["monthly_payment"] is None


async def test_a_person_without_claims_and_with_an_address_that_is_gone(
    user_context: RunningUserContext, mainapp_database: MainAppDatabase
) -> None:
    mainapp_database.execute(
        *insertion("users", id=4, email_address="b@example.com", current_user_address_id="x" * 36)
    )

    answer = await _get(user_context, 4)

    assert not answer.context.claims
    assert not answer.context.user.HasField("current_address")


async def test_unusual_text_and_wide_json_arrive_unharmed(
    user_context: RunningUserContext, mainapp_database: MainAppDatabase
) -> None:
    name = 'Zo\u00eb \u5c71\u7530 \U0001f600 "quoted" back\\slash %s :x'
    mainapp_database.execute(
        *insertion(
            "users",
            id=5,
            email_address="c@example.com",
            first_name=name,
            notification_channels='["sms"]',
            checkboard_user_invite_api_request=orjson.dumps({"a": "x" * 40_000}).decode(),
        )
    )
    mainapp_database.execute(
        *insertion("user_addresses", id="z" * 36, user_id=5, full_address="1 High St\nLeeds")
    )
    mainapp_database.execute("UPDATE users SET current_user_address_id = %s", ["z" * 36])

    answer = await _get(user_context, 5)
    text = orjson.loads((await _get(user_context, 5, pb.CONTEXT_VIEW_JSON)).context_json)

    assert answer.context.user.first_name == text["user"]["first_name"] == name
    assert answer.context.user.notification_channels == '["sms"]'
    assert answer.context.user.current_address.full_address == "1 High St\nLeeds"


async def test_dates_that_are_no_dates_are_nothing(
    user_context: RunningUserContext, mainapp_database: MainAppDatabase
) -> None:
    with mainapp_database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = ''")
        cursor.execute(
            "INSERT INTO users (id, email_address, date_of_birth, last_login)"
            " VALUES (6, 'd@example.com', '0000-00-00', '0000-00-00 00:00:00')"
        )

    user = (await _get(user_context, 6)).context.user

    assert not user.HasField("date_of_birth")
    assert not user.HasField("last_login")


async def test_times_are_utc_whatever_the_servers_zone(
    user_context: RunningUserContext, mainapp_database: MainAppDatabase
) -> None:
    with mainapp_database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION time_zone = '+05:00'")
        cursor.execute(
            "INSERT INTO users (id, email_address, last_login)"
            " VALUES (8, 'e@example.com', '2025-06-02 14:00:00')"
        )

    text = orjson.loads((await _get(user_context, 8, pb.CONTEXT_VIEW_JSON)).context_json)

    assert text["user"]["last_login"] == "2025-06-02T09:00:00Z"


async def test_an_absence_is_cached_briefly_and_a_new_person_found(
    user_context: RunningUserContext,
    mainapp_database: MainAppDatabase,
    mysql_statements: list[str],
) -> None:
    for _ in range(2):
        with pytest.raises(NotFound) as missing:
            await _get(user_context, 9)
        assert missing.value.reason == "USER_NOT_FOUND"
    sent = len(mysql_statements)
    with pytest.raises(NotFound):
        await _get(user_context, 9)
    assert len(mysql_statements) == sent

    mainapp_database.execute(*insertion("users", id=9, email_address="f@example.com"))
    await user_context.stub.RefreshUsers(pb.RefreshUsersRequest(user_ids=[9]))

    answer = await _get(user_context, 9)
    assert answer.context.user.email_address == "f@example.com"
    assert answer.freshness.cached


async def test_a_person_deleted_is_gone_after_the_refresh(
    user_context: RunningUserContext, mainapp_database: MainAppDatabase
) -> None:
    mainapp_database.execute(*insertion("users", id=10, email_address="g@example.com"))
    await _get(user_context, 10)
    mainapp_database.execute("DELETE FROM users WHERE id = 10")
    refreshed = await user_context.stub.RefreshUsers(pb.RefreshUsersRequest(user_ids=[10]))

    assert not refreshed.facts[0].exists
    assert refreshed.facts[0].version > 0
    with pytest.raises(NotFound):
        await _get(user_context, 10)


async def test_a_batch_keeps_the_order_and_lists_who_is_missing(
    seeded_user_context: RunningUserContext,
) -> None:
    wanted = [5, 99_999, 3, 5, HUGE, 4]
    answer = await seeded_user_context.stub.BatchGetUserContexts(
        pb.BatchGetUserContextsRequest(user_ids=wanted)
    )

    assert [one.context.user.user_id for one in answer.contexts] == [5, 3, 4]
    assert list(answer.missing_user_ids) == [99_999, HUGE]


@pytest.mark.parametrize("view", [pb.CONTEXT_VIEW_MESSAGE, pb.CONTEXT_VIEW_JSON])
async def test_a_batch_of_large_contexts_is_answered_in_parts_that_a_message_holds(
    seeded_user_context: RunningUserContext,
    seeded_mainapp: MainAppDatabase,
    view: pb.ContextView.ValueType,
) -> None:
    text = orjson.dumps({"sms": "x" * 60_000}).decode()
    seeded_mainapp.execute("UPDATE users SET notification_channels = %s", [text])
    wanted = list(range(300, 0, -1))
    # A client without a configured limit of message sizes takes 4 MiB.
    async with grpc.aio.insecure_channel(seeded_user_context.address) as channel:
        stub = user_context_pb2_grpc.UserContextServiceStub(channel)
        answers = []
        rest = wanted
        while rest:
            request = pb.BatchGetUserContextsRequest(user_ids=[*rest, 99_999], view=view)
            answer = await stub.BatchGetUserContexts(request, timeout=60)
            answers.append(answer)
            rest = [user_id for user_id in answer.remaining_user_ids if user_id != 99_999]

    contexts = [one for answer in answers for one in answer.contexts]
    if view == pb.CONTEXT_VIEW_JSON:
        shown = [orjson.loads(one.context_json)["user"] for one in contexts]
        assert [int(user["user_id"]) for user in shown] == wanted
        assert all(user["notification_channels"] == text for user in shown)
    else:
        assert [one.context.user.user_id for one in contexts] == wanted
        assert all(one.context.user.notification_channels == text for one in contexts)
    assert len(answers) == -(-len(wanted) // len(answers[0].contexts))
    assert list(answers[-1].missing_user_ids) == [99_999]
    assert not any(answer.missing_user_ids for answer in answers[:-1])


async def test_a_batch_reads_and_counts_hardly_more_than_it_answers(
    seeded_user_context: RunningUserContext, seeded_mainapp: MainAppDatabase
) -> None:
    text = orjson.dumps({"sms": "x" * 60_000}).decode()
    seeded_mainapp.execute("UPDATE users SET notification_channels = %s", [text])
    wanted = range(1, 301)
    stub = seeded_user_context.stub
    answer = await stub.BatchGetUserContexts(pb.BatchGetUserContextsRequest(user_ids=wanted))
    found = len(answer.contexts)
    assert found < 100
    stats = await stub.GetCacheStats(pb.GetCacheStatsRequest())
    assert (stats.hits, stats.misses, stats.stale_serves) == (0, found, 0)
    # In two readings; what is beyond has not been looked at.
    inspected = await stub.InspectCachedContexts(pb.InspectCachedContextsRequest(user_ids=wanted))
    assert len(inspected.contexts) == 2 * PEOPLE_PER_READING


async def test_a_small_batch_is_one_reading(
    seeded_user_context: RunningUserContext, mysql_statements: list[str]
) -> None:
    before = len(mysql_statements)
    request = pb.BatchGetUserContextsRequest(user_ids=range(1, PEOPLE_PER_READING + 1))
    answer = await seeded_user_context.stub.BatchGetUserContexts(request)
    assert len(answer.contexts) == PEOPLE_PER_READING
    assert sum("START TRANSACTION" in sent for sent in mysql_statements[before:]) == 1


@pytest.mark.parametrize("view", [pb.CONTEXT_VIEW_MESSAGE, pb.CONTEXT_VIEW_JSON])
async def test_a_person_whose_context_no_message_can_hold_is_named_and_passed(
    seeded_user_context: RunningUserContext,
    seeded_mainapp: MainAppDatabase,
    view: pb.ContextView.ValueType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = orjson.dumps({"sms": "x" * 60_000}).decode()
    seeded_mainapp.execute("UPDATE users SET notification_channels = %s WHERE id = 4", [text])
    monkeypatch.setattr("services.user_context.domain.CONTEXT_BYTES", 50_000)
    stub = seeded_user_context.stub
    for _ in range(2):
        request = pb.BatchGetUserContextsRequest(user_ids=[4, 3, 99_999, 5], view=view)
        answer = await stub.BatchGetUserContexts(request)
        assert len(answer.contexts) == 2
        assert list(answer.too_large_user_ids) == [4]
        assert list(answer.missing_user_ids) == [99_999]
        assert not answer.remaining_user_ids
        with pytest.raises(FailedPrecondition) as refused:
            await stub.GetUserContext(pb.GetUserContextRequest(user_id=4, view=view))
        assert refused.value.reason == "CONTEXT_TOO_LARGE"


@pytest.mark.parametrize("view", [pb.CONTEXT_VIEW_MESSAGE, pb.CONTEXT_VIEW_JSON])
async def test_a_batch_from_the_cache_alone_reads_no_database(
    seeded_user_context: RunningUserContext,
    mysql_statements: list[str],
    view: pb.ContextView.ValueType,
) -> None:
    stub = seeded_user_context.stub
    wanted = [5, 99_999, 3, 6, 4]
    cached_only = pb.BatchGetUserContextsRequest(user_ids=wanted, view=view, cached_only=True)
    nothing = await stub.BatchGetUserContexts(cached_only)
    assert list(nothing.uncached_user_ids) == wanted
    whole = await stub.BatchGetUserContexts(
        pb.BatchGetUserContextsRequest(user_ids=[3, 4, 5, 99_999], view=view)
    )
    versions = [pb.CallStateVersion(user_id=4, version=10**9)]
    await stub.InvalidateCallStates(pb.InvalidateCallStatesRequest(versions=versions))
    sent = len(mysql_statements)

    answer = await stub.BatchGetUserContexts(cached_only)

    assert len(mysql_statements) == sent
    # A person known to be absent is left to a reading, which says so.
    assert list(answer.uncached_user_ids) == [99_999, 6, 4]
    assert not answer.missing_user_ids
    assert all(one.freshness.cached and not one.freshness.stale for one in answer.contexts)
    three, _, five = whole.contexts
    assert [(one.context, one.context_json) for one in answer.contexts] == [
        (one.context, one.context_json) for one in (five, three)
    ]


async def test_a_batch_of_no_people_is_empty(user_context: RunningUserContext) -> None:
    answer = await user_context.stub.BatchGetUserContexts(pb.BatchGetUserContextsRequest())

    assert answer == pb.BatchGetUserContextsResponse()


@pytest.mark.parametrize(
    ("user_ids", "reason"), [(range(1, 502), "TOO_MANY_USERS"), ([0], "USER_ID_MISSING")]
)
async def test_a_batch_that_cannot_be_is_refused(
    user_context: RunningUserContext, user_ids: range | list[int], reason: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await user_context.stub.BatchGetUserContexts(
            pb.BatchGetUserContextsRequest(user_ids=user_ids)
        )

    assert refused.value.reason == reason


async def test_an_id_that_was_not_given_is_refused(user_context: RunningUserContext) -> None:
    with pytest.raises(InvalidArgument):
        await _get(user_context, 0)


async def test_many_who_want_the_same_cause_one_reading_at_a_time(
    seeded_user_context: RunningUserContext, mysql_statements: list[str]
) -> None:
    before = len(mysql_statements)
    answers = await asyncio.gather(*(_get(seeded_user_context, 11) for _ in range(100)))
    readings = sum("START TRANSACTION" in sent for sent in mysql_statements[before:])

    assert {answer.context.user.user_id for answer in answers} == {11}
    assert 1 <= readings <= 2


async def test_a_change_of_the_call_state_is_seen_after_its_invalidation(
    seeded_user_context: RunningUserContext, mysql_statements: list[str]
) -> None:
    service = seeded_user_context
    service.queue.states[12] = call_state_pb2.CallState(user_id=12, score=1, version=5)
    first = await _get(service, 12)
    service.queue.states[12] = call_state_pb2.CallState(user_id=12, score=2, version=6)
    unaware = await _get(service, 12)
    sent = len(mysql_statements)
    await service.stub.InvalidateCallStates(
        pb.InvalidateCallStatesRequest(versions=[pb.CallStateVersion(user_id=12, version=6)])
    )
    aware = await _get(service, 12)
    settled = await _get(service, 12)

    assert (first.context.call_state.score, unaware.context.call_state.score) == (1, 1)
    assert aware.context.call_state.score == 2
    assert aware.freshness.etag != first.freshness.etag
    assert settled.freshness.cached
    assert settled.context == aware.context
    assert len(mysql_statements) == sent


async def test_an_invalidation_of_what_is_known_already_costs_nothing(
    seeded_user_context: RunningUserContext,
) -> None:
    service = seeded_user_context
    service.queue.states[13] = call_state_pb2.CallState(user_id=13, version=6)
    await _get(service, 13)
    asked = len(service.queue.asked)
    await service.stub.InvalidateCallStates(
        pb.InvalidateCallStatesRequest(
            versions=[
                pb.CallStateVersion(user_id=13, version=6),
                pb.CallStateVersion(user_id=14, version=1),
            ]
        )
    )

    assert (await _get(service, 13)).freshness.cached
    assert len(service.queue.asked) == asked


async def test_people_the_queue_has_never_heard_of_are_cached_too(
    seeded_user_context: RunningUserContext,
) -> None:
    await _get(seeded_user_context, 15)
    second = await _get(seeded_user_context, 15)

    assert second.freshness.cached
    assert second.context.call_state.user_id == 15
    assert seeded_user_context.queue.asked == [(15,)]


async def test_every_key_has_an_end(
    seeded_user_context: RunningUserContext, redis_url: str
) -> None:
    await _get(seeded_user_context, 16)
    link = link_to(redis_url)
    (kept_ms,) = await link.execute([("PTTL", "ctx:{16}")])
    await link.stop()

    assert 0 < kept_ms <= seeded_user_context.settings.context_kept_seconds * 1_000
    assert kept_ms > seeded_user_context.settings.context_fresh_seconds * 1_000
