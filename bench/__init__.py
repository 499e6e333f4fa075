"""`make bench`: our figures beside those of the bare engines, in the same interleaved run."""
