"""Every client of the suite is servicekit's."""

from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_channels_are_made_in_one_place() -> None:
    """Elsewhere they would lack its deadlines, its retries and its resolution of names."""
    made = [
        path.relative_to(ROOT).as_posix()
        for folder in ("servicekit", "services", "gateway", "mainapp")
        for path in (ROOT / folder).rglob("*.py")
        if "secure_channel(" in path.read_text(encoding="utf-8")
    ]
    assert made == ["servicekit/client.py"]
