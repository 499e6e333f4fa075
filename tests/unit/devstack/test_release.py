"""A release made in a copy of this tree, and what is refused; one version everywhere."""

import json
import re
import shutil
import subprocess
import tomllib
from datetime import date
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

import servicekit.metrics
from devstack import release
from devstack.release import ReleaseError, check, npm_version, unreleased
from servicekit.version import VERSION

ROOT = Path(__file__).parents[3]
NEXT = "7.0.0"
NEWS = "### For tests\n\n- A thing that is new."
pytestmark = pytest.mark.timeout(300)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def _repository(copy: Path, *paths: str) -> Path:
    """A repository of its own with these files of this tree, ready to be released as `NEXT`."""
    if not (ROOT / ".git").exists():
        pytest.skip("These files are in no Git repository, so there is none to copy.")
    for name in _git(ROOT, "ls-files", "-z", *paths).split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    _git(copy, "init", "-q")
    _git(copy, "config", "user.name", "Release")
    _git(copy, "config", "user.email", "release@example.com")
    _edit(copy / release.CHANGELOG, "## Unreleased\n", f"## Unreleased\n\n{NEWS}\n")
    with (copy / release.UPGRADING).open("a", encoding="utf-8") as file:
        file.write(f"\n## To {NEXT}\n\nNothing to do.\n")
    _commit(copy)
    return copy


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """All of it."""
    return _repository(tmp_path / "copy")


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    """What is looked at first, and the contracts."""
    return _repository(tmp_path / "copy", "CHANGELOG.md", "README.md", "docs", "protos", "buf.yaml")


def _commit(tree: Path) -> None:
    _git(tree, "add", "--all")
    _git(tree, "commit", "-q", "-m", "As it is")


def test_a_release_is_a_commit_and_an_annotated_tag(tree: Path) -> None:
    check(tree, NEXT)
    release.write(tree, NEXT, date(2027, 3, 1))
    release.commit(tree, NEXT)

    assert _git(tree, "status", "--porcelain") == ""
    assert _git(tree, "log", "-1", "--format=%s") == f"Release {NEXT}\n"
    assert _git(tree, "cat-file", "-t", f"v{NEXT}") == "tag\n"
    assert NEWS in _git(tree, "tag", "--list", "--format=%(contents)", f"v{NEXT}")
    changelog = (tree / release.CHANGELOG).read_text(encoding="utf-8")
    assert unreleased(changelog) == ""
    assert f"## Unreleased\n\n## {NEXT} (2027-03-01)\n\n{NEWS}\n" in changelog
    described = json.loads((tree / release.API).read_text(encoding="utf-8"))
    assert described["info"]["version"] == NEXT
    assert (tree / release.RELEASED_API).read_bytes() == (tree / release.API).read_bytes()
    package = json.loads((tree / "clients/typescript/package.json").read_text(encoding="utf-8"))
    assert package["version"] == NEXT
    with pytest.raises(ReleaseError, match="nothing under Unreleased"):
        check(tree, "7.0.1")


def test_changes_that_are_not_committed_stop_it(papers: Path) -> None:
    (papers / "README.md").write_text("changed", encoding="utf-8")
    with pytest.raises(ReleaseError, match="not committed"):
        check(papers, NEXT)


@pytest.mark.parametrize("version", ["7.0", "v7.0.0", "7.0.0.dev0", "7.0.0-rc1"])
def test_a_version_has_three_numbers(papers: Path, version: str) -> None:
    with pytest.raises(ReleaseError, match="no version"):
        check(papers, version)


def test_a_version_follows_those_before(papers: Path) -> None:
    _edit(
        papers / release.CHANGELOG,
        "- A thing that is new.",
        "- New.\n\n## 7.0.1 (2027-01-01)\n\n- Old.",
    )
    _commit(papers)
    for version in ("7.0.1", "6.12.0"):
        with pytest.raises(ReleaseError, match=r"7\.0\.1 is released"):
            check(papers, version)


def test_a_version_without_a_section_on_upgrading_stops_it(papers: Path) -> None:
    with pytest.raises(ReleaseError, match=r'no section "To 7\.0\.1"'):
        check(papers, "7.0.1")


def test_a_tag_that_is_taken_stops_it(papers: Path) -> None:
    _git(papers, "tag", f"v{NEXT}")
    with pytest.raises(ReleaseError, match="There is a tag"):
        check(papers, NEXT)


def test_contracts_that_break_stop_it(papers: Path) -> None:
    _edit(papers / "protos/dialler/model/v1/facts.proto", "  bool has_signature = 7;\n", "")
    _commit(papers)
    with pytest.raises(ReleaseError, match="has_signature"):
        check(papers, NEXT)


def test_an_api_that_breaks_stops_it(tree: Path) -> None:
    described = json.loads((tree / release.API).read_text(encoding="utf-8"))
    described["paths"]["/v1/gone"] = described["paths"]["/v1/assignments"]
    (tree / release.RELEASED_API).write_text(json.dumps(described), encoding="utf-8")
    _commit(tree)
    with pytest.raises(ReleaseError, match="GET /v1/gone is gone"):
        check(tree, NEXT)


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert ROOT / project["tool"]["hatch"]["version"]["path"] == ROOT / release.VERSION_FILE
    described = json.loads((ROOT / release.API).read_text(encoding="utf-8"))
    assert described["info"]["version"] == VERSION
    package = json.loads((ROOT / "clients/typescript/package.json").read_text(encoding="utf-8"))
    lock = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))
    assert package["version"] == npm_version(VERSION)
    assert lock["packages"]["clients/typescript"]["version"] == npm_version(VERSION)
    assert servicekit.metrics  # which registers it
    assert REGISTRY.get_sample_value("dialler_build_info", {"version": VERSION}) == 1


@pytest.mark.parametrize(("version", "other"), [("0.2.0", "0.2.0"), ("0.3.0.dev0", "0.3.0-dev.0")])
def test_npm_spells_versions_its_own_way(version: str, other: str) -> None:
    assert npm_version(version) == other


def test_every_release_has_notes_on_upgrading() -> None:
    changelog = (ROOT / release.CHANGELOG).read_text(encoding="utf-8")
    upgrading = (ROOT / release.UPGRADING).read_text(encoding="utf-8")
    noted = re.findall(r"^## To (\S+)$", upgrading, re.MULTILINE)
    assert set(release.released_versions(changelog)) <= set(noted)


def test_what_is_unreleased_can_be_read_in_one_go() -> None:
    """It is sorted by its readers; a merge that brings old lines back shows here."""
    lines = unreleased((ROOT / release.CHANGELOG).read_text(encoding="utf-8")).splitlines()
    assert len(lines) <= 160
    assert len(lines) == len(set(lines)) + lines.count("") - ("" in lines)
