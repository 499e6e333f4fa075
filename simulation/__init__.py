"""A working week of a contact centre, lived through the real services in simulated time.

`world` runs the suite and moves the clock, `agents` and `supervisor` work in it, `changes` writes
the main app underneath them, all three write down what they did and were told in a `history`, and
`checker`, which knows nothing of the services, says whether everything went by the rules.
"""
