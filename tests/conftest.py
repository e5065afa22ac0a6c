"""Shared fixtures: every test has a home of its own and an environment without anybody's credentials."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine everything is slow, which says nothing about what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_FOREIGN = ("AZURE_", "OPENAI_", "LANGBATCH_")


@pytest.fixture(scope="session")
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nobody")


@pytest.fixture(autouse=True)
def clean_environment(nobodys_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees credentials, settings or jobs of the person who runs it."""
    monkeypatch.setenv("HOME", str(nobodys_home))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh LANGBATCH_HOME with short waits."""
    folder = tmp_path / "home"
    monkeypatch.setenv("LANGBATCH_HOME", str(folder))
    monkeypatch.setenv("LANGBATCH_POLL_SECONDS", "0.05")
    return folder
