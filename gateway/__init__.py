"""The HTTP edge: REST as JSON, server-sent events, OpenAPI, tokens and limits.

Owns no data and no rule about calls: it says who is asking, translates, and passes deadlines and
trace context on. An agent's id comes from the token alone.
"""
