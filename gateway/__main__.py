"""Run the gateway."""

from gateway.app import build
from gateway.settings import GatewaySettings
from servicekit.lifecycle import run

if __name__ == "__main__":
    run(build, GatewaySettings)
