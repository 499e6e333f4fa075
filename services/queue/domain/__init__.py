"""The rules of calling as pure functions; the time is an argument."""
