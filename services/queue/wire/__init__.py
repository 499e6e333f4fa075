"""Protobuf messages to and from the types of the queue."""
