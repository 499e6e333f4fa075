"""One file for each resource: its routes and its JSON."""
