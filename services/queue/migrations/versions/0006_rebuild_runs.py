"""The rebuild under way, and its staging by run.

Code of before goes on working: what it stages has the run id that is the default, and the lock by
which there is one rebuild at a time is the same. A rebuild under way now holds that lock, and is
waited for: its staging may not change under it.
"""

import zlib

from alembic import op

revision = "0006"
down_revision = "0005"

_NO_RUN = "'00000000-0000-0000-0000-000000000000'"

_STATEMENTS = (
    f"SELECT pg_advisory_xact_lock({zlib.crc32(b'queue.rebuild')})",
    """
    CREATE UNLOGGED TABLE queue.rebuild_runs (
        run_id UUID NOT NULL,
        actor_id TEXT NOT NULL,
        began_at TIMESTAMP WITH TIME ZONE NOT NULL,
        guard_pid INTEGER NOT NULL,
        phase SMALLINT NOT NULL,
        people_read BIGINT NOT NULL,
        people_new BIGINT NOT NULL,
        people_different BIGINT NOT NULL,
        people_written BIGINT NOT NULL,
        conversions BIGINT NOT NULL,
        through_user_id BIGINT NOT NULL,
        last_user_id BIGINT NOT NULL,
        PRIMARY KEY (run_id)
    )
    """,
    *(
        f"""
        ALTER TABLE queue.{table}
            ADD COLUMN run_id UUID NOT NULL DEFAULT {_NO_RUN},
            DROP CONSTRAINT {table}_pkey,
            ADD PRIMARY KEY (run_id, user_id)
        """
        for table in ("rebuilt_people", "rebuilt_entries")
    ),
    """
    CREATE INDEX rebuilt_entries_ready
        ON queue.rebuilt_entries (run_id, queue, rank_key, user_id DESC) WHERE state = 1
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
