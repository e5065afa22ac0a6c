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


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees credentials or settings of the person who runs it."""
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
