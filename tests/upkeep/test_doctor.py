"""The doctor: each thing that goes wrong is told with the way to mend it, and nothing is changed."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from langbatch import Diagnosis, Finding, JobManager, Unreachable
from langbatch.config.settings import Settings
from langbatch.errors import AccessRefused
from langbatch.providers.credentials import Credentials
from langbatch.records import RemoteFile, Target
from langbatch.store.examination import Examined
from langbatch.upkeep import surroundings
from langbatch.upkeep.doctor import check_azure_settings, check_clock, check_file_count, explain_refusal
from support import SECRET_KEY, VirtualClock, World, requests_file, world

#: A user who owns nothing, on every system.
NOBODY = 65534
AZURE = Target("azure", "res.openai.azure.com", "chat_completions", "dep", {"api_version": "v1"})


def visit(here: World, **arguments: Any) -> Diagnosis:
    with here.manager() as manager:
        return manager.doctor(**{**here.azure, **arguments})


def found(diagnosis: Diagnosis, check: str) -> Finding:
    (only,) = [finding for finding in diagnosis if finding.check == check]
    return only


def test_a_healthy_setup_is_told_so_and_nothing_is_made(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        diagnosis = visit(here)
        assert diagnosis.healthy
        assert {finding.level for finding in diagnosis} == {"ok"}
        assert {"configuration", "home", "disk", "database", "sign_in", "clock", "files"} <= {
            finding.check for finding in diagnosis
        }
        assert not here.home.exists()
        counts = here.counts()
        assert set(counts.values()) == {0}
        assert SECRET_KEY not in str(diagnosis.to_dict())


@pytest.mark.parametrize(
    ("fault", "mend"),
    [
        ("list-401-key", "Keys and Endpoint"),
        ("list-401-role", "Cognitive Services OpenAI User"),
        ("list-403", "network rules"),
        ("list-401-entra", "not inside a client of your own"),
        ("list-404", "api-version"),
        ("list-500", "in trouble"),
        ("list-429", "slow down"),
    ],
)
def test_each_way_of_being_refused_has_its_own_mending(fault: str, mend: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=(fault,)) as here:
        diagnosis = visit(here)
        assert not diagnosis.healthy
        sign_in = found(diagnosis, "sign_in")
        assert sign_in.level == "problem"
        assert sign_in.mend is not None
        assert mend in sign_in.mend


@pytest.mark.parametrize(
    ("kind", "mend"),
    [
        ("token", "expired (they last about an hour)"),
        ("default", "set AZURE_SCOPE to"),
        ("key", "AZURE_API_KEY"),
    ],
)
def test_a_wrong_audience_is_explained_by_what_was_signed_in_with(kind: Any, mend: str) -> None:
    error = AccessRefused("HTTP 401: Access token is missing, invalid, audience is incorrect", status=401)
    finding = explain_refusal(error, AZURE, Credentials(kind))
    assert finding.mend is not None
    assert mend in finding.mend


def test_a_resource_that_takes_no_keys_says_how_else_to_sign_in(tmp_path: Path) -> None:
    with world(tmp_path, key_auth_disabled=True) as here:
        mend = found(visit(here), "sign_in").mend
        assert mend is not None
        assert "az login" in mend


def test_a_configuration_without_endpoint_is_a_problem_and_the_rest_is_still_looked_at(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        diagnosis = manager.doctor("azure", api_key="k")
    assert found(diagnosis, "configuration").level == "problem"
    assert "AZURE_API_BASE" in str(found(diagnosis, "configuration").mend)
    assert found(diagnosis, "disk").level == "ok"


@pytest.mark.parametrize(
    ("environ", "check", "words"),
    [
        ({"AZURE_API_KEY": "a", "AZURE_OPENAI_AD_TOKEN": "b"}, "credentials", "the key is used"),
        ({"AZURE_API_KEY": "a", "AZURE_OPENAI_API_KEY": "b"}, "configuration", "differ"),
        (
            {"AZURE_API_BASE": "https://r.openai.azure.com/openai/deployments/gpt/chat/completions"},
            "endpoint",
            "--deployment gpt",
        ),
    ],
)
def test_settings_that_are_hardly_meant_are_warned_of(
    environ: dict[str, str], check: str, words: str
) -> None:
    told = [f for f in check_azure_settings(environ, {}, AZURE) if f.level == "warning"]
    assert [f.check for f in told] == [check]
    assert words in f"{told[0].what} {told[0].mend}"


def test_an_api_version_from_before_batch_and_a_regions_address_are_warned_of() -> None:
    old = Target(
        "azure", "eastus.api.cognitive.microsoft.com", "chat_completions", "d", {"api_version": "2024-02-01"}
    )
    told = {f.check: f.what for f in check_azure_settings({}, {"api_version": "x"}, old)}
    assert "older than batch" in told["api_version"]
    assert "region's address" in told["endpoint"]


@pytest.mark.parametrize(
    ("server", "level", "words"),
    [(1000.0, "ok", "agrees"), (700.0, "warning", "299 s ahead"), (1302.0, "warning", "300 s behind")],
)
def test_a_clock_that_is_off_is_told_with_its_direction(server: float, level: str, words: str) -> None:
    finding = check_clock(server, 1000.0, 1002.0)
    assert finding.level == level
    assert words in finding.what


@pytest.mark.parametrize(
    ("version", "count", "level"),
    [("2024-10-21", 399, "ok"), ("2024-10-21", 400, "warning"), ("2024-10-21", 500, "problem"),
     ("v1", 500, "ok"), ("v1", 8_000, "warning")],
)  # fmt: skip
def test_the_files_on_an_azure_resource_are_held_against_its_limit(
    version: str, count: int, level: str
) -> None:
    target = Target("azure", "h", "chat_completions", "d", {"api_version": version})
    files = [RemoteFile(f"file-{n}", "processed") for n in range(count)]
    assert check_file_count(files, True, target).level == level


def test_other_stores_files_beside_an_empty_store_point_to_recover(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        with here.manager() as manager:
            manager.wait(manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure).id)
            assert all(finding.level == "ok" for finding in manager.doctor(**here.azure))
        other = World(tmp_path / "elsewhere", here.clock, here.emulator)
        told = found(visit(other), "other_stores")
        assert told.level == "warning"
        assert "recover --from-remote" in str(told.mend)
        with other.manager() as manager:
            manager.submit(requests_file(tmp_path / "in2.jsonl", ["b"]), **here.azure)
        assert found(visit(other), "other_stores").level == "ok"


def test_an_open_home_is_warned_of_and_a_home_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        with here.manager() as manager:
            manager.jobs()
        assert found(visit(here), "home").level == "ok"
        (here.home / "langbatch.db").chmod(0o644)
        told = found(visit(here), "home")
        assert (told.level, told.mend) == ("warning", f"chmod -R go-rwx {here.home}")
        taken = tmp_path / "taken"
        taken.write_text("")
        assert found(visit(World(taken, here.clock, here.emulator)), "home").level == "problem"


def test_a_locked_a_foreign_a_damaged_and_a_newer_database_are_told_apart(tmp_path: Path) -> None:
    def told(home: Path) -> str:
        finding, _ = surroundings.check_database(Settings(home))
        assert finding.mend is not None
        return f"{finding.level} {finding.what}"

    with world(tmp_path) as here:
        with here.manager() as manager:
            manager.jobs()
        path = here.home / "langbatch.db"
        with sqlite3.connect(path) as stranger:
            stranger.execute("BEGIN IMMEDIATE")
            assert "locked" in told(here.home)
        stranger.execute("UPDATE alembic_version SET version_num = '9999'")
        stranger.commit()
        assert "newer" in told(here.home)
        stranger.execute("DROP TABLE alembic_version")
        stranger.commit()
        stranger.close()
        assert "not langbatch's" in told(here.home)
        path.write_bytes(b"no database at all, but long enough to be read" * 50)
        assert "damaged" in told(here.home)
        assert told(here.home).startswith("problem")


def test_another_home_with_a_store_and_proxies_are_warned_of(tmp_path: Path) -> None:
    usual, named = tmp_path / "usual", tmp_path / "named"
    for home in (usual, named):
        home.mkdir()
        (home / "langbatch.db").write_text("")
    environ = {"LANGBATCH_HOME": str(named), "https_proxy": "http://user:secret-word@proxy:3128"}
    told = list(surroundings.check_other_stores(Settings(tmp_path / "this"), environ, usual))
    assert len(told) == 2
    assert not list(surroundings.check_other_stores(Settings(named), {"LANGBATCH_HOME": str(named)}, named))
    (proxy,) = surroundings.check_proxies(environ, "api.openai.com", loopback=False)
    assert "https_proxy" in proxy.what
    assert "secret-word" not in str(proxy)
    assert not list(surroundings.check_proxies(environ, "localhost", loopback=True))


# ---------------------------------------------------------------- the usual mistakes


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody may enter `folder`, root included: root is somebody else meanwhile."""
    before = folder.stat().st_mode
    folder.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(before)


def test_a_home_that_may_not_be_read_is_a_problem_and_the_rest_is_still_looked_at(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        here.home.mkdir()
        with locked(here.home):
            diagnosis = visit(here)
    told = found(diagnosis, "home")
    assert told.level == "problem"
    assert "cannot be read" in told.what
    assert "LANGBATCH_HOME" in str(told.mend)
    assert found(diagnosis, "database").level == "problem"
    assert found(diagnosis, "sign_in").level == "ok"


@pytest.mark.parametrize("target", ["home", "nowhere/at/all"])
def test_a_home_that_is_a_link_to_nowhere_or_to_itself_is_a_problem(target: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.symlink_to(tmp_path / target)
    (told,) = [f for f in surroundings.check_home(Settings(home)) if f.check == "home"]
    assert told.level == "problem"
    assert "cannot be reached" in told.what


@pytest.mark.parametrize(
    ("free", "level"), [(5_000_000_000, "ok"), (500_000_000, "warning"), (1_000_000, "problem")]
)
def test_a_disk_that_is_full_or_nearly_is_told_with_what_frees_room(
    free: int, level: str, tmp_path: Path
) -> None:
    told = surroundings.check_room(tmp_path, free)
    assert told.level == level
    assert level == "ok" or "Free some space" in str(told.mend)


def test_an_older_schema_is_told_before_it_is_migrated() -> None:
    told = surroundings.check_schema(Examined("0000", None, 0))
    assert told.level == "warning"
    assert "copy of the old one" in str(told.mend)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"standard_deployments": frozenset({"dep"})}, "Global-Batch"),
        ({"deployments": frozenset({"another"})}, "--deployment NAME"),
    ],
)
def test_a_deployment_that_refused_its_last_batch_is_told_with_what_to_look_at(
    config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with world(tmp_path, **config) as here:
        with here.manager() as manager:
            manager.wait(manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure).id)
        told = found(visit(here, model="dep"), "deployment")
        assert told.level == "warning"
        assert told.what.startswith("dep refused its last batch")
        assert words in str(told.mend)
        assert not [f for f in visit(here, model="de") if f.check == "deployment"]


def test_a_deployment_that_has_run_something_since_is_not_told_of(tmp_path: Path) -> None:
    with world(tmp_path, faults=("batch-fail@1",)) as here:
        with here.manager() as manager:
            job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure).id
            manager.wait(job)
            assert found(visit(here), "deployment").level == "warning"
            manager.retry(job)
            manager.wait(job)
        assert not [f for f in visit(here) if f.check == "deployment"]


@pytest.mark.parametrize("fault", ["list-html", "list-503-html"])
def test_a_web_page_in_the_services_place_points_to_the_proxy(fault: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=(fault,)) as here:
        told = found(visit(here), "sign_in")
    assert told.level == "problem"
    assert "NO_PROXY" in str(told.mend)


def test_a_clock_that_is_off_is_seen_in_the_services_replies(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        ahead = VirtualClock(here.clock.now() + 400)
        told = found(visit(World(here.home, ahead, here.emulator)), "clock")
    assert told.level == "warning"
    assert "s ahead of" in told.what
    assert "timedatectl" in str(told.mend)


def test_an_endpoint_where_nobody_listens_and_one_that_does_not_exist_are_told_apart(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with JobManager(tmp_path / "home") as manager:
        closed = manager.doctor("azure", azure_endpoint=f"http://127.0.0.1:{port}", api_key="k")
    assert "Nobody listens" in str(found(closed, "sign_in").mend)
    error = Unreachable("no connection to x.invalid (ConnectError: [Errno -2] Name or service not known)")
    assert "There is no host" in str(explain_refusal(error, AZURE, Credentials("key")).mend)
    error = Unreachable(
        "no connection to res (ConnectError: [SSL: WRONG_VERSION_NUMBER] wrong version number)"
    )
    assert "write http://" in str(explain_refusal(error, AZURE, Credentials("key")).mend)
    error = Unreachable("no connection to res (SSLCertVerificationError: certificate verify failed)")
    assert "SSL_CERT_FILE" in str(explain_refusal(error, AZURE, Credentials("key")).mend)


def test_a_wrong_api_version_is_named_where_the_service_does_not_know_the_path(tmp_path: Path) -> None:
    with world(tmp_path, faults=("list-404",)) as here:
        mend = str(found(visit(here, api_version="2023-05-15"), "sign_in").mend)
    assert "now 2023-05-15" in mend
    assert "2024-07-01-preview or later" in mend
