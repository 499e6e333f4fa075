"""The rules file: what we ship is valid, and what is wrong is refused with a reason."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.queue.domain.rules import Day
from services.queue.rules import DEFAULT_PATH
from services.queue.types import Outcome, Queue
from tests.fakes.rules import load_rules


def test_the_shipped_rules_say_what_the_domain_says() -> None:
    rules = load_rules()
    assert (rules.score.fresh, rules.score.frozen, rules.score.ageing_per_week) == (0, 200, 5)
    assert rules.calls.cooling_hours == 2
    weekday, saturday = (8 * 60, 20 * 60), (9 * 60, 17 * 60)
    hours = {
        day: (it.begins_minute, it.ends_minute) for day, it in rules.calling_hours.days.items()
    }
    assert hours == {**dict.fromkeys(list(Day)[:5], weekday), Day.SATURDAY: saturday}
    assert set(rules.outcomes) == set(Outcome)
    assert rules.assignment.default_queues == (Queue.UNSIGNED_USERS, Queue.OUTSTANDING_REQUESTS)


_ABROAD = {"code": "moved_abroad", "label": "Moved abroad", "outcome": "not_interested"}
_LATER = (
    *("voicemail_left", "voicemail_not_left", "wrong_person", "deceased", "language_barrier"),
)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("score", "frozen"), 0, "frozen"),
        (("score", "ageing_per_week"), -1, "ageing_per_week"),
        (("score", "attempts"), [{"above": 5, "add": 1}, {"above": 5, "add": 3}], "rise"),
        (("outcomes", "hung_up"), None, "hung_up"),
        (("outcomes", "shouted"), {"score": {"set": 0}, "next_call_hours": 1}, "not one of"),
        (("outcomes", "hung_up", "score"), {"set": 0, "add": 1}, "either set or add"),
        (("outcomes", "hung_up", "score"), {}, "either set or add"),
        (("outcomes", "hung_up", "next_call_hours"), None, "blocks"),
        (("outcomes", "no_claim", "next_call_hours"), 3, "blocks"),
        (("outcomes", "do_not_contact", "holds_number"), True, "holds a number"),
        (("dispositions",), [_ABROAD, _ABROAD], "twice"),
        (("dispositions",), [_ABROAD | {"code": "hung_up"}], "code of an outcome: hung_up"),
        (("dispositions",), [_ABROAD | {"code": "Abroad"}], "code"),
        (("dispositions",), [_ABROAD | {"outcome": "abroad"}], "not one of"),
        (("dispositions",), [_ABROAD | {"label": ""}], "label"),
        (("calls", "company_time_zone"), "Europe/Atlantis", "time zone"),
        (("calling_hours", "time_zone"), "Europe/Atlantis", "time zone"),
        (("calling_hours", "days"), {}, "days"),
        (("calling_hours", "days", "monday"), {"from": "20:00", "until": "08:00"}, "before they"),
        (("calling_hours", "days", "monday"), {"from": "8", "until": "20:00"}, "time of day"),
        (("calling_hours", "days", "monday"), {"from": "08:00", "until": "24:01"}, "time of day"),
        (("calling_hours", "days", "caturday"), {"from": "08:00", "until": "20:00"}, "caturday"),
        (("calling_hours", "holidays"), {"country": "GB", "subdivision": "XYZ"}, "no holidays"),
        (("assignment", "lease_seconds"), 9e9, "longer than"),
        (("assignment", "default_queues"), ["callbacks"], "callbacks come first"),
        (("score", "ages"), [{"from_age": 60, "add": 1}, {"from_age": 60, "add": 2}], "rise"),
        (("outcomes", "call_back", "callback"), "sometimes", "callback"),
        (("calls", "attempts_per_day"), 0, "attempts_per_day"),
        (("callbacks", "retry_minutes"), 0, "retry_minutes"),
        (("agents", "presence_seconds"), -1, "presence_seconds"),
        (("assignment", "default_queues"), [], "default_queues"),
        (("assignment", "leese_seconds"), 5, "leese_seconds"),
        (("eligibility", "ended_claim_statuses"), [], "ended_claim_statuses"),
        (("retention", "call_days"), 300, "366"),
        (("retention", "call_days"), float("inf"), "36500"),
        (("retention", "call_notes_days"), 500, "notes of calls"),
        (("retention", "kept_days"), 5, "kept_days"),
        (("calls", "shared_phone_hours"), 24 * 401, "shared numbers"),
        (("assignment", "late_outcome_seconds"), 91 * 86_400, "late outcomes"),
    ],
)
def test_wrong_rules_are_refused(
    tmp_path: Path, path: tuple[str, ...], value: Any, complaint: str
) -> None:
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    section = content
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = value
    changed = tmp_path / "rules.yaml"
    changed.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=complaint):
        load_rules(changed)


def test_a_file_from_before_keeps_everything_for_as_long_as_the_shipped_one(
    tmp_path: Path,
) -> None:
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    content["retention"] = {"request_hours": 48, "audit_days": 1095}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(content))
    assert load_rules(tmp_path / "rules.yaml") == load_rules()


def test_a_file_from_before_has_the_shipped_rules_of_later_outcomes(tmp_path: Path) -> None:
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    for name in _LATER:
        del content["outcomes"][name]
    del content["outcomes"]["bad_number"]["holds_number"]
    del content["dispositions"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(content))
    assert load_rules(tmp_path / "rules.yaml") == load_rules()


def test_a_missing_outcome_is_named(tmp_path: Path) -> None:
    content = yaml.safe_load(DEFAULT_PATH.read_text())
    del content["outcomes"]["bad_number"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="bad_number"):
        load_rules(tmp_path / "rules.yaml")


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="not YAML"):
        load_rules(tmp_path / "rules.yaml")


def test_every_value_names_its_source() -> None:
    """Comments stand above the values they explain."""
    explained, unexplained = False, []
    for number, line in enumerate(DEFAULT_PATH.read_text().splitlines(), start=1):
        text = line.strip()
        if not text:
            explained = False
        elif text.startswith("#"):
            explained = explained or "[" in text or "(ours" in text or "ISO 3166" in text
        elif not explained and not line.endswith(":"):
            unexplained.append((number, text))
    assert unexplained == []
