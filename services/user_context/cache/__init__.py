"""Contexts in Redis, filled under the fence."""
