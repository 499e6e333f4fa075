"""HTTP around every request: connections, limits, problems, compression, static files."""
