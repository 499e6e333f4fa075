"""What is missing is named with its command, and installing starts no service."""

import subprocess
import sys
from pathlib import Path

import pytest

from devstack.packages import (
    SERVERS,
    Package,
    PackageMissing,
    advice,
    install,
    missing,
    require_program,
)

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]


def _apt(folder: Path, policy: Path, *, code: int = 0) -> Path:
    """Stands in for apt-get: records its words and what the policy said at that moment."""
    script = folder / "apt"
    script.write_text(
        f'#!/bin/sh\n"{policy}"; echo "$DEBIAN_FRONTEND $? $*" >> "{folder}/calls"\nexit {code}\n'
    )
    script.chmod(0o755)
    return script


def test_servers_are_found_where_debian_puts_them() -> None:
    assert missing(SERVERS) == []
    assert missing([Package("nowhere", "/usr/lib/nowhere/*/bin/x"), SERVERS[0]]) == ["nowhere"]


def test_missing_program_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(PackageMissing, match="apt-get install --no-install-recommends no-such"):
        require_program("no-such")
    assert "apt-get install --no-install-recommends redis-server chromium" in advice(
        ["redis-server", "chromium"]
    )


def test_services_may_not_start_while_packages_are_installed(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    install(["redis-server"], policy=policy, apt=str(_apt(tmp_path, policy)))
    update, installation = (tmp_path / "calls").read_text().splitlines()
    assert update == "noninteractive 101 -qq update"
    assert installation.startswith("noninteractive 101 ")
    assert "--no-install-recommends" in installation
    assert installation.endswith("redis-server")
    assert not policy.exists()


def test_policy_goes_away_when_apt_fails(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with pytest.raises(subprocess.CalledProcessError):
        install(["redis-server"], policy=policy, apt=str(_apt(tmp_path, policy, code=100)))
    assert not policy.exists()


def test_policy_of_the_administrator_is_left_alone(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 104\n")
    policy.chmod(0o755)
    install(["redis-server"], policy=policy, apt=str(_apt(tmp_path, policy)))
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"


def test_command_is_content_on_a_machine_with_everything() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "devstack.packages", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
