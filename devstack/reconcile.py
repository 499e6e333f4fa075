"""With `make run` going: have the reconciler do a run, and show how far it is."""

import argparse
import asyncio
import sys

from devstack.stack import Addresses, default_folder
from services.reconciler.domain.runs import RunKind
from services.reconciler.reconcile import follow


def main() -> int:
    """Follow a run of the running stack; 1 when there is none, or the run failed."""
    parser = argparse.ArgumentParser(prog="python -m devstack.reconcile")
    kinds = [kind.value.lower() for kind in RunKind]
    parser.add_argument("--kind", choices=kinds, default="full")
    kind = RunKind(parser.parse_args().kind.upper())
    try:
        addresses = Addresses.load(default_folder())
    except FileNotFoundError:
        print("Nothing is running here. Start it in another terminal: make run", file=sys.stderr)
        return 1
    return asyncio.run(follow(addresses.grpc["reconciler"], kind, "make reconcile"))


if __name__ == "__main__":
    sys.exit(main())
