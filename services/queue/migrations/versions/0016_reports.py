"""Figures for reports, by day; conversions say since when what was asked for was wanted."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0016"
down_revision = "0015"

_MOMENT = TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.add_column("conversions", sa.Column("wanted_since", _MOMENT), schema="queue")
    op.create_table(
        "report_days",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("counted_at", _MOMENT, nullable=False),
        schema="queue",
    )
    op.create_table(
        "report_figures",
        sa.Column("report", sa.SmallInteger, primary_key=True),
        sa.Column("dimension", sa.SmallInteger, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("queue", sa.SmallInteger, primary_key=True),
        sa.Column("part", sa.Text, primary_key=True),
        sa.Column("result", sa.SmallInteger, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("timed", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.BigInteger, nullable=False),
        schema="queue",
    )
    op.create_index("report_figures_day", "report_figures", ["day"], schema="queue")


def downgrade() -> None:
    op.drop_table("report_figures", schema="queue")
    op.drop_table("report_days", schema="queue")
    op.drop_column("conversions", "wanted_since", schema="queue")
