"""What the private servers have in common: a folder, a port, a life that ends with its owner's."""

import fcntl
import os
import shutil
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from devstack.processes import HOST, DidNotStart, OwnedProcess, free_port, last_lines, wait_until

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


class ServerError(DidNotStart):
    """A local server did not start or refused a statement; the text says what it printed last."""


class Server(ABC):
    """A server process over a data folder that it alone uses.

    The port is chosen at the first start and kept by later ones. Several owners may not share a
    folder: `start` waits a little for the other one's server to end and then raises.

    It listens on loopback only, unless `listens_on` is another address of this machine.
    """

    title: str
    # How long another owner's server may take to leave the folder.
    lock_wait_seconds = 15.0
    stop_signal = signal.SIGTERM
    host = HOST

    def __init__(self, folder: Path, *, port: int | None = None, durable: bool = True) -> None:
        """`durable=False` survives a killed process but not a power cut, and is faster."""
        self.folder = folder.absolute()
        self._port = port
        self._durable = durable
        self.listens_on = HOST
        self._process: OwnedProcess | None = None

    @property
    def port(self) -> int:
        if self._port is None:
            raise ServerError(f"{self.title} has not been started yet")
        return self._port

    @property
    def log(self) -> Path:
        """What the server and its initialisation printed."""
        return self.folder / "server.log"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerError(f"{self.title} has not been started yet")
        return self._process.pid

    def start(self) -> None:
        """Returns when the server answers. Does nothing when it runs already."""
        if self.is_running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        chosen = self._port
        for attempt in range(3):
            self._port = chosen or free_port()
            try:
                self._start_once()
            except DidNotStart as error:
                self._end(kill=True)
                # Another process may have taken a port that was free a moment ago.
                if chosen is None and attempt < 2 and "in use" in last_lines(self.log):
                    continue
                raise ServerError(f"{self.title}: {error}\n{last_lines(self.log)}") from error
            return

    def stop(self) -> None:
        """Ends the server cleanly."""
        self._end(kill=False)

    def kill(self) -> None:
        """Ends the server as a crash would, by SIGKILL."""
        self._end(kill=True)

    def restart(self) -> None:
        """Stops it if it runs and starts it on the same port."""
        self.stop()
        self.start()

    def discard(self) -> None:
        """Kills the server and deletes its data."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def data(self) -> Path:
        """Where the server keeps its data."""
        return self.folder / "data"

    @property
    def _user(self) -> str | None:
        """The account to run as; None for our own."""
        return None

    @abstractmethod
    def _initialise(self) -> None:
        """Makes the data folder if there is none; a half-made one is made anew."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _start_once(self) -> None:
        with (self.folder / "lock").open("ab") as lock:
            # The server inherits the lock and holds it until its last process has ended, so
            # pid files and shared memory are stale once the lock is free.
            wait_until(
                lambda: _locked(lock.fileno()),
                seconds=self.lock_wait_seconds,
                what=f"another process to leave {self.folder}",
            )
            self._initialise()
            process = self._process = OwnedProcess(
                self._command(),
                log=self.log,
                stop_signal=self.stop_signal,
                user=self._user,
                environment=server_environment(),
                inherit=[lock.fileno()],
            )
        wait_until(
            lambda: not process.is_running or self._answers(),
            seconds=_START_SECONDS,
            what="it to answer",
        )
        if not process.is_running:
            raise DidNotStart(f"ended with code {process.exit_code} instead of answering")

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.stop(seconds=_STOP_SECONDS)

    def _run(self, command: list[str], **environment: str) -> None:
        """Runs a command of the initialisation to its end, as the server's account."""
        process = OwnedProcess(
            command,
            log=self.log,
            stop_signal=signal.SIGKILL,
            user=self._user,
            environment=server_environment(**environment),
        )
        if not process.wait(_START_SECONDS):
            process.kill()
        if process.exit_code != 0:
            raise DidNotStart(f"{Path(command[0]).name} ended with code {process.exit_code}")


def server_environment(**extra: str) -> dict[str, str]:
    """Our variables without what would make a server's texts and times depend on the place."""
    return {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", **extra}


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
