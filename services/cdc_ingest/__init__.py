"""Reads change messages from SQS, has user_context read the people they concern, and applies them.

Owns the decoding of messages in every change format, the mapping from a changed row to the people
it concerns, and the dead-letter queue. Stores nothing and never reads the main app: a message says
whose facts to read again, never what a value is.
"""
