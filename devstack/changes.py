"""Changes to the main app's rows, made the way the main app makes them.

`python -m devstack.changes --rate 20 --seconds 60` makes random ones on the stack that runs here,
or on the database that `--url` names.
"""

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

import pymysql

from devstack.mysql_connection import Connection, connect
from devstack.people import CANARY
from devstack.stack import Addresses, default_folder
from devstack.vocabulary import LENDERS

Cursor = pymysql.cursors.Cursor

_CONFLICTS = {1205, 1213}  # lock wait timeout, deadlock: the main app would try again later
_OPEN = "(status IS NULL OR status NOT IN ('complete', 'cancelled'))"


@dataclass(frozen=True, slots=True)
class Change:
    """A random change and the users it concerned; no user when there was nothing to change."""

    kind: str
    user_ids: tuple[int, ...]


class MainApp:
    """The main app's writes, one transaction each, through one connection of its own.

    Not for use by several threads at once. Every method raises `pymysql.Error`.
    """

    def __init__(self, writer_url: str, prepare: Callable[[Cursor], None] | None = None) -> None:
        """`prepare` is called before each transaction, to set the session's time, say."""
        self._url = writer_url
        self._prepare = prepare
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; a later change opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def sign(self, user_id: int) -> None:
        """The person signs: signature on file, signature requirements completed, logged."""
        with self._transaction() as cursor:
            cursor.execute(
                "UPDATE users SET current_signature_file_id = %s, updated_at = UTC_TIMESTAMP()"
                " WHERE id = %s",
                (str(uuid4()), user_id),
            )
            cursor.execute(
                "UPDATE claim_requirements r JOIN claims c ON c.id = r.claim_id"
                " SET r.status = 'COMPLETED', r.updated_at = UTC_TIMESTAMP()"
                " WHERE c.user_id = %s AND r.type = 'signature' AND r.status = 'PENDING'",
                (user_id,),
            )
            _log(cursor, user_id, "signature_added")

    def unsign(self, user_id: int) -> None:
        """The signature is rejected: the person has to sign again."""
        self._execute(
            "UPDATE users SET current_signature_file_id = NULL, updated_at = UTC_TIMESTAMP()"
            " WHERE id = %s",
            (user_id,),
        )

    def log_in(self, user_id: int) -> None:
        """The commonest change, which concerns no queue."""
        with self._transaction() as cursor:
            cursor.execute(
                "UPDATE users SET last_login = UTC_TIMESTAMP(), updated_at = UTC_TIMESTAMP()"
                " WHERE id = %s",
                (user_id,),
            )
            _log(cursor, user_id, "login")

    def change_phone(self, user_id: int, phone_number: str | None) -> None:
        """The person's phone number as they typed it."""
        self._execute(
            "UPDATE users SET phone_number = %s, updated_at = UTC_TIMESTAMP() WHERE id = %s",
            (phone_number, user_id),
        )

    def rename(self, user_id: int, last_name: str, phone_number: str, email: str) -> None:
        """The person corrects who they are."""
        self._execute(
            "UPDATE users SET last_name = %s, phone_number = %s, email_address = %s,"
            " updated_at = UTC_TIMESTAMP() WHERE id = %s",
            (last_name, phone_number, email, user_id),
        )

    def set_status(self, user_id: int, status: str | None) -> None:
        """`inactive` ends contact; NULL is ordinary."""
        self._execute(
            "UPDATE users SET status = %s, updated_at = UTC_TIMESTAMP() WHERE id = %s",
            (status, user_id),
        )

    def set_enabled(self, user_id: int, *, enabled: bool) -> None:
        self._execute(
            "UPDATE users SET is_enabled = %s, updated_at = UTC_TIMESTAMP() WHERE id = %s",
            (int(enabled), user_id),
        )

    def add_person(self, *, phone_number: str | None = "07700 900123") -> int:
        """A new person with one claim that wants a signature; returns the person's id."""
        email = f"new.{uuid4().hex}@example.com"
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO users (email_address, password, first_name, last_name, phone_number,"
                " created_at, updated_at)"
                " VALUES (%s, %s, 'Siân', 'O''Connor', %s, UTC_TIMESTAMP(), UTC_TIMESTAMP())",
                (email, f"{CANARY}-password-{email}", phone_number),
            )
            user_id = int(cursor.lastrowid)
            _insert_requirement(cursor, _insert_claim(cursor, user_id, "Black Horse"), "signature")
            _log(cursor, user_id, "registered")
        return user_id

    def delete_person(self, user_id: int) -> None:
        """The claims and what hangs on them go by cascade, without events of their own."""
        with self._transaction() as cursor:
            cursor.execute("DELETE FROM user_addresses WHERE user_id = %s", (user_id,))
            cursor.execute("DELETE FROM user_logs WHERE user_id = %s", (user_id,))
            cursor.execute("DELETE FROM users WHERE id = %s", (user_id,))

    def add_claim(self, user_id: int, lender: str = "Black Horse") -> int:
        """A new open claim without requirements; returns its id."""
        with self._transaction() as cursor:
            return _insert_claim(cursor, user_id, lender)

    def end_claim(self, claim_id: int, status: str = "complete") -> None:
        self.update_claims([claim_id], status)

    def update_claims(self, claim_ids: Sequence[int], status: str | None) -> int:
        """One UPDATE of many claims; returns how many rows it changed."""
        places = ", ".join(["%s"] * len(claim_ids))
        return self._execute(
            f"UPDATE claims SET status = %s, updated_at = UTC_TIMESTAMP() WHERE id IN ({places})",
            (status, *claim_ids),
        )

    def set_claim_status_quietly(self, claim_id: int, status: str | None) -> None:
        """A raw update, which leaves `updated_at` as it was."""
        self._execute("UPDATE claims SET status = %s WHERE id = %s", (status, claim_id))

    def move_claim(self, claim_id: int, user_id: int) -> None:
        """The claim turns out to be another person's."""
        self._execute(
            "UPDATE claims SET user_id = %s, updated_at = UTC_TIMESTAMP() WHERE id = %s",
            (user_id, claim_id),
        )

    def delete_claim(self, claim_id: int) -> None:
        """Its requirements and vehicle packages go by cascade, without events of their own."""
        self._execute("DELETE FROM claims WHERE id = %s", (claim_id,))

    def add_requirement(self, claim_id: int, kind: str, reason: str | None = None) -> str:
        """A new PENDING requirement; returns its id."""
        with self._transaction() as cursor:
            return _insert_requirement(cursor, claim_id, kind, reason)

    def complete_requirement(self, requirement_id: str) -> None:
        self._execute(
            "UPDATE claim_requirements SET status = 'COMPLETED', updated_at = UTC_TIMESTAMP()"
            " WHERE id = %s",
            (requirement_id,),
        )

    def _execute(self, statement: str, arguments: Sequence[object]) -> int:
        with self._transaction() as cursor:
            return cursor.execute(statement, tuple(arguments))

    def _row(self, query: str, arguments: Sequence[object] = ()) -> tuple[Any, ...] | None:
        with self._transaction() as cursor:
            cursor.execute(query, tuple(arguments))
            return cursor.fetchone()

    @contextmanager
    def _transaction(self) -> Iterator[Cursor]:
        if self._connection is None:
            self._connection = connect(self._url)
        try:
            with self._connection.cursor() as cursor:
                if self._prepare is not None:
                    self._prepare(cursor)
                yield cursor
            self._connection.commit()
        except BaseException:
            # The server rolls back what the lost connection had begun.
            self.close()
            raise

    def random_change(self, rng: Random) -> Change:
        """One change in a realistic mix; the same `rng` on the same rows makes the same choice."""
        (kind,) = rng.choices(list(_MIX), weights=[weight for weight, _ in _MIX.values()])
        return Change(kind, _MIX[kind][1](self, rng))

    def _random_id(self, table: str, rng: Random, condition: str = "TRUE") -> int | None:
        """The first row that meets the condition from a random id on, if there is one."""
        bounds = self._row(f"SELECT MIN(id), MAX(id) FROM {table}")
        if bounds is None or bounds[0] is None:
            return None
        query = f"SELECT id FROM {table} WHERE id >= %s AND {condition} ORDER BY id LIMIT 1"
        row = self._row(query, (rng.randint(*bounds),))
        return None if row is None else int(row[0])

    def _random_claim(self, rng: Random, condition: str = "TRUE") -> tuple[int, int] | None:
        """The ids of a claim and of its person."""
        claim_id = self._random_id("claims", rng, condition)
        row = self._row("SELECT user_id FROM claims WHERE id = %s", (claim_id,))
        return None if claim_id is None or row is None else (claim_id, int(row[0]))

    def _random_requirement(self, rng: Random) -> tuple[str, int] | None:
        """The ids of a pending requirement and of its person."""
        row = self._row(
            "SELECT r.id, c.user_id FROM claim_requirements r JOIN claims c ON c.id = r.claim_id"
            " WHERE r.id >= %s AND r.status = 'PENDING' ORDER BY r.id LIMIT 1",
            (str(UUID(int=rng.getrandbits(128))),),
        )
        return None if row is None else (str(row[0]), int(row[1]))

    def _sign_someone(self, rng: Random) -> tuple[int, ...]:
        return self._to_someone(rng, self.sign, "current_signature_file_id IS NULL")

    def _log_someone_in(self, rng: Random) -> tuple[int, ...]:
        return self._to_someone(rng, self.log_in)

    def _change_a_phone(self, rng: Random) -> tuple[int, ...]:
        phone = f"07700 900{rng.randrange(1000):03}"
        return self._to_someone(rng, lambda user_id: self.change_phone(user_id, phone))

    def _change_a_status(self, rng: Random) -> tuple[int, ...]:
        status = rng.choice((None, "active", "inactive"))
        return self._to_someone(rng, lambda user_id: self.set_status(user_id, status))

    def _add_someone(self, rng: Random) -> tuple[int, ...]:
        return (self.add_person(phone_number=f"020 7946 0{rng.randrange(1000):03}"),)

    def _delete_someone(self, rng: Random) -> tuple[int, ...]:
        return self._to_someone(rng, self.delete_person)

    def _to_someone(
        self, rng: Random, change: Callable[[int], None], condition: str = "TRUE"
    ) -> tuple[int, ...]:
        user_id = self._random_id("users", rng, condition)
        if user_id is None:
            return ()
        change(user_id)
        return (user_id,)

    def _add_a_claim(self, rng: Random) -> tuple[int, ...]:
        lender = rng.choice(rng.choice(LENDERS))
        return self._to_someone(rng, lambda user_id: self._add_claim_of(user_id, lender))

    def _add_claim_of(self, user_id: int, lender: str) -> None:
        self.add_claim(user_id, lender)

    def _end_a_claim(self, rng: Random) -> tuple[int, ...]:
        status = rng.choice(("complete", "cancelled"))
        return self._to_a_claim(rng, lambda claim_id: self.end_claim(claim_id, status))

    def _change_a_claim_quietly(self, rng: Random) -> tuple[int, ...]:
        status = rng.choice((None, "pending", "in_progress"))
        return self._to_a_claim(rng, lambda each: self.set_claim_status_quietly(each, status))

    def _delete_a_claim(self, rng: Random) -> tuple[int, ...]:
        return self._to_a_claim(rng, self.delete_claim)

    def _to_a_claim(self, rng: Random, change: Callable[[int], None]) -> tuple[int, ...]:
        claim = self._random_claim(rng)
        if claim is None:
            return ()
        change(claim[0])
        return (claim[1],)

    def _move_a_claim(self, rng: Random) -> tuple[int, ...]:
        claim, user_id = self._random_claim(rng), self._random_id("users", rng)
        if claim is None or user_id is None:
            return ()
        self.move_claim(claim[0], user_id)
        return (claim[1], user_id)

    def _change_many_claims(self, rng: Random) -> tuple[int, ...]:
        first = self._random_id("claims", rng)
        with self._transaction() as cursor:
            cursor.execute(
                "SELECT id, user_id FROM claims WHERE id >= %s ORDER BY id LIMIT %s",
                (first, rng.randint(5, 50)),
            )
            claims = cursor.fetchall()
        if claims:
            self.update_claims([int(row[0]) for row in claims], "in_progress")
        return tuple({int(row[1]): None for row in claims})

    def _add_a_requirement(self, rng: Random) -> tuple[int, ...]:
        claim = self._random_claim(rng, _OPEN)
        if claim is None:
            return ()
        self.add_requirement(claim[0], rng.choice(("proof_of_address", "bank_statement", "cfa")))
        return (claim[1],)

    def _complete_a_requirement(self, rng: Random) -> tuple[int, ...]:
        requirement = self._random_requirement(rng)
        if requirement is None:
            return ()
        self.complete_requirement(requirement[0])
        return (requirement[1],)


# By kind: how many in a hundred, and how one is made.
_MIX: dict[str, tuple[int, Callable[[MainApp, Random], tuple[int, ...]]]] = {
    "requirement_completed": (25, MainApp._complete_a_requirement),
    "login": (20, MainApp._log_someone_in),
    "requirement_added": (13, MainApp._add_a_requirement),
    "signed": (9, MainApp._sign_someone),
    "claim_changed_quietly": (8, MainApp._change_a_claim_quietly),
    "claim_added": (6, MainApp._add_a_claim),
    "claim_ended": (5, MainApp._end_a_claim),
    "phone_changed": (4, MainApp._change_a_phone),
    "person_added": (4, MainApp._add_someone),
    "status_changed": (2, MainApp._change_a_status),
    "claim_deleted": (1, MainApp._delete_a_claim),
    "claim_moved": (1, MainApp._move_a_claim),
    "claims_changed_in_bulk": (1, MainApp._change_many_claims),
    "person_deleted": (1, MainApp._delete_someone),
}


def run_changes(
    app: MainApp, changes_per_second: float, stop: threading.Event, rng: Random | None = None
) -> Counter[str]:
    """Makes random changes at a steady rate until `stop` is set; returns how many of each kind.

    Late ones are made at once. While the server cannot be reached it tries again each second.
    """
    rng = rng or Random()
    made: Counter[str] = Counter()
    due = time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        due += 1 / changes_per_second
        try:
            made[app.random_change(rng).kind] += 1
        except pymysql.err.OperationalError as error:
            if error.args[0] not in _CONFLICTS:
                due = time.monotonic() + 1
    return made


def _insert_claim(cursor: Cursor, user_id: int, lender: str) -> int:
    cursor.execute(
        "INSERT INTO claims (user_id, type, lender, created_at, updated_at)"
        " VALUES (%s, 'motor_finance', %s, UTC_TIMESTAMP(), UTC_TIMESTAMP())",
        (user_id, lender),
    )
    return int(cursor.lastrowid)


def _insert_requirement(cursor: Cursor, claim_id: int, kind: str, reason: str | None = None) -> str:
    requirement_id = str(uuid4())
    cursor.execute(
        "INSERT INTO claim_requirements (id, claim_id, type, status, claim_requirement_reason,"
        " created_at, updated_at)"
        " VALUES (%s, %s, %s, 'PENDING', %s, UTC_TIMESTAMP(), UTC_TIMESTAMP())",
        (requirement_id, claim_id, kind, reason),
    )
    return requirement_id


def _log(cursor: Cursor, user_id: int, kind: str) -> None:
    cursor.execute(
        "INSERT INTO user_logs (id, user_id, type, ip_address, created_at)"
        " VALUES (%s, %s, %s, %s, UTC_TIMESTAMP())",
        (str(uuid4()), user_id, kind, f"{CANARY}-ip-{user_id}"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m devstack.changes", description=__doc__)
    parser.add_argument("--url", help="the main app's database, for an account that may write")
    parser.add_argument("--rate", type=float, default=1.0, help="changes a second")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long")
    parser.add_argument("--seed", type=int, help="for the same choices each time")
    options = parser.parse_args()
    stop = threading.Event()
    timer = threading.Timer(options.seconds, stop.set)
    timer.daemon = True
    timer.start()
    with MainApp(options.url or _running_stack()) as app:
        made = run_changes(app, options.rate, stop, Random(options.seed))
    for kind, count in made.most_common():
        print(f"{count:8}  {kind}")


def _running_stack() -> str:
    try:
        return Addresses.load(default_folder()).mysql_writer
    except FileNotFoundError:
        sys.exit("Nothing is running here. Start it with `make run`, or name a database: --url")


if __name__ == "__main__":
    main()
