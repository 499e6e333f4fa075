"""Runs the user context service until it is told to stop."""

from servicekit.lifecycle import run
from services.user_context.app import build
from services.user_context.settings import UserContextSettings

if __name__ == "__main__":
    run(build, UserContextSettings)
