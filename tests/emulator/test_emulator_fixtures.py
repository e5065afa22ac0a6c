"""The pytest fixtures that users get: docs/how-to/testing.md shows them at work, and runs here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from langbatch.emulator import RunningServer
from support import requests_file

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/testing.md").read_text()


def blocks(mark: str) -> list[str]:
    return re.findall(rf"<!-- run: {re.escape(mark)} -->\n```python\n(.*?)```", PAGE, re.S)


def test_the_pages_examples_pass_as_they_stand(tmp_path: Path) -> None:
    """In a pytest of its own, which finds the fixtures because langbatch is installed."""
    (pipeline,) = blocks("pytest pipeline")
    examples = blocks("pytest example")
    (tmp_path / "my_pipeline.py").write_text(pipeline)
    for number, example in enumerate(examples):
        (tmp_path / f"test_{number}.py").write_text(example)
    requests_file(tmp_path / "requests.jsonl", ["a", "b", "c"])
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    passed = re.search(r"^(\d+) passed in", ran.stdout, re.M)
    assert passed is not None, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert int(passed[1]) >= len(examples) >= 8


@pytest.fixture
def somebodys_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_OPENAI_API_KEY", "OPENAI_ORG_ID", "LANGBATCH_PROFILE", "LANGBATCH_DATABASE_URL"):
        monkeypatch.setenv(name, "real")


def test_nothing_in_the_sandbox_leads_to_a_real_account(
    somebodys_account: None, langbatch_sandbox: RunningServer, tmp_path: Path
) -> None:
    found = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("AZURE_", "OPENAI_", "LANGBATCH_"))
    }
    assert "real" not in found.values()
    assert found["AZURE_API_BASE"] == langbatch_sandbox.azure_endpoint
    assert Path(found["LANGBATCH_HOME"]).parent == tmp_path


def test_an_outage_refuses_connections_and_ends_with_all_that_was_there(
    langbatch_emulator: RunningServer,
) -> None:
    address = f"{langbatch_emulator.url}/_emulator/"
    before = httpx.get(address).json()
    with langbatch_emulator.down(), pytest.raises(httpx.ConnectError):
        httpx.get(address)
    assert httpx.get(address).json()["files"] == before["files"]
