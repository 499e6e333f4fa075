"""Run the ingest."""

from servicekit.lifecycle import run
from services.cdc_ingest.app import build
from services.cdc_ingest.settings import CdcIngestSettings

if __name__ == "__main__":
    run(build, CdcIngestSettings)
