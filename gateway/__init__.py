"""The HTTP edge: REST as JSON, server-sent events, OpenAPI, tokens and limits.

It owns no data and no rule about calls: it authenticates, translates, and propagates deadlines and
trace context. An agent's id comes from the token alone.
"""
