"""What the documents show runs; what they say of the code is so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import langbatch
import langbatch.emulator
from langbatch import JobManager
from langbatch.config.resolving import resolve_target
from langbatch.config.settings import Settings, find_profile
from langbatch.emulator import RunningServer
from langbatch.errors import SetupError
from langbatch.profiles import read_profile
from langbatch_cli import exits
from making import commands, made
from making.site import foreign_requests
from support import requests_file

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
_BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>[^\n`]*)\n(?P<code>.*?)^```$", re.S | re.M
)
#: Languages of blocks that are no examples: Sphinx's directives, and what programs print.
_NO_EXAMPLES = re.compile(r"\{|text$")


@dataclass(frozen=True)
class Example:
    page: str
    number: int
    language: str
    mark: str
    code: str

    def __str__(self) -> str:
        return f"{self.page} {self.number}"


def examples() -> Iterator[Example]:
    for page in PAGES:
        for number, found in enumerate(_BLOCK.finditer(page.read_text()), 1):
            if not _NO_EXAMPLES.match(found["language"]):
                name = str(page.relative_to(ROOT))
                yield Example(name, number, found["language"], found["mark"] or "", found["code"])


ALL = list(examples())


def of(*languages: str) -> list[Example]:
    return [example for example in ALL if example.language in languages]


# ---------------------------------------------------------------- examples


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


@pytest.mark.parametrize("example", of("bash", "python"), ids=str)
def test_every_example_is_run_or_says_why_not(example: Example) -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    by_name = example.mark.startswith("run: ") and example.mark.removeprefix("run: ") in tests
    # Those need what is too large for CI: `make recipes` installs it and runs them.
    named = [p for p in (ROOT / "tests").rglob("*_recipe.py") if str(p.relative_to(ROOT)) in MAKEFILE]
    by_recipes = any(example.mark.removeprefix("run: ") in path.read_text() for path in named)
    by_ci = bool(example.mark) and f"readme_command {example.mark}" in (ROOT / ".ci/run").read_text()
    assert by_name or (example.mark and by_recipes) or by_ci or re.match(r"not run: \S+ \S+", example.mark)


@pytest.mark.parametrize("example", of("json"), ids=str)
def test_a_line_of_json_is_json_and_a_request_valid(example: Example, tmp_path: Path) -> None:
    lines = (
        [example.code]
        if example.code.startswith("{") and "\n " in example.code
        else example.code.splitlines()
    )
    for line in lines:
        shown = json.loads(line)
        if "body" in shown:
            (tmp_path / "requests.jsonl").write_text(line + "\n")
            with JobManager(tmp_path / "home") as manager:
                assert manager.validate(tmp_path / "requests.jsonl").problems == ()


@pytest.mark.parametrize("example", of("toml"), ids=str)
def test_a_profile_can_be_read(example: Example, tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text(example.code)
    for name in tomllib.loads(example.code):
        assert read_profile(tmp_path / "profiles.toml", name).targets


def test_blocks_are_in_languages_that_a_test_knows() -> None:
    assert {example.language for example in ALL} <= {"bash", "cron", "ini", "python", "json", "toml"}


# ---------------------------------------------------------------- what pages say of the code


@pytest.mark.parametrize("path", made(), ids=lambda path: path.name)
def test_a_page_that_is_made_from_the_code_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == made()[path], "run `make pages`"


def test_every_public_name_stands_once_in_the_reference() -> None:
    for page, package in (("python", langbatch), ("emulator", langbatch.emulator)):
        text = (DOCS / "reference" / f"{page}.md").read_text()
        listed = re.findall(r"^\.\. auto(?:class|function|exception):: (\w+)$", text, re.M)
        # Sphinx has no word for a mapping; the page tells of it in words.
        assert sorted(listed) == sorted(set(package.__all__) - {"FAULTS"})


class Asked(dict[str, str]):
    """An environment that keeps which variables were looked for."""

    def __init__(self, **variables: str) -> None:
        super().__init__(variables)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def variables() -> set[str]:
    """Every variable that langbatch looks for."""
    asked = Asked()
    Settings.load("home", environ=asked)
    Settings.load(environ=asked)
    find_profile(None, Path("home"), asked)
    resolve_target("azure", "chat_completions", azure_endpoint="https://x.openai.azure.com", environ=asked)
    # An identity's secret is looked for once the rest of it is there.
    half = Asked(AZURE_TENANT_ID="t", AZURE_CLIENT_ID="c", AZURE_USERNAME="u")
    resolve_target("azure", "chat_completions", azure_endpoint="https://x.openai.azure.com", environ=half)
    with pytest.raises(SetupError, match="endpoint"):
        resolve_target("azure", "chat_completions", environ=asked)
    with pytest.raises(SetupError, match="key"):
        resolve_target("openai", "chat_completions", environ=asked)
    chosen = Asked(LANGBATCH_PROFILE="none")
    with pytest.raises(SetupError, match="profile"):
        find_profile(None, Path("home"), chosen)
    return asked.names | half.names | chosen.names


def first_cells(page: str, pattern: str) -> set[str]:
    """What is set as code in the first cells of a page's tables."""
    cells = re.findall(r"^\|([^|]*)\|", (DOCS / page).read_text(), re.M)
    return {word for cell in cells for word in re.findall(rf"`({pattern})`", cell)}


def test_the_page_of_configuration_names_every_variable_that_is_read_and_no_other() -> None:
    assert first_cells("reference/configuration.md", "[A-Z_]+") == variables()


def test_the_page_of_configuration_names_every_key_of_a_profile_and_no_other(tmp_path: Path) -> None:
    named = first_cells("reference/configuration.md", "[a-z_]+")
    path = tmp_path / "profiles.toml"

    def known(key: str) -> bool:
        value = {"weight": 1, "quota_tokens": 1}.get(key, "x")
        path.write_text(
            f"[p]\n{key} = {json.dumps(value)}\n[q]\n[[q.targets]]\n{key} = {json.dumps(value)}\n"
        )
        found = set()
        for name in ("p", "q"):
            try:
                read_profile(path, name)
            except SetupError as error:
                found.add(error.message)
        return len(found) < 2

    arguments = {*langbatch.config.resolving.TARGET_ARGUMENTS, "model", "provider", "targets"}
    settings = {*Settings.__dataclass_fields__, "webhook_secret_env"}
    path.write_text("[p]\n")
    assert named == {key for key in arguments | settings if key == "targets" or known(key)}


def test_variables_that_pages_name_exist() -> None:
    for page in PAGES:
        named = set(re.findall(r"\bLANGBATCH_[A-Z_]+\b", page.read_text()))
        assert named <= variables(), page.name


_OPTIONS = {
    function.__name__: {
        "--help", "--version",
        *(name for one in commands.parameters(function).values() for name in one.names if name.startswith("-")),
    }
    for function in commands.commands()
}  # fmt: skip


def shown_commands() -> Iterator[tuple[str, str, str]]:
    """Each command that a page shows, in a block or in a text: the page, the command, what stands behind it."""
    for page in PAGES:
        text = page.read_text()
        blocks = [found["code"] for found in _BLOCK.finditer(text) if found["language"] == "bash"]
        spans = re.findall(r"`(langbatch [^`]+)`", _BLOCK.sub("", text))
        for line in "\n".join([*blocks, *spans]).replace("\\\n", " ").splitlines():
            for command, rest in re.findall(r"(?:^|[\s(/])langbatch (\w+)((?:[^#|&;)\"]|\"[^\"]*\")*)", line):
                yield str(page.relative_to(ROOT)), command, rest


def test_commands_and_options_that_pages_show_exist() -> None:
    for page, command, rest in shown_commands():
        assert command in _OPTIONS, f"{page}: langbatch {command}"
        given = re.findall(r"(?<=\s)--?[a-z][\w-]*", re.sub(r"\"[^\"]*\"", "", rest))
        assert set(given) <= _OPTIONS[command], f"{page}: langbatch {command}{rest}"


def test_every_command_is_shown_in_the_readme_and_in_the_docs() -> None:
    for where in ("README.md", "docs/"):
        text = "".join(page.read_text() for page in PAGES if str(page.relative_to(ROOT)).startswith(where))
        shown = {command for page, command, _ in shown_commands() if page.startswith(where)}
        shown |= set(re.findall(r"^\| `(\w+)", text, re.M))
        assert set(_OPTIONS) <= shown


def test_exit_codes_are_told_as_the_command_line_does() -> None:
    told = " · ".join(f"{code.value} {meaning}" for code, meaning in exits.MEANINGS.items())
    assert told in " ".join(README.read_text().split())


# ---------------------------------------------------------------- links


def anchors(page: Path) -> set[str]:
    """As the repository's host and Sphinx make them."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            found = page.parent / path if path else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


def test_pages_that_the_code_names_are_there() -> None:
    for path in [*(ROOT / "langbatch").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]:
        for named in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text()):
            assert (ROOT / named).exists(), f"{path.relative_to(ROOT)} names {named}"


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ('<script src="https://cdn.example/x.js">', True),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', True),
        ("<style>a { background: url('http://x.example/y.png') }</style>", True),
        ('<a href="https://x.example/">a link may be followed</a><img src="x.svg">', False),
    ],
)
def test_what_a_built_page_would_fetch_from_elsewhere_is_found(
    page: str, found: bool, tmp_path: Path
) -> None:
    (tmp_path / "x.html").write_text(page)
    assert bool(list(foreign_requests(tmp_path))) is found
