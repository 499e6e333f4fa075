"""Run the relay."""

from servicekit.lifecycle import run
from services.binlog_relay.app import build
from services.binlog_relay.settings import BinlogRelaySettings

if __name__ == "__main__":
    run(build, BinlogRelaySettings)
