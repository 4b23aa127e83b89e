"""Settings: aliases of the source systems, no default secret, every field documented."""

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from neuroedge.settings import Settings, default_data_dir


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
    [
        ("PORT", "70000"),
        ("JWT_SECRET", "short"),
        ("NEUROEDGE_MODELS", "chat"),
        ("MODEL_DEVICE", "abacus"),
        ("TENANT_DEFAULT", "x" * 201),
    ],
)
def test_wrong_values_are_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """At start, not at first use."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("postgresql://u:p@h:1/d", "postgresql://u:p@h:1/d"),
        ("postgres://u:p@h/d", "postgresql://u:p@h/d"),
        ("postgresql+asyncpg://u:p%40@h/d", "postgresql://u:p%40@h/d"),
        ("postgresql+psycopg2://h/d", "postgresql://h/d"),
        ("host=h password=p", "host=h password=p"),
    ],
)
@pytest.mark.parametrize("variable", ["NEUROEDGE_POSTGRES_URL", "NEUROEDGE_POSTGRES_APP_URL"])
def test_database_addresses_of_other_frameworks_are_understood(
    monkeypatch: pytest.MonkeyPatch, variable: str, given: str, taken: str
) -> None:
    """SQLAlchemy's driver suffix and the short scheme come off."""
    monkeypatch.setenv(variable, given)
    value = getattr(Settings(), variable.removeprefix("NEUROEDGE_").lower())
    assert value.get_secret_value() == taken


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POSTGRES_URL", "mysql://u:hidden-word@h/d"),
        ("POSTGRES_URL", "postgresql+asyncpg://u:hidden-word@h/d?ssl=require"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://:hidden-word@h"),
        ("REDIS_URL", "redis://h:hidden-word"),
        ("REDIS_URL", ""),
    ],
)
def test_addresses_of_nothing_are_refused_without_showing_them(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """At start, and a password in them stays out of the message."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "hidden-word" not in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("url", ["redis://h", "rediss://:p@h:1/2", "valkey://h", "valkeys://h", "unix:///run/a.sock"])
def test_cache_addresses_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The schemes the client knows."""
    monkeypatch.setenv("REDIS_URL", url)
    settings = Settings()
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == url


def test_data_on_macos_lies_where_no_path_has_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in Application Support."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_data_dir() == Path.home() / ".local" / "share" / "neuroedge"
