"""The project's own files hold together: README, dependency ends, public names, import direction."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import langbatch
from langbatch.emulator import RunningServer
from support import requests_file

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def code_after(marker: str) -> str:
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", README, re.S)
    assert found is not None, marker
    return found[1]


def test_the_readmes_python_example_runs_as_it_stands(
    langbatch_emulator: RunningServer, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    requests_file(tmp_path / "requests.jsonl", ["a", "b"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AZURE_API_KEY", "any")
    monkeypatch.setenv("AZURE_API_BASE", langbatch_emulator.azure_endpoint)
    exec(compile(code_after("run: python"), "README.md", "exec"), {})
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["a", "succeeded"],
        ["b", "succeeded"],
    ]


def test_the_readmes_pytest_example_passes_as_it_stands(
    langbatch_emulator: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests_file(tmp_path / "requests.jsonl", ["a", "b"])
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code_after("run: pytest"), "README.md", "exec"), names)
    example = names["test_my_pipeline"]
    assert callable(example)
    example(langbatch_emulator, monkeypatch, tmp_path / "home")


def test_the_readme_names_every_command_and_no_other() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "langbatch_cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    commands = set(re.findall(r"^  (\w+)  ", shown.split("Commands:")[1], re.M))
    table = README.split("## Commands")[1].split("A unique prefix")[0]
    assert set(re.findall(r"^\| `(\w+)", table, re.M)) == commands


def test_the_oldest_dependencies_that_ci_installs_are_the_lower_ends_of_the_ranges() -> None:
    ranges = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    lower = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(ranges), re.M))
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / ".ci/oldest.txt").read_text(), re.M))

    def release(version: str) -> tuple[int, ...]:
        parts = [int(part) for part in version.split(".")]
        return tuple(parts + [0] * (3 - len(parts)))

    assert {name: release(v) for name, v in pinned.items()} == {name: release(v) for name, v in lower.items()}


def test_every_dependency_says_why_it_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for line in re.findall(r'^  "[a-z][\w-]+>=.*$', text, re.M):
        assert re.search(r"#\s+\S+ \S+", line), line


def test_the_public_names_are_sorted_and_all_importable() -> None:
    assert langbatch.__all__ == sorted(langbatch.__all__)
    for name in langbatch.__all__:
        assert getattr(langbatch, name).__name__ == name
    assert set(dir(langbatch)) == {*langbatch.__all__, "__version__"}
    with pytest.raises(AttributeError):
        importlib.import_module("langbatch").no_such_name  # noqa: B018


HEAVY = {
    "openai",
    "azure",
    "sqlalchemy",
    "alembic",
    "starlette",
    "uvicorn",
    "rich",
    "pydantic",
    "pyarrow",
    "pandas",
    "polars",
    "numpy",
    "opentelemetry",
    "httpx",
    "httpx2",
}


@pytest.mark.parametrize(
    "module",
    ["langbatch", "langbatch.handles", "langbatch.emulator", "langbatch.events", "langbatch_cli.app"],
)
def test_importing_is_light_and_has_no_side_effects(module: str, tmp_path: Path) -> None:
    code = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.split()
    assert not HEAVY & set(loaded)
    assert list(tmp_path.iterdir()) == []


#: Who may import whom inside the library; docs/design.md tells why.
PURE = (
    "lifecycle",
    "records",
    "errors",
    "targets",
    "requests",
    "shards/sharding",
    "running/decisions",
    "running/reconcile",
    "running/waiting",
    "results",
    "building",
    "money",
    "reuse",
    "events",
    "telling/signing",
    "telling/webhook",
)
FORBIDDEN = {
    **dict.fromkeys(PURE, ("langbatch.store", "langbatch.providers.openai", "langbatch.running.runner", "langbatch.manager")),
    "emulator": ("langbatch.store", "langbatch.manager", "langbatch.running", "langbatch.handles", "langbatch.providers"),
    "providers": ("langbatch.store", "langbatch.manager", "langbatch.running", "langbatch.handles"),
    "store": ("langbatch.providers", "langbatch.manager", "langbatch.running", "langbatch.emulator", "langbatch.telling"),
    "running": ("langbatch.manager", "langbatch.handles", "langbatch.upkeep", "langbatch.emulator", "langbatch.telling"),
    "telling": ("langbatch.manager", "langbatch.handles", "langbatch.running", "langbatch.upkeep", "langbatch.emulator"),
}  # fmt: skip


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_point_one_way(part: str) -> None:
    place = ROOT / "langbatch" / part
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    for path in files:
        for name in imports_of(path):
            assert not name.startswith(FORBIDDEN[part]), f"{path.relative_to(ROOT)} imports {name}"


def test_only_the_store_imports_sqlalchemy_and_only_the_command_line_imports_typer() -> None:
    for path in (ROOT / "langbatch").rglob("*.py"):
        names = {name.split(".")[0] for name in imports_of(path)}
        if path.relative_to(ROOT / "langbatch").parts[0] != "store":
            assert not names & {"sqlalchemy", "alembic"}, path
        assert not names & {"typer", "click", "langbatch_cli"}, path


def test_the_command_line_uses_public_names_only() -> None:
    public = {"langbatch", "langbatch.emulator", "langbatch.events"}
    for path in (ROOT / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "langbatch":
                assert node.module in public, f"{path.name} imports {node.module}"
