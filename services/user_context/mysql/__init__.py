"""The store of MySQL: every statement that reads the main app."""
