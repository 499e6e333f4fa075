"""Authentication, authorisation, rate limits, and the audit of views."""
