"""The main app's MySQL, described once: what we read, whose it is, what never leaves.

Queries, the relay's filter, the ingest's mapping and the fingerprints derive from
``description.yaml``; a renamed column, or another company's main app, is a change of that file.
"""
