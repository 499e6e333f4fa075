"""Removes the data of the local servers, wherever it is, and the images."""

import fcntl
import shutil
import sys

from devstack.images import default_engine
from devstack.servers import PostgreSQL
from devstack.stack import default_folder


def main() -> None:
    """Ends with one sentence when the stack is running."""
    folder = default_folder()
    if not folder.exists():
        return
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"`make run` is going in {folder}. Stop it first.")
        # Its data is elsewhere when the account postgres may not enter the checkout.
        PostgreSQL(folder / "postgres").discard()
        default_engine().discard()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
