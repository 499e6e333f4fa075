"""The pipeline: refreshes the people that changes concern, then settles the messages."""
