"""A working week of a contact centre, run through the real services in simulated time.

`week` runs the services and moves the clock. `agents` and `supervisor` use the queue, and `changes`
writes to the main app. All of them record requests, answers and changes in a `history`, and
`checker`, which imports nothing of the services, checks it against the rules.
"""
