"""Settings: aliases of the source systems, no default secret, every field documented."""

import pytest
from pydantic import ValidationError

from neuroedge.settings import Settings


def test_every_setting_is_described_and_none_has_a_secret_default() -> None:
    """What an operator can set is documented; secrets come from outside or are generated."""
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if any(word in name for word in ("secret", "password", "url")):
            assert field.default is None, name


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("PORT", "9000", "port", 9000),
        ("MODEL_DEVICE", "cpu", "model_device", "cpu"),
        ("TENANT_DEFAULT", "Acme", "tenant_default", "Acme"),
        ("NEUROEDGE_PORT", "9001", "port", 9001),
        ("NEUROEDGE_MODELS", "chat=a, text_embedding=b", "models", {"chat": "a", "text_embedding": "b"}),
    ],
)
def test_source_systems_names_are_aliases(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, field: str, expected: object
) -> None:
    """A deployment of a source system keeps its environment."""
    monkeypatch.setenv(variable, value)
    assert getattr(Settings(), field) == expected


@pytest.mark.parametrize("variable", ["POSTGRES_URL", "DATABASE_URL", "NEUROEDGE_POSTGRES_URL"])
def test_connection_strings_are_secrets(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """They do not show when settings are printed."""
    for name in ("POSTGRES_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "postgresql://u:hidden-word@h/db")
    settings = Settings()
    assert settings.postgres_url is not None
    assert settings.postgres_url.get_secret_value().endswith("@h/db")
    assert "hidden-word" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PORT", "70000"), ("JWT_SECRET", "short"), ("NEUROEDGE_MODELS", "chat"), ("MODEL_DEVICE", "abacus")],
)
def test_wrong_values_are_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """At start, not at first use."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError):
        Settings()
