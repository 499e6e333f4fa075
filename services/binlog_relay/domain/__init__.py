"""The relay's rules: positions, transaction ends, packing, and what counts as published."""
