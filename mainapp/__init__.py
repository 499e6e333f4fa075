"""The description of the main app's MySQL: columns that are read, their user, secret columns.

Queries, the relay's filter, the ingest's mapping and the fingerprints derive from
``description.yaml``: a renamed column, or another company's main app, changes that file only.
"""
