"""What was last applied of each person's facts; nobody's is known until their facts come again."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE queue.applied_facts (
            user_id BIGINT NOT NULL,
            row_fingerprints BYTEA,
            digest BIGINT NOT NULL,
            PRIMARY KEY (user_id)
        )
        """
    )
