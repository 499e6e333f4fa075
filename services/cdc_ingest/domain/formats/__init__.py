"""The formats of change messages; `envelopes` holds those that only enclose others."""
