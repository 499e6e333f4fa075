"""An objection says when it was last made once more."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    column = sa.Column("restated_at", TIMESTAMP(timezone=True))
    op.add_column("suppressions", column, schema="queue")


def downgrade() -> None:
    op.drop_column("suppressions", "restated_at", schema="queue")
