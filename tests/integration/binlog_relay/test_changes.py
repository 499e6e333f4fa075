"""What the relay makes of changes in the main app."""

import json
import re
import time

from tests.integration.binlog_relay.bench import RelayBench


async def test_a_lone_change_is_one_dms_record(bench: RelayBench) -> None:
    async with bench.relay():
        before_us = time.time_ns() // 1000
        await bench.add_users([7], first_name="Ann", status=None, date_of_birth="1980-02-29")
        received = await bench.receive_records(1)
    [record] = received.records
    assert json.loads(received.bodies[0]) == record
    data, metadata = record["data"], record["metadata"]
    assert data["id"] == 7
    assert data["first_name"] == "Ann"
    assert data["status"] is None
    assert data["is_enabled"] == 1
    assert data["date_of_birth"] == "1980-02-29"
    assert metadata["record-type"] == "data"
    assert metadata["operation"] == "insert"
    assert metadata["partition-key-type"] == "schema-table"
    assert metadata["schema-name"] == bench.main_app.name
    assert metadata["table-name"] == "users"
    assert metadata["transaction-id"] > 0
    assert metadata["commit-timestamp"].endswith("Z")
    assert re.fullmatch("[0-9a-f]{16}", metadata["source-server"])
    number = metadata["transaction-id"]
    assert re.fullmatch(rf"\d+-\d+-{number}|[0-9a-f-]{{36}}:{number}", metadata["source-gtid"])
    [attributes] = received.attributes
    assert attributes["source"] == "binlog_relay"
    assert attributes["traceparent"].startswith("00-")
    assert int(attributes["captured_at_us"]) >= before_us
    assert abs(int(attributes["committed_at_us"]) - before_us) < 3_000_000


async def test_an_update_carries_both_images(bench: RelayBench) -> None:
    await bench.add_users([1])
    async with bench.relay():
        await bench.execute("UPDATE users SET status = 'inactive', phone_number = '07700 900123'")
        received = await bench.receive_records(1)
    [record] = received.records
    assert record["metadata"]["operation"] == "update"
    assert record["before-image"]["status"] is None
    assert record["data"]["status"] == "inactive"
    assert record["data"]["phone_number"] == "07700 900123"
    assert record["before-image"].keys() == record["data"].keys()


async def test_a_deleted_row_is_sent_in_full(bench: RelayBench) -> None:
    await bench.add_users([5], first_name="Eve")
    async with bench.relay():
        await bench.execute("DELETE FROM users WHERE id = 5")
        received = await bench.receive_records(1)
    [record] = received.records
    assert record["metadata"]["operation"] == "delete"
    assert record["data"]["first_name"] == "Eve"
    assert "before-image" not in record


async def test_a_row_that_moves_between_users_names_both(bench: RelayBench) -> None:
    await bench.add_users([1, 2])
    await bench.execute("INSERT INTO claims (id, user_id, type) VALUES (9, 1, 'pcp')")
    async with bench.relay():
        await bench.execute("UPDATE claims SET user_id = 2 WHERE id = 9")
        received = await bench.receive_records(1)
    [record] = received.records
    assert record["before-image"]["user_id"] == 1
    assert record["data"]["user_id"] == 2


async def test_values_are_printed_as_dms_prints_them(bench: RelayBench) -> None:
    largest = 18_446_744_073_709_551_615
    await bench.add_users([1])
    async with bench.relay():
        await bench.execute(
            f"INSERT INTO claims (id, user_id, type, created_at)"
            f" VALUES ({largest}, 1, 'pcp', '2024-03-31 01:30:00')",
            "INSERT INTO claim_vehicle_packages (id, claim_id, monthly_payment, dealership_name,"
            f" contract_start_date) VALUES ('a', {largest}, -1234.50, 'Käfer \\' \\\\ \\n', NULL)",
        )
        received = await bench.receive_records(2)
    # Two messages may come in either order.
    by_table = {it["metadata"]["table-name"]: it for it in received.records}
    claim, package = by_table["claims"], by_table["claim_vehicle_packages"]
    assert claim["data"]["id"] == largest
    assert claim["data"]["created_at"] == "2024-03-31T01:30:00Z"
    assert claim["data"]["lender"] is None
    assert '"monthly_payment":-1234.50' in "".join(received.bodies)
    assert package["data"]["claim_id"] == largest
    assert package["data"]["dealership_name"] == "Käfer ' \\ \n"
    assert package["data"]["contract_start_date"] is None


async def test_characters_that_sqs_refuses_arrive(bench: RelayBench) -> None:
    async with bench.relay():
        await bench.add_users([1], first_name="a\uffffb\ufffec\x01d")
        received = await bench.receive_records(1)
    assert received.records[0]["data"]["first_name"] == "a\uffffb\ufffec\x01d"


async def test_a_row_too_long_for_a_message_keeps_the_columns_that_identify_its_user(
    bench: RelayBench,
) -> None:
    await bench.add_users([1])
    long_text = "\x02" * 60_000
    async with bench.relay():
        await bench.execute(
            "INSERT INTO user_addresses (id, user_id, full_address)"
            f" VALUES ('home', 1, '{long_text}')"
        )
        received = await bench.receive_records(1)
    assert received.records[0]["data"] == {"id": "home", "user_id": 1}


async def test_secret_and_unused_columns_are_never_sent(bench: RelayBench) -> None:
    canary = "canary-5e1f"
    json_canary = json.dumps({"answer": canary})
    users = {
        "password": canary,
        "remember_token": canary,
        "justcall_id": canary,
        "voluum_click_id": canary,
        "pipedrive_id": canary,
        "google_drive_link": canary,
        "checkboard_address_links_api_request": json_canary,
        "checkboard_address_links_api_response": json_canary,
        "checkboard_user_invite_api_request": json_canary,
        "checkboard_user_batch_api_request": json_canary,
        "checkboard_user_verify_otp_api_request": json_canary,
    }
    async with bench.relay():
        await bench.add_users([1], **users)
        await bench.execute(
            "UPDATE users SET first_name = 'Ann' WHERE id = 1",
            "INSERT INTO user_addresses (id, user_id, checkboard_raw_address,"
            " openai_matching_result, openai_matching_api_details)"
            f" VALUES ('home', 1, '{json_canary}', '{json_canary}', '{json_canary}')",
            "INSERT INTO user_logs (id, user_id, type, ip_address)"
            f" VALUES ('log', 1, 'login', '{canary}')",
            "UPDATE users SET last_name = 'Lee' WHERE id = 1",
            "DELETE FROM users WHERE id = 1",
        )
        received = await bench.receive_records(5)
    assert len(received.records) == 5
    everything = "".join(received.bodies) + json.dumps(received.attributes)
    assert canary not in everything
    assert not any(name in everything for name in users)
    assert "user_logs" not in everything


async def test_many_changes_are_packed_and_none_is_missing(bench: RelayBench) -> None:
    async with bench.relay() as parts:
        await bench.add_users(range(1, 5_001), first_name="Ann")
        received = await bench.receive_records(5_000)
        await bench.caught_up(parts)
        answer = await bench.position(parts)
    assert sorted(received.ids()) == list(range(1, 5_001))
    assert answer.records_published == 5_000
    assert answer.messages_published == len(received.bodies)
    assert len(received.bodies) < 2_500
    assert max(len(body.encode()) for body in received.bodies) <= 200 * 1024


async def test_of_a_bulk_transaction_keys_and_compared_columns_are_sent(bench: RelayBench) -> None:
    async with bench.relay() as parts:
        await bench.add_users(range(1, 2_001), first_name="Ann", status="old")
        await bench.receive_records(2_000)
        await bench.execute("UPDATE users SET status = 'new', last_name = 'Ox'")
        await bench.add_users([3_000])
        received = await bench.receive_records(2_001)
        await bench.caught_up(parts)
    assert sorted(received.ids()) == [*range(1, 2_001), 3_000]
    *bulk, lone = sorted(received.records, key=lambda record: record["data"]["id"])
    assert "first_name" in lone["data"]
    narrow = [record for record in bulk if "first_name" not in record["data"]]
    assert len(narrow) > 1_500
    assert len({record["metadata"]["source-gtid"] for record in narrow}) == 1
    for record in narrow:
        assert record["metadata"]["operation"] == "update"
        kept = {"id": record["data"]["id"], "is_enabled": 1, "current_signature_file_id": None}
        assert record["before-image"] == kept | {"status": "old"}
        assert record["data"] == kept | {"status": "new"}
    marked = [attributes for attributes in received.attributes if "bulk" in attributes]
    assert marked
    assert all("unsent_since_us" not in attributes for attributes in marked)


async def test_few_rows_are_no_bulk_change_however_long_their_texts_are(bench: RelayBench) -> None:
    """Nor is a short row in the same transaction."""
    await bench.add_users([1, 2])
    channels = '"' + "x" * 40_000 + '"'
    async with bench.relay():
        await bench.transaction(
            *(
                f"UPDATE users SET notification_channels = '{channels}' WHERE id = {user_id}"
                for user_id in (1, 2)
            ),
            "UPDATE users SET status = 'inactive' WHERE id = 2",
        )
        received = await bench.receive_records(3)
    assert all("bulk" not in attributes for attributes in received.attributes)
    assert received.records[-1]["data"]["status"] == "inactive"


async def test_a_change_behind_a_bulk_transaction_is_not_sent_after_all_of_it(
    bench: RelayBench,
) -> None:
    # Small requests: hundreds for the bulk transaction, of which the first few hold its first rows.
    async with bench.relay(max_request_bytes=4_096) as parts:
        await bench.add_users(range(1, 20_001))
        await bench.add_users([30_000])
        received = await bench.receive(lambda so_far: len(set(so_far.ids())) == 20_001)
        await bench.caught_up(parts)
    place = next(n for n, body in enumerate(received.bodies) if '"id":30000,' in body)
    assert place < len(received.bodies) - 10
    lone = received.attributes[place]
    assert int(lone["unsent_since_us"]) <= int(lone["committed_at_us"])


async def test_changes_of_a_table_itself_are_control_records(bench: RelayBench) -> None:
    name = bench.main_app.name
    async with bench.relay():
        await bench.execute(
            "SET FOREIGN_KEY_CHECKS = 0",
            "ALTER TABLE claims ADD COLUMN colour varchar(10) FIRST",
            "TRUNCATE TABLE user_addresses",
            f"RENAME TABLE user_addresses TO _old, {name}.user_logs TO user_addresses",
            "DROP TABLE IF EXISTS _old, user_addresses",
        )
        received = await bench.receive_records(4)
    found = [(r["metadata"]["operation"], r["metadata"]["table-name"]) for r in received.records]
    assert sorted(found) == [
        ("change-columns", "claims"),
        ("drop-table", "user_addresses"),
        ("rename-table", "user_addresses"),
        ("truncate-table", "user_addresses"),
    ]
    assert all(record["metadata"]["record-type"] == "control" for record in received.records)
    assert all("data" not in record for record in received.records)


async def test_columns_added_in_front_do_not_shift_the_others(bench: RelayBench) -> None:
    await bench.add_users([1, 2])
    await bench.execute("INSERT INTO claims (id, user_id, type) VALUES (9, 1, 'pcp')")
    async with bench.relay():
        await bench.execute(
            "UPDATE claims SET lender = 'before' WHERE id = 9",
            "ALTER TABLE claims ADD COLUMN colour varchar(10) FIRST,"
            " ADD COLUMN shade bit(9) AFTER user_id",
            "UPDATE claims SET lender = 'after', colour = 'red', shade = 5 WHERE id = 9",
        )
        received = await bench.receive_records(3)
    rows = [record["data"] for record in received.records if "data" in record]
    assert [row["lender"] for row in rows] == ["before", "after"]
    assert [row["id"] for row in rows] == [9, 9]
    assert "colour" not in rows[1]


async def test_another_databases_changes_are_not_ours(bench: RelayBench) -> None:
    other = f"{bench.main_app.name}_other"
    async with bench.relay() as parts:
        await bench.execute(
            f"CREATE DATABASE {other}",
            f"CREATE TABLE {other}.users (id int PRIMARY KEY)",
            f"INSERT INTO {other}.users VALUES (1)",
            f"DROP DATABASE {other}",
        )
        await bench.add_users([3])
        received = await bench.receive_records(1)
        await bench.caught_up(parts)
        assert (await bench.position(parts)).records_published == 1
    assert received.ids() == [3]


async def test_the_position_moves_with_changes_that_are_not_ours(bench: RelayBench) -> None:
    async with bench.relay() as parts:
        before = await bench.position(parts)
        await bench.execute(
            "INSERT INTO user_logs (id, user_id, type) VALUES ('a', 1, 'login')",
        )
        await bench.caught_up(parts)
        after = await bench.position(parts)
    assert (after.file, after.offset) > (before.file, before.offset)
    assert after.gtid != before.gtid
    assert after.records_published == 0
