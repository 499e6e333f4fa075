"""Reads MySQL's row changes from the binlog and sends them to SQS in the AWS DMS message format.

It owns the position it has reached and nothing else. It never reads the main app's tables, never
relies on the order in which messages are consumed, and never sends a column that the main app's
description does not name. Messages may repeat. For changes that it cannot follow it requests a full
run from the reconciler.
"""
