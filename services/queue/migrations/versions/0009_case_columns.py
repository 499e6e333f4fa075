"""Columns named after what they hold: the queue and the number of a person's case.

Renaming changes only the catalogue, indexes and keys follow, and no row is touched. The code of
before 0009 does not find its columns afterwards: stop the queue first (docs/operating.md).
"""

from alembic import op

revision = "0009"
down_revision = "0008"

_RENAMED = {
    "entries": {
        "owes": "open_case_queue",
        "stay": "case_number",
        "attempts_in_stay": "attempts_in_case",
    },
    "applied_facts": {"owes": "open_case_queue", "stay": "case_number"},
    "conversions": {"stay": "case_number"},
    "rebuilt_people": {"owes": "open_case_queue", "matter": "case_reason"},
    "rebuilt_entries": {
        "owes": "open_case_queue",
        "stay": "case_number",
        "attempts_in_stay": "attempts_in_case",
    },
}


def upgrade() -> None:
    for table, columns in _RENAMED.items():
        for before, after in columns.items():
            op.execute(f"ALTER TABLE queue.{table} RENAME COLUMN {before} TO {after}")
