"""Pauses of hand-outs.

The code before knows of none: it hands people out in spite of them.
"""

from alembic import op

revision = "0011"
down_revision = "0010"

_STATEMENTS = (
    """
    CREATE TABLE queue.pauses (
        pause_id UUID NOT NULL,
        queue SMALLINT,
        begins_at TIMESTAMP WITH TIME ZONE NOT NULL,
        ends_at TIMESTAMP WITH TIME ZONE NOT NULL,
        reason TEXT NOT NULL,
        created_by TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE NOT NULL,
        ended_by TEXT,
        PRIMARY KEY (pause_id)
    )
    """,
    "CREATE INDEX pauses_end ON queue.pauses (ends_at)",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
