"""Bodies of requests: what is refused without asking any service."""

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

import gateway.app  # noqa: F401  every request's model is imported by it


def _models(of: type[BaseModel] = BaseModel) -> list[type[BaseModel]]:
    found = [it for it in of.__subclasses__() if it.__module__.startswith("gateway.")]
    return [it for each in found for it in (each, *_models(each))]


BOOLEANS = [
    pytest.param(model, name, id=f"{model.__name__}.{name}")
    for model in _models()
    if model.model_config.get("extra") == "forbid"
    for name, field in model.model_fields.items()
    if field.annotation is bool
]


@pytest.mark.parametrize("not_a_boolean", [0, 1, 0.0, "true", "on"])
@pytest.mark.parametrize(("model", "name"), BOOLEANS)
def test_a_boolean_is_true_or_false(
    model: type[BaseModel], name: str, not_a_boolean: object
) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(model).validate_python({name: not_a_boolean})
    assert (name,) in [it["loc"] for it in refused.value.errors()]
