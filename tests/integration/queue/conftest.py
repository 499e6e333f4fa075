"""The queue's bench for the tests of this folder."""

from tests.integration.queue.bench import (  # noqa: F401 - fixtures
    clock,
    desk,
    queue,
    queue_template,
    queue_url,
    stream,
    tables,
)
