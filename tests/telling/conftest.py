"""Managers of these tests come and go: the key is where each of them finds it."""

from __future__ import annotations

import pytest

from support import SECRET_KEY


@pytest.fixture(autouse=True)
def key(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_API_KEY", SECRET_KEY)
