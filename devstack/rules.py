"""The queue's rules as the local stack uses them: the shipped ones, with people phoned at any hour.

Whoever tries the suite in the evening, or runs its tests on a Sunday, gets people all the same.
"""

from pathlib import Path

import yaml

from services.queue.rules import DEFAULT_PATH, Day


def write_rules(path: Path, **assignment: float) -> Path:
    """Write the shipped rules without calling hours, `assignment`'s values replaced; return where.

    Raises ValueError for a value the rules do not have.
    """
    content = yaml.safe_load(DEFAULT_PATH.read_text(encoding="utf-8"))
    unknown = assignment.keys() - content["assignment"].keys()
    if unknown:
        raise ValueError(f"no such rules: {', '.join(sorted(unknown))}")
    content["assignment"].update(assignment)
    all_day = {"from": "00:00", "until": "24:00"}
    content["calling_hours"]["days"] = {day.value: dict(all_day) for day in Day}
    content["calling_hours"]["holidays"] = None
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
