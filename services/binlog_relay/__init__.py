"""Reads MySQL's row changes from the binlog and sends them to SQS in the AWS DMS message format.

It owns the position it has reached and nothing else. It never reads the main app's tables, never
relies on the order in which messages are consumed, and never lets a column leave that the main
app's description does not name. What it sends may repeat; what it cannot follow it has repaired by
asking the reconciler for a full run.
"""
