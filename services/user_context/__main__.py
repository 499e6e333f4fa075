"""Runs the user context service until it is told to stop."""

import gc

from servicekit.lifecycle import run
from services.user_context.app import build
from services.user_context.settings import UserContextSettings

if __name__ == "__main__":
    # Rows come by the ten thousand and are free of cycles: looking for some every 700 of them
    # doubles the cost of reading.
    gc.set_threshold(100_000, 20, 100)
    run(build, UserContextSettings)
