"""What goes into the images, and what the tools that judge them find."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from devstack import images
from devstack.images import IMAGES, LOCAL_BASE, ROOT, ImageError, checked_base, require_tools
from devstack.manifest_check import scanned, scanned_dockerfile, write_rendered
from devstack.packages import Package
from devstack.supply_chain import NO_DATA, Audit, NoMaterials, pinned, write_bill

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
HADOLINT = Path(sys.executable).parent / "hadolint"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DIGEST = "sha256:" + "0" * 63 + "1"


def _lock(service: str) -> Path:
    return ROOT / "deploy" / "locks" / f"{service}.lock"


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ]", each)[0].lower().replace("_", "-") for each in requirements}


@pytest.mark.parametrize("service", IMAGES)
def test_lock_pins_what_the_tests_ran_with(service: str) -> None:
    assert pinned(_lock(service)) <= pinned(ROOT / "requirements.lock")
    blocks = re.split(r"\n(?=\S)", _lock(service).read_text(encoding="utf-8").strip())
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("service", IMAGES)
def test_lock_holds_the_services_own_extra_and_no_other(service: str) -> None:
    locked = {each.partition("==")[0] for each in pinned(_lock(service))}
    extras = {name: _names(extra) for name, extra in PROJECT["optional-dependencies"].items()}
    assert extras.keys() == set(IMAGES)
    own = _names(PROJECT["dependencies"]) | extras[service]
    assert own <= locked
    heavy = {"boto3", "pyarrow", "fastapi", "mysql-replication", "phonenumbers", "holidays"}
    assert heavy & locked == heavy & own


@pytest.mark.parametrize("service", IMAGES)
def test_main_apps_description_is_there_where_it_is_read(service: str) -> None:
    folder = ROOT / ("gateway" if service == "gateway" else f"services/{service}")
    reads = any("mainapp" in _imported(path) for path in folder.rglob("*.py"))
    without = re.findall(
        r"^        ([a-z_| ]+)\) set -- (?!.*mainapp)", DOCKERFILE.read_text(), re.M
    )
    assert reads == (service not in " | ".join(without).split(" | "))


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_base_has_no_default_that_was_not_looked_up() -> None:
    assert re.search(r"^ARG BASE$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("base", [f"python:3.11-slim-bookworm@{DIGEST}", f"{LOCAL_BASE}:some"])
def test_base_by_digest_or_made_here_is_taken(base: str) -> None:
    assert checked_base(base) == base


@pytest.mark.parametrize(
    "base", ["python:3.11-slim-bookworm", "python", f"python@{DIGEST[:-1]}", "python@sha256:..."]
)
def test_base_that_may_change_is_refused(base: str) -> None:
    with pytest.raises(ImageError, match="names no digest"):
        checked_base(base)


def test_missing_tools_are_named_with_the_command_that_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cannot(names: list[str]) -> None:
        raise subprocess.CalledProcessError(100, "apt-get")

    monkeypatch.setattr(images, "TOOLS", (Package("buildah", "no-such-program"),))
    monkeypatch.setattr(images, "install", cannot)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(
        ImageError, match=r"buildah\. Run: sudo apt-get update.*code|exit status 100"
    ):
        require_tools()
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ImageError, match="as root"):
        require_tools()


@pytest.mark.parametrize(
    ("right", "wrong", "rule"),
    [
        ("WORKDIR /app", "WORKDIR app", "DL3000"),
        ("USER 10001:10001", "USER root", "DL3002"),
        ('ENTRYPOINT ["python", "-m"]', "ENTRYPOINT python -m", "DL3025"),
    ],
)
def test_hadolint_finds_a_mistake(tmp_path: Path, right: str, wrong: str, rule: str) -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert right in text
    assert _hadolint(DOCKERFILE) == set()
    copy = tmp_path / "Dockerfile"
    copy.write_text(text.replace(right, wrong), encoding="utf-8")
    assert rule in _hadolint(copy)


def _hadolint(path: Path) -> set[str]:
    command = [str(HADOLINT), "--no-fail", "--format=json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {each["code"] for each in json.loads(done.stdout)}


@pytest.mark.timeout(240)
def test_checkov_finds_a_mistake_in_the_dockerfile(tmp_path: Path) -> None:
    copy = tmp_path / "Dockerfile"
    copy.write_text(DOCKERFILE.read_text(encoding="utf-8").replace("USER 10001:10001\n", ""))
    report = json.loads(scanned_dockerfile(copy, "--output=json").stdout)
    assert {each["check_id"] for each in report["results"]["failed_checks"]} == {"CKV_DOCKER_3"}


EXPLAINED = {"CKV_K8S_15", "CKV_K8S_35", "CKV_K8S_43"}
"""Policies of which deploy/k8s says in place why it does otherwise."""


# Two runs of checkov, whose start alone takes long on a busy machine.
@pytest.mark.timeout(240)
def test_checkov_finds_mistakes_in_manifests_and_passes_over_nothing_unexplained(
    tmp_path: Path,
) -> None:
    write_rendered(tmp_path)
    clean = json.loads(scanned(tmp_path, "--output=json").stdout)
    assert clean["results"]["failed_checks"] == []
    skipped = clean["results"]["skipped_checks"]
    assert {each["check_id"] for each in skipped} == EXPLAINED
    assert all(len(each["check_result"]["suppress_comment"]) > 20 for each in skipped)
    path = tmp_path / "production-services.yaml"
    planted = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for each in planted:
        if each["kind"] == "Deployment" and each["metadata"]["name"] == "queue":
            spec = each["spec"]["template"]["spec"]
            spec["hostNetwork"] = True
            spec["containers"][0]["securityContext"] = {"privileged": True}
            del spec["containers"][0]["livenessProbe"]
    alone = tmp_path / "planted"
    alone.mkdir()
    (alone / path.name).write_text(yaml.safe_dump_all(planted), encoding="utf-8")
    found = json.loads(scanned(alone, "--output=json").stdout)["results"]["failed_checks"]
    planted_ids = {"CKV_K8S_19", "CKV_K8S_16", "CKV_K8S_8", "CKV_K8S_22", "CKV_K8S_20"}
    assert planted_ids <= {each["check_id"] for each in found}
    assert {each["resource"] for each in found} == {"Deployment.dialler.queue"}


def test_bill_of_materials_names_every_pinned_package(tmp_path: Path) -> None:
    bill = json.loads(write_bill("queue", tmp_path).read_text(encoding="utf-8"))
    assert len(bill["components"]) == len(pinned(_lock("queue")))


def test_incomplete_bill_of_materials_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave_out(command: list[str], **_: object) -> None:
        (tmp_path / "queue.cdx.json").write_text(json.dumps({"components": []}))

    monkeypatch.setattr(subprocess, "run", leave_out)
    with pytest.raises(NoMaterials, match="leaves out alembic=="):
        write_bill("queue", tmp_path)


_SKIPPED = {"name": "orjson", "skip_reason": "not found"}
_CLEAN: dict[str, object] = {"name": "redis", "version": "6", "vulns": []}
_KNOWN = {"name": "jwt", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}


@pytest.mark.parametrize(
    ("entries", "code", "told"),
    [
        ([_SKIPPED, _SKIPPED], NO_DATA, "NO DATA"),
        ([], NO_DATA, "NO DATA"),
        ([_CLEAN, _SKIPPED], NO_DATA, "Nothing is known of: orjson"),
        ([_CLEAN, _KNOWN, _SKIPPED], 1, r"jwt 1: CVE-1 \(fixed in 2\)"),
        ([_CLEAN], 0, "1 packages looked up"),
    ],
)
def test_silence_of_the_audit_is_no_good_news(
    entries: list[dict[str, object]], code: int, told: str
) -> None:
    found, message = Audit.read(json.dumps({"dependencies": entries})).verdict()
    assert found == code
    assert re.search(told, message)
