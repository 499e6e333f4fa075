"""Contexts: from the cache when it is fresh, otherwise read from the databases and cached."""
