"""The facts of all people in one stream, for rebuilding the queue."""
