"""Alembic's entry; how it runs is decided in servicekit."""

from servicekit.migrations import run_env

run_env()
