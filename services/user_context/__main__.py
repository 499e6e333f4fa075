"""Runs the user context service until it receives a signal to stop."""

import gc

from servicekit.lifecycle import run
from services.user_context.app import build
from services.user_context.settings import UserContextSettings

if __name__ == "__main__":
    # Rows are read ten thousand at a time and form no cycles: a collection after every 700 objects
    # doubles the cost of reading.
    gc.set_threshold(100_000, 20, 100)
    run(build, UserContextSettings)
