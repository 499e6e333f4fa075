"""An in-memory SQS endpoint that speaks the AWS JSON 1.0 protocol to unmodified clients.

Receiving costs the same behind a backlog of ten or of a hundred thousand messages. Nothing is
kept on disk, no credentials are checked, and the waits AWS imposes after DeleteQueue and
PurgeQueue (60 s each) are not imposed.
"""
