"""The relay's rules: positions, transactions, statements, packing, the published position."""
