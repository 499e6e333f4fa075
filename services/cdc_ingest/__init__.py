"""Reads change messages from SQS and has the people they concern refreshed and their facts applied.

Owns the way from a message in any change format to the people it concerns, and the dead-letter
queue of what cannot be understood. Keeps nothing of its own and never reads the main app: a change
only says whom to refresh, never what a value is.
"""
