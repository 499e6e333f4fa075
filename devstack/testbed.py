"""A small suite for tests written in other languages: `python -m devstack.testbed`.

Says where it is in one line of JSON, then does what each line on its standard input asks for and
answers each with a line. The end of its input ends it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from devstack.changes import MainApp
from devstack.desk import Desk
from devstack.stack import Stack
from gateway.token import development_token

Command = Callable[..., object]


class Testbed:
    """What tests may do to the suite from outside."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._main_app = MainApp(stack.addresses.mysql_writer)

    def commands(self) -> dict[str, Command]:
        """Return what can be asked for, by name."""
        return {
            "token": self.token,
            "sign": lambda user_id: self._main_app.sign(int(user_id)),
            "change_phone": lambda user_id, phone_number: self._main_app.change_phone(
                int(user_id), phone_number
            ),
            "add_requirement": self._main_app.add_requirement,
            "stop": lambda name: self._stack.services[name].stop(),
            "restart": self._stack.restart,
            "forget_events": lambda: self._stack.redis.ask("FLUSHALL") and None,
        }

    def token(self, role: str, subject: str, **options: Any) -> str:
        """Return a token the gateway takes."""
        return development_token(self._stack.addresses.jwt_secret, role, subject, **options)


def main() -> int:
    """Run until the input ends."""
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="dialler-testbed-"))
    folder.chmod(0o711)
    origins = {"GATEWAY_CORS_ORIGINS": json.dumps(arguments.origin)}
    stack = Stack(
        folder,
        users=arguments.users,
        durable=False,
        extra_environment=origins,
        report=lambda _: None,
    )
    try:
        with stack:
            with Desk(stack.addresses, "supervisor", "supervisor-setup") as desk:
                desk.await_reconciled()
            _say({"gateway": stack.addresses.gateway})
            _serve(Testbed(stack).commands())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devstack.testbed", description=__doc__)
    parser.add_argument("--users", type=int, default=150, help="people in the main app")
    parser.add_argument("--origin", action="append", default=[], help="may call the gateway")
    return parser.parse_args()


def _serve(commands: dict[str, Command]) -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = commands[asked.pop("do")](**asked)
        except Exception as error:
            # The test that asked fails with it.
            _say({"error": f"{type(error).__name__}: {error}"})
        else:
            _say({"answer": answer})


def _say(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
