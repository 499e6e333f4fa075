"""Walks the main app's people in runs and repairs what change capture missed.

Owns the runs and how far each has come. Refreshes people through the same two calls as change
capture; never reads the main app itself.
"""
