"""Runs: what each kind does, which are due, and which replica works."""
