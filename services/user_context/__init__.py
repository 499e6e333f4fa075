"""Owns each person's merged context and its cache.

The only reader of the main app's tables. It never writes to the main app and does not
decide who is called.
"""
