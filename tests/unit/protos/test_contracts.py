"""The checks on the contracts catch what they are there for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BUF = str(Path(sys.executable).parent / "buf")


@pytest.fixture
def contracts(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    return tmp_path


def _buf(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUF, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def _replace(path: Path, old: str, new: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")


def test_a_removed_field_is_breaking(contracts: Path) -> None:
    facts = contracts / "protos/dialler/model/v1/facts.proto"
    _replace(facts, "  bool has_signature = 7;\n", "")
    result = _buf(contracts, "breaking", "--against", "protos/released.binpb")
    assert result.returncode != 0
    assert "has_signature" in result.stdout


def test_an_added_field_is_not_breaking(contracts: Path) -> None:
    facts = contracts / "protos/dialler/model/v1/facts.proto"
    _replace(facts, "  bool has_signature = 7;\n", "  bool has_signature = 7;\n  bool new = 99;\n")
    result = _buf(contracts, "breaking", "--against", "protos/released.binpb")
    assert result.returncode == 0, result.stdout


def test_a_field_without_a_comment_is_refused(contracts: Path) -> None:
    queue = contracts / "protos/dialler/queue/v1/queue.proto"
    _replace(queue, "  // The agent who asks for the next person.\n", "")
    result = _buf(contracts, "lint")
    assert result.returncode != 0
    assert "agent_id" in result.stdout
