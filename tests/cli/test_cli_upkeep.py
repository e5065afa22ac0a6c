"""`doctor`, `gc`, `recover`: what they print, and how they end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from langbatch.emulator import EmulatorConfig, RunningServer, running_server
from running import CommandLine, answer, pointing_at


def test_doctor_is_0_when_all_is_well_and_5_when_something_is_in_the_way(
    langbatch: CommandLine, free_port: int
) -> None:
    well = langbatch.here("doctor", "--provider", "azure", "--json")
    assert well.code == 0
    assert well.document["healthy"] is True
    assert well.document["canary"] is None
    assert {"check", "level", "what", "mend"} == set(well.document["findings"][0])
    told = langbatch.here("doctor", AZURE_API_BASE=f"http://127.0.0.1:{free_port}")
    assert told.code == 5
    assert told.out == ""
    assert "problem" in told.err
    assert "→ " in told.err
    assert langbatch.here("doctor", AZURE_API_BASE="").code == 5


def test_doctor_knows_openai_and_refuses_other_providers(langbatch: CommandLine) -> None:
    assert langbatch.here("doctor", "--provider", "openai").code == 0
    assert langbatch.here("doctor", "--provider", "nonsense").code == 5


def test_doctor_warns_and_is_still_0(langbatch: CommandLine) -> None:
    told = langbatch.here("doctor", AZURE_AD_TOKEN="another-way-in")
    assert told.code == 0
    assert "are both set; the key is used" in told.err
    assert "another-way-in" not in told.err
    old = langbatch.here("doctor", "--api-version", "2024-02-01")
    assert old.code == 5
    assert "older than batch" in old.err


def test_the_canary_measures_the_endpoint_and_remembers(langbatch: CommandLine) -> None:
    measured = langbatch.here("doctor", "--canary", "--deployment", "gpt-test", "--json")
    assert measured.code == 0, measured.out
    assert measured.document["canary"]["fence_holds"] is True
    assert measured.document["canary"]["list_complete"] is True
    assert langbatch.here("doctor", "--canary").code == 5


def test_gc_prints_ids_and_its_document_is_the_contracts(langbatch: CommandLine, requests_file: Path) -> None:
    assert langbatch.here("submit", requests_file, "--wait").code == 0
    told = langbatch.here("gc", "--dry-run", "--json")
    assert told.code == 0
    assert told.document["dry_run"] is True
    done = langbatch.here("gc", "--json")
    assert set(done.document) == {"deleted", "kept"}
    assert sorted(done.document["deleted"]) == sorted(told.document["deleted"])
    assert len(done.document["deleted"]) == 3
    again = langbatch.here("gc")
    assert (again.code, again.out) == (0, "")
    assert "0 files deleted" in again.err


def test_gc_tells_an_endpoints_error_beside_what_it_did(
    tmp_path: Path, service: RunningServer, requests_file: Path
) -> None:
    langbatch = CommandLine(tmp_path, pointing_at(service))
    assert langbatch.here("submit", requests_file, "--wait").code == 0
    service.emulator.add_faults("list-files-500")
    try:
        ran = langbatch.here("gc", "--json")
    finally:
        service.emulator.remove_faults("list-files-500")
    assert ran.code == 6
    assert ran.document["deleted"] == []
    assert ran.document["error"]["code"]


@pytest.fixture
def own_service() -> Iterator[RunningServer]:
    """One that no other test's store has used."""
    with running_server(config=EmulatorConfig.demo(speed=50.0, answer=answer)) as server:
        yield server


def test_recover_brings_a_job_back_and_fetch_hands_it_over(
    tmp_path: Path, own_service: RunningServer, requests_file: Path
) -> None:
    langbatch = CommandLine(tmp_path, pointing_at(own_service))
    job = langbatch.here("submit", requests_file, "--wait", "--json").document["id"]
    shutil.rmtree(langbatch.home)
    refused = langbatch.here("recover")
    assert refused.code == 2
    assert "--from-remote" in refused.err
    done = langbatch("recover", "--from-remote", "--json")
    assert done.code == 0
    assert [one["id"] for one in done.document["jobs"]] == [job]
    assert "lines count from 1" in done.document["jobs"][0]["attention"]
    assert langbatch.here("fetch", job, "-o", "-").out.count("\n") == 3
    again = langbatch.here("recover", "--from-remote")
    assert again.code == 0
    assert "0 jobs brought back, 1 were here already" in again.err


def test_recover_of_several_stores_asks_which_one(
    tmp_path: Path, own_service: RunningServer, requests_file: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        lost = CommandLine(tmp_path / name, pointing_at(own_service))
        assert lost.here("submit", requests_file, "--wait").code == 0
    fresh = CommandLine(tmp_path, pointing_at(own_service))
    asked = fresh.here("recover", "--from-remote")
    assert asked.code == 2
    assert "--store-id" in asked.err
    store = re.findall(r"([0-9a-f]{8}) \(jobs: 1\)", asked.err)[0]
    done = fresh.here("recover", "--from-remote", "--store-id", store)
    assert done.code == 0
    assert "1 job brought back" in done.err
    assert "left alone" in done.err
