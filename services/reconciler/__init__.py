"""Compares the main app's users with the queue and the cache, and repairs what differs.

It owns the runs and their progress. It refreshes users through the same two calls as change
capture and never reads the main app itself.
"""
