"""Lists of numbers say of which day they are, and where they came from."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("phone_list_editions", sa.Column("dated_on", sa.Date), schema="queue")
    op.add_column("phone_list_editions", sa.Column("source", sa.Text), schema="queue")


def downgrade() -> None:
    op.drop_column("phone_list_editions", "source", schema="queue")
    op.drop_column("phone_list_editions", "dated_on", schema="queue")
