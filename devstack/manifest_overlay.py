"""All objects of an overlay, and the settings that the services would have in it."""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from devstack.configuration_page import settings_class
from devstack.manifests import FOLDER, STEPS, Manifest, of_kind, rendered
from servicekit.settings import ServiceSettings

NAME = "app.kubernetes.io/name"
COLLECTOR = "collector"
"""OpenTelemetry's: the one Deployment, by name, whose image is not ours."""
LOCAL_STORES = "stores"
"""Name of the pod with all stores, and of its image, where they are in the cluster."""


@dataclass
class Overlay:
    """All objects of an overlay."""

    name: str
    manifests: list[Manifest]
    site: dict[str, str]

    @classmethod
    def load(cls, name: str, folder: Path = FOLDER) -> Overlay:
        """Render an overlay of deploy/k8s, or of a copy of it."""
        manifests = [each for step in STEPS for each in rendered(name, step, folder)]
        site = folder / "overlays" / name / "site" / "site.env"
        lines = site.read_text(encoding="utf-8").splitlines() if site.exists() else []
        values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        return cls(name, manifests, values)

    def of(self, *kinds: str) -> dict[str, Manifest]:
        """The objects of some kinds, by name."""
        return of_kind(self.manifests, *kinds)

    @property
    def deployments(self) -> dict[str, Manifest]:
        """The services' Deployments by name; the collector is none of them."""
        found = self.of("Deployment")
        return {name: each for name, each in found.items() if name != COLLECTOR}

    def container(self, name: str) -> Manifest:
        """The one container of a Deployment."""
        [container] = self.of("Deployment")[name]["spec"]["template"]["spec"]["containers"]
        return dict(container)

    def environment(self, container: Manifest) -> dict[str, str]:
        """The variables a container gets, with examples for those that come from outside."""
        values: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            ((kind, reference),) = source.items()
            known = self.of("ConfigMap") if kind == "configMapRef" else self.secrets
            found = known.get(reference["name"])
            values |= found["data"] if found else {}
        for each in container.get("env", ()):
            if "value" in each:
                values[each["name"]] = each["value"]
                continue
            reference = each["valueFrom"]["secretKeyRef"]
            found = self.secrets.get(reference["name"], {"data": {}})["data"]
            if reference["key"] in found:
                values[each["name"]] = found[reference["key"]]
        return values

    @cached_property
    def secrets(self) -> dict[str, Manifest]:
        """Secrets in plain text; those made from outside hold examples that fit their names."""
        found = {
            name: {"data": {k: b64decode(v).decode() for k, v in each["data"].items()}}
            for name, each in self.of("Secret").items()
        }
        for each in self.of("ExternalSecret").values():
            keys = [entry["secretKey"] for entry in each["spec"]["data"]]
            found[each["spec"]["target"]["name"]] = {"data": {key: _example(key) for key in keys}}
        return found

    def most_copies(self, name: str) -> int:
        """How many pods of a Deployment there can be, the one more of a roll-out included."""
        deployment = self.deployments[name]
        copies = int(deployment["spec"].get("replicas", 1))
        for each in self.of("HorizontalPodAutoscaler").values():
            if each["spec"]["scaleTargetRef"]["name"] == name:
                copies = int(each["spec"]["maxReplicas"])
        for each in self.of("ScaledObject").values():
            if each["spec"]["scaleTargetRef"]["name"] == name:
                copies = int(each["spec"]["maxReplicaCount"])
        return copies + int(deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"])


def module_of(name: str) -> str:
    """The package of the service that a Deployment is called after."""
    return "gateway" if name == "gateway" else f"services.{name.replace('-', '_')}"


def settings_of(name: str) -> type[ServiceSettings]:
    """The settings class of the service that a Deployment is called after."""
    return settings_class(f"{module_of(name)}.settings")


def loaded_settings(name: str, environment: dict[str, str]) -> Any:
    """The settings that the service would have; raises `ValidationError`."""
    with _only(environment):
        return settings_of(name)()


@contextmanager
def _only(environment: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@cache
def _public_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _example(variable: str) -> str:
    if variable.endswith("_JWT_PUBLIC_KEY"):
        return _public_key()
    for part, port, scheme in _STORES:
        if variable.endswith(f"_{part}_URL"):
            return f"{scheme}://user:password@store:{port}/0"
    return "an example that is longer than thirty-two bytes"


_STORES = (("MYSQL", 3306, "mysql"), ("POSTGRES", 5432, "postgresql"), ("REDIS", 6379, "redis"))
