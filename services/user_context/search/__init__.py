"""Search for people by phone number, e-mail address or name."""
