"""An index by which the people who have been ready longest are found.

Made within the transaction: writes to entries wait for it.
"""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.execute(
        "CREATE INDEX entries_ready_since ON queue.entries (queue, ready_since, user_id)"
        " WHERE state = 1"
    )
