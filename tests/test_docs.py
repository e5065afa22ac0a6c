"""What the documents show runs; what they say of the code is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from langbatch.emulator import RunningServer
from support import requests_file

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
_BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>python|bash)\n(?P<code>.*?)```", re.S)


@dataclass(frozen=True)
class Example:
    page: str
    number: int
    language: str
    mark: str
    code: str

    def __str__(self) -> str:
        return f"{self.page} {self.number}"


def examples() -> list[Example]:
    return [
        Example(str(page.relative_to(DOCS)), number, found["language"], found["mark"] or "", found["code"])
        for page in PAGES
        for number, found in enumerate(_BLOCK.finditer(page.read_text()), 1)
    ]


ALL = examples()


@pytest.mark.parametrize("example", [e for e in ALL if e.mark == f"run: {e.language}"], ids=str)
def test_an_example_runs_as_it_stands(
    example: Example, langbatch_emulator: RunningServer, tmp_path: Path
) -> None:
    requests_file(tmp_path / "requests.jsonl", ["a", "b", "c"])
    command = ["bash", "-euo", "pipefail", "-c", example.code]
    if example.language == "python":
        command = [sys.executable, "-c", example.code]
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("AZURE", "OPENAI"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "cli"))),
            "LANGBATCH_HOME": str(tmp_path / "home"),
            "LANGBATCH_POLL_SECONDS": "0.1",
            "AZURE_API_BASE": langbatch_emulator.azure_endpoint,
            "AZURE_API_KEY": "any",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr


def test_every_example_is_run_or_says_why_not() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for example in ALL:
        by_name = example.mark.startswith("run: ") and example.mark.removeprefix("run: ") in tests
        assert by_name or re.match(r"not run: \S+ \S+", example.mark), str(example)


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#\s]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_the_page_of_states_is_made_from_the_table() -> None:
    spec = spec_from_file_location("make_states", DOCS / "make_states.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), "run `python docs/make_states.py`"
