"""`emulator` and `demo`: the service for those who have none."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path

import pytest

from langbatch_cli.app import main
from langbatch_cli.demo import own_environment, sample_requests
from langbatch_cli.emulator import Profile, changes, environment
from running import CommandLine


@pytest.fixture
def nowhere(tmp_path: Path) -> CommandLine:
    """A user whose variables lead to a service that is not the emulator."""
    return CommandLine(
        tmp_path,
        {
            "AZURE_API_BASE": "https://example.invalid",
            "AZURE_API_KEY": "not-for-the-demo",
            "AZURE_AD_TOKEN": "not-for-the-demo",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "LANGBATCH_POLL_SECONDS": "3000",
            "LANGBATCH_DATABASE_URL": "sqlite:////nonexistent/folder/db",
        },
    )


def test_demo_runs_a_job_whatever_the_variables_say(nowhere: CommandLine) -> None:
    ran = nowhere("demo")
    assert ran.code == 0, ran.err
    assert ran.out == ""
    assert "Paris." in ran.err
    assert "content_filter" in ran.err
    assert "langbatch submit FILE" in ran.err
    assert not nowhere.home.exists()


def test_demo_in_json_has_the_status_and_every_result(nowhere: CommandLine) -> None:
    ran = nowhere("--json", "demo")
    assert ran.code == 0
    outcomes = {result["custom_id"]: result["outcome"] for result in ran.document["results"]}
    assert outcomes["norway"] == "succeeded"
    assert outcomes["utopia"] == "errored"
    assert ran.document["status"]["total"] == len(outcomes) == len(sample_requests().splitlines())


def test_the_demonstration_gives_the_environment_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("AZURE_API_KEY", "mine")
    with own_environment():
        assert "AZURE_API_KEY" not in os.environ
    assert os.environ["AZURE_API_KEY"] == "mine"
    assert "LANGBATCH_POLL_SECONDS" not in os.environ


@pytest.mark.parametrize(("profile", "ending"), [("azure", ""), ("openai", "/v1")])
def test_emulator_says_where_it_is_and_ends_on_ctrl_c(
    nowhere: CommandLine, profile: str, ending: str
) -> None:
    with nowhere.started("emulator", "--profile", profile, "--verbose") as emulator:
        assert emulator.stdout is not None
        assert emulator.stderr is not None
        url = emulator.stdout.readline().decode().strip()
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith(ending)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(url.removesuffix("/v1") + "/_emulator/") as reply:
            assert "counts" in json.load(reply)
        emulator.send_signal(signal.SIGINT)
        told = emulator.stderr.read().decode()
        assert emulator.wait() == 0
    assert f"={url}\n" in told
    assert "Traceback" not in told


def test_emulator_refuses_a_fault_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", "--fault", "nonsense"]) == 2
    assert "--list-faults" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--list-faults"], ["--fault", "list"]])
def test_emulator_lists_its_faults(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emulator", *arguments]) == 0
    assert "create-committed-drop\t" in capsys.readouterr().out
    assert main(["emulator", *arguments, "--json"]) == 0
    names = {fault["name"] for fault in json.loads(capsys.readouterr().out)["faults"]}
    assert "create-committed-drop" in names


def test_a_port_in_use_is_a_usage_error(service_port: int, nowhere: CommandLine) -> None:
    ran = nowhere("emulator", "--port", service_port)
    assert ran.code == 2
    assert str(service_port) in ran.err


def test_each_profile_is_reached_by_its_own_variables() -> None:
    assert environment("http://h:1", Profile.azure)["AZURE_API_VERSION"] == "2024-10-21"
    assert environment("http://h:1", Profile.azure_v1)["AZURE_API_VERSION"] == "v1"
    assert environment("http://h:1/v1", Profile.openai)["OPENAI_BASE_URL"] == "http://h:1/v1"


def test_only_what_changed_is_told() -> None:
    assert list(changes({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})) == ["b: 3", "c: 4"]
