"""Owns each person's merged context and the cache it is kept in.

The only reader of the main app's tables. It never writes to the main app and never judges who is
to be called.
"""
