"""Comparison of the main app with the queue and the cache, and repair of drift."""
