"""Processes that end with their owner, however it ends."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

_SEARCH_PATH = os.pathsep.join(
    (os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin")
)

HOST = "127.0.0.1"
# Below the kernel's range for outgoing connections, one of which could otherwise be holding a
# server's port at the moment it is restarted.
_PORTS = range(20_000, 32_000)
_SHARES = 8
# Long since started, or given up, is what was asked for before these.
_given: deque[int] = deque(maxlen=200)
_ROOT = Path(__file__).parents[1]


class DidNotStart(Exception):
    """A process could not be started, or did not answer in time; the text says which."""


def find_program(name: str) -> str | None:
    """Path of an installed program, also where only root's search path would find it."""
    return shutil.which(name, path=_SEARCH_PATH)


def free_port(preferred: int | None = None) -> int:
    """Return a loopback port that no process listens on now: the preferred one if it is free.

    It is not reserved, so start what needs it soon. Calls of one process soon after one another
    return different ones, and processes begun one after the other, such as the tests' workers,
    look in different places.
    """
    ours = _PORTS[os.getpid() % _SHARES :: _SHARES]
    candidates = random.SystemRandom().sample(ours, k=200)
    for port in candidates if preferred is None else [preferred, *candidates]:
        if port in _given and port != preferred:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            _given.append(port)
            return port
    raise DidNotStart("found no free loopback port among 200 tried")


def wait_until(answered: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Polls until `answered`; raises `DidNotStart` naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not answered():
        if time.monotonic() > deadline:
            raise DidNotStart(f"waited {seconds:g} s for {what}")
        time.sleep(0.02)


class OwnedProcess:
    """A child process in its own process group that gets `stop_signal` when its owner dies.

    The kernel ties that signal to the thread that made the child, so each child has a thread of
    its own that waits for it; that thread ends only with the child or with the whole owner.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
        user: str | None = None,
        environment: dict[str, str] | None = None,
        folder: Path = Path("/"),
        inherit: Sequence[int] = (),
    ) -> None:
        self._stop_signal = stop_signal
        self._ended = threading.Event()
        self._started = threading.Event()
        self._failure: OSError | None = None
        self._process: subprocess.Popen[bytes] | None = None

        def own() -> None:
            try:
                with log.open("ab") as output:
                    self._process = _spawn(
                        _wrapped(command, stop_signal, user), output, environment, folder, inherit
                    )
            except OSError as error:
                self._failure = error
                return
            finally:
                self._started.set()
            self._process.wait()
            self._ended.set()

        threading.Thread(target=own, name=f"owner of {command[0]}", daemon=True).start()
        self._started.wait()
        if self._failure is not None:
            raise DidNotStart(f"cannot start {command[0]}") from self._failure

    @property
    def pid(self) -> int:
        """The child's process id, which is its process group's too."""
        assert self._process is not None  # noqa: S101 - set before __init__ returns
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As `subprocess.Popen.returncode`: negative for a signal; None while it runs."""
        assert self._process is not None  # noqa: S101 - set before __init__ returns
        return self._process.returncode if self._ended.is_set() else None

    @property
    def is_running(self) -> bool:
        return not self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """True when the process ended within `seconds`."""
        return self._ended.wait(seconds)

    def stop(self, *, seconds: float = 30) -> None:
        """Asks it to end; kills it, with its children, when it has not after `seconds`."""
        if self.is_running:
            _signal(self.pid, self._stop_signal)
            if not self._ended.wait(seconds):
                self.kill()

    def kill(self) -> None:
        """SIGKILL to it and its present children, as a machine's crash would."""
        if not self.is_running:
            return
        children = _children(self.pid)
        for pid in (self.pid, *children):
            _signal(pid, signal.SIGKILL)
        self._ended.wait()


def _wrapped(command: Sequence[str], stop_signal: signal.Signals, user: str | None) -> list[str]:
    # setpriv rather than preexec_fn: the latter runs Python between fork and exec, which can
    # deadlock in a process with threads, and wakes gRPC's fork handlers.
    identity = [f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
    death = f"--pdeathsig={stop_signal.name.removeprefix('SIG')}"
    return [find_program("setpriv") or "setpriv", *identity, death, "--", *command]


def _spawn(
    command: Sequence[str],
    output: IO[bytes],
    environment: dict[str, str] | None,
    folder: Path,
    inherit: Sequence[int],
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=folder,
        pass_fds=inherit,
        start_new_session=True,
    )


def _signal(pid: int, number: signal.Signals) -> None:
    # It may end by itself at this very moment.
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children.extend(int(child) for child in task.read_text().split())
        except OSError:
            continue
    return children


class ChildProcess:
    """One of our own programs, `python -m module`, that can be started again after it ended.

    Its output is appended to `log`; `environment` is added to this process's own.
    """

    def __init__(
        self,
        name: str,
        module: str,
        log: Path,
        *,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.arguments = tuple(arguments)
        self._module = module
        self._environment = dict(environment or {})
        self._process: OwnedProcess | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    @property
    def pid(self) -> int:
        if self._process is None:
            raise DidNotStart(f"{self.name} has not been started yet")
        return self._process.pid

    def start(self) -> None:
        """Returns once the process exists; does nothing when it runs already."""
        if self.is_running:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._process = OwnedProcess(
            [sys.executable, "-m", self._module, *self.arguments],
            log=self.log,
            environment={**os.environ, **self._environment},
            folder=_ROOT,
        )

    def wait_ready(self, answers: Callable[[], bool], *, seconds: float = 60) -> None:
        """Returns once `answers()`; raises `DidNotStart` with the end of its log."""
        try:
            wait_until(lambda: not self.is_running or answers(), seconds=seconds, what=self.name)
        except DidNotStart as error:
            raise DidNotStart(f"{error}\n{last_lines(self.log)}") from None
        if not self.is_running:
            raise DidNotStart(f"{self.name} ended while starting.\n{last_lines(self.log)}")

    def stop(self, *, seconds: float = 30) -> None:
        """SIGTERM, and SIGKILL after `seconds`; safe to call again."""
        if self._process is not None:
            self._process.stop(seconds=seconds)

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        if self._process is not None:
            self._process.kill()


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a log, empty when there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    except OSError:
        return ""
