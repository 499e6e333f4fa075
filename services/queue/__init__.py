"""The queue: which user is called next, by which agent, and with what outcome.

Owns entries, assignments, attempts, outcomes and conversions in PostgreSQL and every rule about
calls. Never reads the main app itself, and hands out only users whom `user_context` has found to
qualify in the same request.
"""
