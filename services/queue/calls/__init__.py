"""Use cases of a call: hand-out, lease, outcome, callback, suppression, complaint, pause."""
