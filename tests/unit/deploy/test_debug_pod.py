"""The pod of `make debug-pod`: as restricted as the service's, with a way to the same stores."""

from __future__ import annotations

import re

import pytest

from devstack import debug_pod
from devstack.images import ROOT
from devstack.manifest_check import schema_errors
from devstack.manifest_overlay import NAME, Overlay
from devstack.manifest_rules import pods_are_restricted
from devstack.manifests import OVERLAYS

STORES = {"user-context", "queue", "reconciler", "cdc-ingest", "binlog-relay", "gateway"}


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Overlay:
    return Overlay.load(request.param)


def test_its_manifests_are_valid_and_restricted(overlay: Overlay) -> None:
    for service in overlay.deployments:
        made = debug_pod.manifests(overlay, service, debug_pod.image_of(overlay.name))
        assert [error for each in made for error in schema_errors(each)] == []
        beside = Overlay(overlay.name, [*overlay.manifests, *made], overlay.site)
        assert list(pods_are_restricted(beside)) == []


def test_it_reaches_the_stores_of_its_service_and_has_their_addresses(overlay: Overlay) -> None:
    for service in sorted(STORES):
        policy, job = debug_pod.manifests(overlay, service, "image:1")
        stores = overlay.of("NetworkPolicy")[f"{service}-stores"]["spec"]["egress"]
        assert policy["spec"]["egress"] == stores
        [container] = job["spec"]["template"]["spec"]["containers"]
        assert overlay.environment(container) == overlay.environment(overlay.container(service))
        labels = job["spec"]["template"]["metadata"]["labels"]
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        assert job["spec"]["activeDeadlineSeconds"] <= 3600


def test_no_service_leads_to_it_and_no_other_policy_lets_it_out(overlay: Overlay) -> None:
    _, job = debug_pod.manifests(overlay, "queue", "image:1")
    label = job["spec"]["template"]["metadata"]["labels"][NAME]
    selectors = [each["spec"]["selector"][NAME] for each in overlay.of("Service").values()]
    assert label not in selectors
    selected = str([each["spec"]["podSelector"] for each in overlay.of("NetworkPolicy").values()])
    assert f"'{label}'" not in selected


def test_the_image_has_the_clients_that_the_page_uses() -> None:
    page = (ROOT / "docs/runbooks/on-call.md").read_text("utf-8")
    image = (ROOT / "deploy/debug.Dockerfile").read_text("utf-8")
    clients = {"psql": "postgresql-client", "redis-cli": "redis-tools", "mysql": "mariadb-client"}
    for command, package in clients.items():
        assert re.search(rf"^\s*{command} ", page, re.MULTILINE), command
        assert package in image
