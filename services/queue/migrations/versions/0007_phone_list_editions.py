"""Lists of phone numbers in editions, each of which comes into force at once.

`listed_phones` becomes an edition of each list. It stays for the code before, which goes on reading
it; but an import by that code no longer reaches the new one, nor the other way round: import no
list while both run. The copy takes some ten seconds for two million numbers and locks nothing.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

_STATEMENTS = (
    """
    CREATE TABLE queue.phone_list_editions (
        edition_id BIGINT GENERATED ALWAYS AS IDENTITY,
        list_name TEXT NOT NULL,
        state SMALLINT NOT NULL,
        actor_id TEXT NOT NULL,
        began_at TIMESTAMP WITH TIME ZONE NOT NULL,
        loaded_through_at TIMESTAMP WITH TIME ZONE NOT NULL,
        became_current_at TIMESTAMP WITH TIME ZONE,
        numbers BIGINT NOT NULL,
        is_complete BOOLEAN NOT NULL,
        is_placed BOOLEAN NOT NULL,
        PRIMARY KEY (edition_id)
    )
    """,
    """
    CREATE UNIQUE INDEX phone_list_editions_loading ON queue.phone_list_editions (list_name)
        WHERE state = 1
    """,
    """
    CREATE TABLE queue.list_numbers (
        phone_e164 TEXT NOT NULL,
        edition_id BIGINT NOT NULL,
        PRIMARY KEY (phone_e164, edition_id)
    )
    """,
    """
    INSERT INTO queue.phone_list_editions (list_name, state, actor_id, began_at,
        loaded_through_at, became_current_at, numbers, is_complete, is_placed)
    SELECT list_name, 2, 'queue', now(), now(), now(), count(*), true, true
    FROM queue.listed_phones GROUP BY list_name
    """,
    """
    INSERT INTO queue.list_numbers (phone_e164, edition_id)
    SELECT listed.phone_e164, edition.edition_id FROM queue.listed_phones AS listed
    JOIN queue.phone_list_editions AS edition USING (list_name)
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
