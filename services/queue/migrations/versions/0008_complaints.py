"""Complaints of people, which keep their calls.

The code before knows of none: it deletes calls without looking at them.
"""

from alembic import op

revision = "0008"
down_revision = "0007"

_STATEMENTS = (
    """
    CREATE TABLE queue.complaints (
        user_id BIGINT NOT NULL,
        opened_at TIMESTAMP WITH TIME ZONE NOT NULL,
        closed_at TIMESTAMP WITH TIME ZONE,
        noted_by TEXT NOT NULL,
        PRIMARY KEY (user_id)
    )
    """,
    """
    CREATE INDEX complaints_closed ON queue.complaints (closed_at) WHERE closed_at IS NOT NULL
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
