"""Writes ``docs/configuration.md`` from the settings classes, so that it cannot fall behind."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from devstack.stack import SERVICES
from servicekit.settings import ServiceSettings

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
HEAD = """\
# Configuration

Everything is set by environment variables, read once at start-up. A variable without a
default must be set; the service says
which is missing and ends with code 78.
This page is generated (`make docs`); the texts are those of
`services/*/settings.py` and `gateway/settings.py`.
"""
OPENTELEMETRY = """\
## OpenTelemetry's own

Every service reads these as OpenTelemetry's documents say, by its Python SDK
([what they do here](observability.md#where-traces-go)). A name that begins with `_` goes on after
`OTEL_EXPORTER_OTLP`.

| variable | default | meaning |
|---|---|---|
| `OTEL_EXPORTER_OTLP_ENDPOINT` | unset | Where traces are sent, as http://collector:4317. \
With https:// by verified TLS. Unset: nothing is recorded, trace ids are still passed on. |
| `OTEL_EXPORTER_OTLP_PROTOCOL` | `grpc` | `grpc` or `http/protobuf`. |
| `_HEADERS`, `_CERTIFICATE`, `_CLIENT_CERTIFICATE`, `_CLIENT_KEY`, `_COMPRESSION` | unset | \
As the SDK has them. |
| `OTEL_EXPORTER_OTLP_TIMEOUT` | `2` | Seconds; an absent collector holds up the end of a process \
for about as long. |
| `OTEL_TRACES_EXPORTER` | `otlp` | `none`: nothing is recorded, as with `OTEL_SDK_DISABLED=true`. |
| `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | `parentbased_always_on` | \
Which traces are exported whole. |
| `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | the service's name | \
What spans say of their process. |
| `OTEL_BSP_SCHEDULE_DELAY` and the other `OTEL_BSP_*` | the SDK's | How spans are batched. |
"""


def settings_class(module: str) -> type[ServiceSettings]:
    """Return the settings class that ``module`` defines."""
    found = importlib.import_module(module)
    for _, each in inspect.getmembers(found, inspect.isclass):
        if issubclass(each, ServiceSettings) and each.__module__ == module:
            return each
    raise LookupError(f"{module} defines no settings class")


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for name in (*(f"services.{each}" for each in SERVICES), "gateway"):
        settings = settings_class(f"{name}.settings")
        prefix = settings.model_config.get("env_prefix", "")
        rows = "\n".join(_row(prefix, key, info) for key, info in settings.model_fields.items())
        parts.append(f"## `{name}`\n\n| variable | default | meaning |\n|---|---|---|\n{rows}\n")
    return "\n".join([*parts, OPENTELEMETRY])


def _row(prefix: str, name: str, info: FieldInfo) -> str:
    description = " ".join((info.description or "").split()).replace("|", "\\|")
    return f"| `{prefix}{name.upper()}` | {_default(info)} | {description} |"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**required**"
    default = info.get_default(call_default_factory=True, validated_data={})
    if default is None or default == () or default == "":
        return "unset"
    if isinstance(default, SecretStr):
        return "a secret"
    return f"`{default}`"


def main() -> int:
    """Write the page, or with ``--check`` say (1) that it is not current."""
    current = page()
    if "--check" not in sys.argv:
        PAGE.write_text(current, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") != current:
        sys.stderr.write("docs/configuration.md is not what the settings say; run: make docs\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
