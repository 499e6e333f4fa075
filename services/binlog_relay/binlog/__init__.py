"""Reads the binlog: the server, its events, and the images of rows."""
