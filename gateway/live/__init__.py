"""The event stream, and the figures of its topics."""
