"""Rules without input or output: what a run is, what differs, what that means."""
