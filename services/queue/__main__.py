"""Run the queue."""

from servicekit.lifecycle import run
from services.queue.app import build
from services.queue.settings import QueueSettings

if __name__ == "__main__":
    run(build, QueueSettings)
