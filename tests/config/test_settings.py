from __future__ import annotations

from pathlib import Path

import pytest

from langbatch.config.resolving import resolve_target
from langbatch.config.settings import Settings
from langbatch.errors import SetupError


def test_defaults_are_a_minute_and_the_callers_own() -> None:
    settings = Settings.load(environ={})
    assert settings.home.name == "langbatch"
    assert settings.home.is_absolute()
    assert settings.database_url is None
    assert (settings.poll_seconds, settings.grace_seconds, settings.outage_seconds) == (60.0, None, None)
    assert not settings.allow_http


def test_every_setting_has_a_variable() -> None:
    settings = Settings.load(
        environ={
            "LANGBATCH_HOME": "/tmp/lb",
            "LANGBATCH_DATABASE_URL": "sqlite:///x.db",
            "LANGBATCH_POLL_SECONDS": "0.05",
            "LANGBATCH_GRACE_SECONDS": "0",
            "LANGBATCH_OUTAGE_SECONDS": "2.5",
            "LANGBATCH_ALLOW_HTTP": "yes",
            "LANGBATCH_EVENT_LOG": "/tmp/lb/events.jsonl",
            "LANGBATCH_TELEMETRY": "on",
            "LANGBATCH_WEBHOOK_URL": "https://hooks.example.com/x",
            "LANGBATCH_WEBHOOK_SECRET": "whsec_x",
            "LANGBATCH_WEBHOOK_SECONDS": "3600",
        }
    )
    assert settings == Settings(
        Path("/tmp/lb"),
        "sqlite:///x.db",
        0.05,
        True,
        0.0,
        2.5,
        True,
        Path("/tmp/lb/events.jsonl"),
        True,
        "https://hooks.example.com/x",
        "whsec_x",
        3600.0,
    )


def test_an_argument_beats_the_environment_which_beats_the_profile(tmp_path: Path) -> None:
    environ = {"LANGBATCH_HOME": "/from/environment", "LANGBATCH_POLL_SECONDS": "2"}
    profile = {"home": "/from/profile", "poll_seconds": "3", "grace_seconds": "4"}
    settings = Settings.load(tmp_path, environ=environ, profile=profile)
    assert (settings.home, settings.poll_seconds, settings.grace_seconds) == (tmp_path, 2.0, 4.0)


def test_a_variable_set_to_nothing_is_unset() -> None:
    settings = Settings.load(environ={"LANGBATCH_POLL_SECONDS": "", "LANGBATCH_HOME": ""})
    assert settings == Settings.load(environ={})


@pytest.mark.parametrize("name", ["POLL_SECONDS", "GRACE_SECONDS", "OUTAGE_SECONDS", "WEBHOOK_SECONDS"])
@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "1e999"])
def test_a_bad_number_is_told_by_its_variable(name: str, text: str) -> None:
    with pytest.raises(SetupError, match=f"LANGBATCH_{name}"):
        Settings.load(environ={f"LANGBATCH_{name}": text})


def test_polling_without_a_pause_is_refused() -> None:
    with pytest.raises(SetupError, match="LANGBATCH_POLL_SECONDS"):
        Settings.load(environ={"LANGBATCH_POLL_SECONDS": "0"})


def test_a_yes_that_is_neither_is_told() -> None:
    with pytest.raises(SetupError, match="LANGBATCH_ALLOW_HTTP"):
        Settings.load(environ={"LANGBATCH_ALLOW_HTTP": "perhaps"})


@pytest.mark.parametrize(
    ("endpoint", "chosen", "seconds"),
    [
        ("http://127.0.0.1:8080", {}, 1.0),
        ("http://localhost:8080", {}, 1.0),
        ("http://[::1]:8080", {}, 1.0),
        ("https://x.openai.azure.com", {}, 60.0),
        ("http://127.0.0.1:8080", {"LANGBATCH_POLL_SECONDS": "60"}, 60.0),
        ("https://x.openai.azure.com", {"LANGBATCH_POLL_SECONDS": "5"}, 5.0),
    ],
)
def test_a_service_on_this_machine_is_looked_at_more_often(
    endpoint: str, chosen: dict[str, str], seconds: float
) -> None:
    target, _ = resolve_target("azure", "responses", environ={}, azure_endpoint=endpoint, api_key="k")
    assert Settings.load(environ=chosen).poll_seconds_for(target) == seconds


def test_a_webhooks_address_and_secret_do_not_show() -> None:
    settings = Settings.load(
        environ={"LANGBATCH_WEBHOOK_URL": "https://h.example/hush", "LANGBATCH_WEBHOOK_SECRET": "whsec_hush"}
    )
    assert "hush" not in repr(settings)


def test_the_secret_is_found_in_the_variable_that_the_profile_names() -> None:
    profile = {"webhook_url": "https://h.example/x", "webhook_secret_env": "HOOK"}
    settings = Settings.load(environ={"HOOK": "whsec_x"}, profile=profile)
    assert (settings.webhook_url, settings.webhook_secret) == ("https://h.example/x", "whsec_x")
    settings = Settings.load(environ={"HOOK": "y", "LANGBATCH_WEBHOOK_SECRET": "whsec_x"}, profile=profile)
    assert settings.webhook_secret == "whsec_x"


def test_a_password_in_the_database_url_does_not_show() -> None:
    assert "hush" not in repr(Settings.load(environ={"LANGBATCH_DATABASE_URL": "postgresql://u:hush@h/d"}))
