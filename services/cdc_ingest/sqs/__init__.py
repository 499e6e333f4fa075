"""The change queue: receiving, visibility, deletion, pause and the dead-letter queue."""
