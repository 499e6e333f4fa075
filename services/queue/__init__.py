"""Who is called next, by whom, and what came of it.

Owns queue entries, assignments, attempts, outcomes and conversions in PostgreSQL and every rule
about calling; never reads the main app itself, and hands nobody out whom `user_context` has not
found to qualify in that same request.
"""
