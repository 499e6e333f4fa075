"""Rebuild, housekeeping, and the checks of what was applied."""
