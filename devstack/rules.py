"""The queue's rules as the local stack uses them: the shipped ones, with people phoned at any hour.

So an agent is handed people in the evening and on a Sunday, too. Ofcom's ranges for drama hold some
19,000 numbers, which half a million made-up people share: that makes none a placeholder here.
"""

from pathlib import Path

import yaml

from services.queue.domain.rules import Day
from services.queue.rules import DEFAULT_PATH

_PLACEHOLDER_PEOPLE = 1_000


def write_rules(path: Path, **assignment: float) -> Path:
    """Write the shipped rules as the local stack has them, `assignment`'s values replaced.

    Returns `path`. Raises ValueError for a value the rules do not have.
    """
    content = yaml.safe_load(DEFAULT_PATH.read_text(encoding="utf-8"))
    unknown = assignment.keys() - content["assignment"].keys()
    if unknown:
        raise ValueError(f"no such rules: {', '.join(sorted(unknown))}")
    content["assignment"].update(assignment)
    content["calls"]["placeholder_people"] = _PLACEHOLDER_PEOPLE
    all_day = {"from": "00:00", "until": "24:00"}
    content["calling_hours"]["days"] = {day.value: dict(all_day) for day in Day}
    content["calling_hours"]["holidays"] = None
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
