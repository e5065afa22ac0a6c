"""docs/how-to/typed-answers.md: its examples run as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from langbatch.emulator import EmulatorConfig, RunningServer

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/typed-answers.md").read_text()


def answer(body: dict[str, Any], custom_id: str) -> str:
    """The last request gets words, unless it may have more tokens."""
    assert body["response_format"]["json_schema"]["name"] == "Verdict"
    if custom_id == "request-2" and body["max_completion_tokens"] == 200:
        return "Hard to say."
    return json.dumps({"verdict": "good", "stars": 4})


@pytest.fixture
def langbatch_emulator_config() -> EmulatorConfig:
    return EmulatorConfig.instant(answer=answer)


def test_the_pages_examples_run_as_they_stand(
    langbatch_sandbox: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    said = []
    for mark in ("typed answers", "typed answers, asked again"):
        found = re.search(rf"<!-- run: {mark} -->\n```python\n(.*?)```", PAGE, re.S)
        assert found is not None, mark
        exec(compile(found[1], mark, "exec", dont_inherit=True), names)
        said.append(capsys.readouterr().out.splitlines())
    assert said[0] == ["request-0 good 4", "request-1 good 4", "request-2 not_json Hard to say."]
    assert said[1] == [f"request-{n} verdict='good' stars=4" for n in range(3)]
    assert langbatch_sandbox.emulator.report()["counts"]["batches"] == 2


def test_every_code_of_a_misfit_is_on_the_page() -> None:
    source = (Path(__file__).resolve().parents[2] / "langbatch/results/result.py").read_text()
    said = re.search(r"is in the way and `fields` where: (.*?)\n        \"\"\"", source, re.S)
    assert said is not None
    assert set(re.findall(r"`(\w+)`", said[1])) <= set(re.findall(r"`(\w+)`", PAGE))
