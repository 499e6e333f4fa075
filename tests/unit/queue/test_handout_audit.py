"""Users handed out are compared with the users that the check found fit."""

import pytest
from prometheus_client import REGISTRY

from services.queue.calls.handout_batch import _audit, _Checked
from services.queue.types import UserId


def test_a_user_handed_out_without_being_found_fit_is_a_wrong_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("dialler_queue_wrong_calls_total") or 0.0

    before = count()
    _audit(_Checked(), [])
    assert count() == before
    _audit(_Checked(), [UserId(7), UserId(8)])
    assert count() == before + 2
    assert [record.message for record in caplog.records] == ["handed_out_unfit"]
