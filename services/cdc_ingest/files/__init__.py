"""Change files in S3: messages point at them, and their rows are read like records."""
