"""Silent damage without a change message, done to users chosen at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any
from uuid import uuid4

import redis

from devstack.mysql_connection import connect
from devstack.stack import DIALLER, MAIN_APP, Stack

EACH = 20
INVENTED_FROM = 900_000_000

_OPEN = "(status IS NULL OR status NOT IN ('complete', 'cancelled'))"


class Damage:
    """Damages different people in each way; `people` are those not yet used for anything."""

    def __init__(self, stack: Stack, seed: int) -> None:
        self._stack = stack
        self._rng = Random(seed)
        self._redis = redis.Redis.from_url(stack.addresses.redis)
        rows = stack.main_app.rows(
            "SELECT user_id FROM claims GROUP BY user_id HAVING count(*) > 1"
        )
        self.people = [int(row[0]) for row in rows]
        self._rng.shuffle(self.people)

    def close(self) -> None:
        """Let go of Redis."""
        self._redis.close()

    def do_all(self) -> dict[str, set[int]]:
        """Return who was damaged, by the name of the damage."""
        return {damage.__name__: damage(self) for damage in DAMAGES}

    def take(self, count: int = EACH) -> list[int]:
        """Return users that no other damage is given."""
        taken, self.people = self.people[:count], self.people[count:]
        return taken

    @contextmanager
    def unlogged(self) -> Iterator[Any]:
        """A cursor in the main app whose changes are in no binlog."""
        url = self._stack.mariadb.url(MAIN_APP, user="admin", driver="mysql+pymysql")
        connection = connect(url)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET sql_log_bin = 0")
                yield cursor
            connection.commit()
        finally:
            connection.close()

    def in_mysql(self, statement: str, count: int = EACH) -> set[int]:
        """Run a statement for each of some people; `%s` is their id."""
        people = self.take(count)
        with self.unlogged() as cursor:
            for user_id in people:
                cursor.execute(statement, (user_id,))
                assert cursor.rowcount, statement
        return set(people)

    def in_postgres(self, statement: str) -> set[int]:
        """Run a statement for some people of the queues; `{ids}` are theirs."""
        found = self._stack.postgres.execute(
            "SELECT user_id FROM queue.entries WHERE state = 1 AND queue IN (1, 2)",
            database=DIALLER,
        )
        waiting = set(map(int, found.split()))
        people = [user_id for user_id in self.people if user_id in waiting][:EACH]
        self.people = [user_id for user_id in self.people if user_id not in people]
        assert len(people) == EACH
        ids = ", ".join(map(str, people))
        self._stack.postgres.execute(statement.format(ids=ids), database=DIALLER)
        return set(people)

    def cached(self, user_id: int) -> dict[bytes, bytes]:
        """Return what the cache holds of the main app's part."""
        found: Any = self._redis.hgetall(f"ctx:{{{user_id}}}")
        return {name: value for name, value in found.items() if name.startswith(b"m")}

    def cache(self, user_id: int, fields: dict[bytes, bytes]) -> None:
        """Overwrite what the cache holds."""
        self._redis.hset(f"ctx:{{{user_id}}}", mapping=fields)  # type: ignore[arg-type]

    def shuffled(self, count: int) -> list[int]:
        """Return a few people as `take` does, in pairs."""
        return self.take(2 * count)


def name_changed(damage: Damage) -> set[int]:
    return damage.in_mysql("UPDATE users SET first_name = 'Quietly' WHERE id = %s")


def signature_obtained(damage: Damage) -> set[int]:
    return damage.in_mysql(
        "UPDATE users SET current_signature_file_id = UUID(), status = 'quiet' WHERE id = %s"
    )


def null_became_empty(damage: Damage) -> set[int]:
    return damage.in_mysql(
        "UPDATE users SET previous_name = IF(previous_name IS NULL, '', NULL) WHERE id = %s"
    )


def login_moved_by_a_second(damage: Damage) -> set[int]:
    return damage.in_mysql(
        "UPDATE users SET last_login = COALESCE(last_login, '2026-01-01') + INTERVAL 1 SECOND"
        " WHERE id = %s"
    )


def person_deleted(damage: Damage) -> set[int]:
    return damage.in_mysql("DELETE FROM users WHERE id = %s")


def person_added(damage: Damage) -> set[int]:
    added = set()
    with damage.unlogged() as cursor:
        for _ in range(EACH):
            cursor.execute(
                "INSERT INTO users (email_address, first_name, last_name, password, is_enabled)"
                " VALUES (%s, 'New', 'Person', '', 1)",
                (f"{uuid4()}@example.org",),
            )
            added.add(int(cursor.lastrowid))
    return added


def both_claims_changed_alike(damage: Damage) -> set[int]:
    """Two rows whose fingerprints change by the same bits."""
    return damage.in_mysql("UPDATE claims SET status = 'closing!' WHERE user_id = %s")


def claim_moved(damage: Damage) -> set[int]:
    people = damage.shuffled(EACH)
    with damage.unlogged() as cursor:
        for giver, taker in zip(people[::2], people[1::2], strict=True):
            cursor.execute(
                "UPDATE claims SET user_id = %s WHERE user_id = %s LIMIT 1", (taker, giver)
            )
            assert cursor.rowcount
    return set(people)


def claim_deleted(damage: Damage) -> set[int]:
    """Its requirements and vehicle packages go with it."""
    return damage.in_mysql("DELETE FROM claims WHERE user_id = %s LIMIT 1")


def requirement_added(damage: Damage) -> set[int]:
    return damage.in_mysql(
        "INSERT INTO claim_requirements (id, claim_id, type, status)"
        " SELECT UUID(), min(id), 'proof_of_address', 'PENDING' FROM claims WHERE user_id = %s"
    )


def vehicle_package_changed(damage: Damage) -> set[int]:
    return damage.in_mysql(
        "INSERT INTO claim_vehicle_packages (id, claim_id, vehicle_make, monthly_payment)"
        " SELECT UUID(), max(id), 'Quiet', 199.90 FROM claims WHERE user_id = %s"
    )


def address_added(damage: Damage) -> set[int]:
    return damage.in_mysql(
        "INSERT INTO user_addresses (id, user_id, full_address, post_code)"
        " VALUES (UUID(), %s, '1 Quiet Lane', 'ZZ1 1ZZ')"
    )


def cached_text_altered(damage: Damage) -> set[int]:
    people = damage.take()
    for user_id in people:
        fields = damage.cached(user_id)
        fields[b"mj"] = fields[b"mj"][:-20] + b"!" + fields[b"mj"][-19:]
        damage.cache(user_id, fields)
    return set(people)


def cached_as_another_user(damage: Damage) -> set[int]:
    people = damage.shuffled(EACH)
    for original, copy in zip(people[::2], people[1::2], strict=True):
        damage.cache(copy, damage.cached(original))
    return set(people[1::2])


def entry_removed(damage: Damage) -> set[int]:
    return damage.in_postgres("DELETE FROM queue.entries WHERE user_id IN ({ids})")


def entry_moved(damage: Damage) -> set[int]:
    return damage.in_postgres("UPDATE queue.entries SET queue = 3 - queue WHERE user_id IN ({ids})")


def entry_moved_with_its_reason(damage: Damage) -> set[int]:
    return damage.in_postgres(
        "UPDATE queue.entries SET queue = 3 - queue, eligible_queue = 3 - eligible_queue,"
        " open_case_queue = 3 - open_case_queue WHERE user_id IN ({ids})"
    )


def entry_put_out(damage: Damage) -> set[int]:
    return damage.in_postgres(
        "UPDATE queue.entries SET queue = NULL, state = 6, eligible_queue = NULL"
        " WHERE user_id IN ({ids})"
    )


def phone_altered(damage: Damage) -> set[int]:
    return damage.in_postgres(
        "UPDATE queue.entries SET phones = '{{+447700900999}}' WHERE user_id IN ({ids})"
    )


def entry_duplicated(damage: Damage) -> set[int]:
    """People who do not exist, with the entries of people who do."""
    stack = damage._stack
    columns = stack.postgres.execute(
        "SELECT string_agg(column_name, ', ') FROM information_schema.columns"
        " WHERE table_schema = 'queue' AND table_name = 'entries' AND column_name <> 'user_id'",
        database=DIALLER,
    ).strip()
    stack.postgres.execute(
        f"INSERT INTO queue.entries (user_id, {columns})"
        f" SELECT {INVENTED_FROM} + user_id, {columns} FROM queue.entries"
        f" WHERE state = 1 ORDER BY user_id DESC LIMIT {EACH}",
        database=DIALLER,
    )
    found = stack.postgres.execute(
        f"SELECT user_id FROM queue.entries WHERE user_id > {INVENTED_FROM}",
        database=DIALLER,
    )
    return set(map(int, found.split()))


DAMAGES: tuple[Callable[[Damage], set[int]], ...] = (
    # First those of the cache: nothing has refreshed it yet.
    cached_text_altered,
    cached_as_another_user,
    name_changed,
    signature_obtained,
    null_became_empty,
    login_moved_by_a_second,
    person_deleted,
    person_added,
    both_claims_changed_alike,
    claim_moved,
    claim_deleted,
    requirement_added,
    vehicle_package_changed,
    address_added,
    entry_removed,
    entry_moved,
    entry_moved_with_its_reason,
    entry_put_out,
    phone_altered,
    entry_duplicated,
)
