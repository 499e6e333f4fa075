"""Settings read from the environment."""

import pytest
from pydantic import Field, SecretStr, ValidationError

from servicekit.settings import ServiceSettings, settings_config


class SampleSettings(ServiceSettings):
    """Settings of an imaginary service."""

    model_config = settings_config("SAMPLE_")

    api_key: SecretStr = Field(description="Key of the upstream.")
    lease_seconds: float = Field(default=30.0, gt=0.0, description="Length of a lease.")


def test_prefix_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_API_KEY", "k")
    monkeypatch.setenv("SAMPLE_GRPC_PORT", "50051")
    monkeypatch.setenv("GRPC_PORT", "1")
    settings = SampleSettings()
    assert settings.grpc_port == 50051
    assert settings.lease_seconds == 30.0
    assert settings.drain_seconds == 10.0


def test_empty_is_unset_and_unknown_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_API_KEY", "k")
    monkeypatch.setenv("SAMPLE_LEASE_SECONDS", "")
    monkeypatch.setenv("SAMPLE_RETIRED_OPTION", "x")
    settings = SampleSettings()
    assert settings.lease_seconds == 30.0


def test_frozen() -> None:
    settings = SampleSettings(api_key=SecretStr("k"))
    with pytest.raises(ValidationError):
        settings.lease_seconds = 1.0


def test_secret_is_in_no_text_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hunter2" not in repr(SampleSettings(api_key=SecretStr("hunter2")))
    monkeypatch.setenv("SAMPLE_LEASE_SECONDS", "hunter2")
    with pytest.raises(ValidationError) as caught:
        SampleSettings(api_key=SecretStr("k"))
    assert "hunter2" not in str(caught.value)


def test_every_variable_is_documented() -> None:
    fields = ServiceSettings.model_fields
    assert [name for name, field in fields.items() if not field.description] == []
