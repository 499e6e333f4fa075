"""Run the reconciler."""

from servicekit.lifecycle import run
from services.reconciler.app import build
from services.reconciler.settings import ReconcilerSettings

if __name__ == "__main__":
    run(build, ReconcilerSettings)
