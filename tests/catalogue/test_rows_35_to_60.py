"""Rows 35 to 60 of the catalogue of bad inputs, as far as they are not tested beside the code they concern."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from langbatch import BatchResultsError, BatchStorageError, JobManager, NeedsOperator, failpoints
from langbatch.emulator import Emulator, EmulatorConfig, RowError, routed, running_server
from langbatch.store.store import JobStore
from running import CommandLine, pointing_at, request_line
from support import VirtualClock, World, requests_file, world

IDS = [f"task-{n}" for n in range(8)]
DAY = 86_400.0


def calls(here: World, verb: str) -> int:
    found: dict[str, int] = here.emulator.report()["calls"]
    return found.get(verb, 0)


def submitted(here: World, manager: JobManager, tmp_path: Path, **options: Any) -> str:
    return manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **{**here.azure, **options}).id


def run(here: World, tmp_path: Path) -> str:
    """A job from submit to its end; every row has its one result, and one batch was paid."""
    with here.manager() as manager:
        job = submitted(here, manager, tmp_path)
        assert manager.wait(job).counts.succeeded == len(IDS)
        assert [result.custom_id for result in manager.results(job)] == IDS
    assert here.emulator.payments().max_paid == 1
    return job


# ---------------------------------------------------------------- machine


def newer(path: Path) -> None:
    JobStore.open(path.parent).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    database.close()


def corrupt(path: Path) -> None:
    JobStore.open(path.parent).close()
    content = bytearray(path.read_bytes())
    content[100:8000] = b"\xa5" * 7900
    path.write_bytes(content)


def no_database(path: Path) -> None:
    path.write_bytes(b"Dear diary, today I batched a million requests. " * 40)


@pytest.mark.parametrize(
    ("make", "words", "mend"),
    [
        (newer, "newer than this langbatch", "pip install -U"),
        (foreign, "not langbatch's", "LANGBATCH_HOME"),
        (corrupt, "damaged", "recover --from-remote"),
        (no_database, "damaged", "recover --from-remote"),
    ],
)
def test_bad_37_a_database_that_is_not_ours_to_use_is_left_byte_for_byte(
    make: Callable[[Path], None], words: str, mend: str, tmp_path: Path
) -> None:
    path = tmp_path / "langbatch.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(BatchStorageError, match=words) as caught, JobManager(tmp_path) as manager:
        manager.jobs()
    assert mend in str(caught.value.hint)
    assert path.read_bytes() == before


def test_bad_38_of_two_fetches_into_one_file_the_later_one_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    with world(tmp_path) as here:
        job = run(here, tmp_path)
        others: list[str] = []

        def other_fetch(point: str) -> None:
            # The last moment before the file takes its name: another process has just written it.
            if point == "rename.before" and not others:
                others.append(point)
                with here.manager() as other:
                    other.export(job, out, replace=False)
                out.write_bytes(out.read_bytes() + b"changed by its owner\n")

        with here.manager() as manager, failpoints.listening(other_fetch):
            with pytest.raises(BatchResultsError, match="exists"):
                manager.export(job, out, replace=False)
            assert out.read_bytes().endswith(b"changed by its owner\n")
            manager.export(job, out)
            assert out.read_bytes().count(b"\n") == len(IDS)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".langbatch")] == []


def test_bad_38_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job = run(here, tmp_path)
        with here.manager() as manager, pytest.raises(BatchResultsError, match="there is no folder"):
            manager.export(job, tmp_path / "nowhere" / "results.jsonl", replace=False)


def test_bad_38_two_processes_that_finish_one_job_fetch_its_files_once(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as one, here.manager() as two:
        job = submitted(here, one, tmp_path)
        helped: list[str] = []

        def other_process(point: str) -> None:
            if point == "call.download.before" and not helped:
                helped.append(point)
                two.use_credentials(job, one._access._credentials[job, 0])
                assert two.advance(job) is not None

        with failpoints.listening(other_process):
            assert one.wait(job).counts.succeeded == len(IDS)
        assert helped
        assert calls(here, "download") == 2  # the output, and Azure's empty error file


@dataclass
class WrongClock(VirtualClock):
    """This machine's clock, `ahead` seconds before the service's; steady time runs as it should."""

    right: VirtualClock
    ahead: float = 0.0

    def __post_init__(self) -> None:
        self.emulated = self.right.emulated

    def now(self) -> float:
        return self.right.now() + self.ahead


@pytest.mark.parametrize("ahead", [-3 * DAY, -1200.0, 1200.0, 3 * DAY])
@pytest.mark.parametrize("fault", ["create-committed-drop@1", "create-drop@1"])
def test_bad_40_a_clock_that_is_wrong_hides_no_batch(ahead: float, fault: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=(fault,)) as right:
        run(World(right.home, WrongClock(right.clock, ahead), right.emulator), tmp_path)
        assert right.counts()["batches"] == 1


@pytest.mark.parametrize("jump", [-30 * DAY, 30 * DAY])
def test_bad_40_a_clock_that_jumps_while_a_job_runs_costs_neither_time_nor_money(
    jump: float, tmp_path: Path
) -> None:
    with world(tmp_path) as right:
        clock = WrongClock(right.clock)
        here = World(right.home, clock, right.emulator)
        with here.manager() as manager:
            job = submitted(here, manager, tmp_path)
            claim = manager._store.claim(1, 0)
            assert claim is not None  # held while the clock jumps, and never let go
            clock.ahead = jump
            began = right.clock.now()
            assert manager.wait(job).counts.succeeded == len(IDS)
            assert right.clock.now() - began < 3600
        assert here.counts()["batches"] == 1


# ---------------------------------------------------------------- replies to the create


@pytest.mark.parametrize("effect", ["drop", "reset", "408", "409", "500", "503-html", "redirect"])
@pytest.mark.parametrize("committed", [True, False])
def test_bad_41_a_create_without_a_clear_answer_is_looked_for_and_not_posted_again(
    committed: bool, effect: str, tmp_path: Path
) -> None:
    fault = f"create-committed-{effect}@1" if committed else f"create-{effect}@1"
    with world(tmp_path, faults=(fault,)) as here:
        began = here.clock.now()
        run(here, tmp_path)
        assert here.counts()["batches"] == 1
        if committed:
            assert calls(here, "create") == here.counts()["uploads"] == 1
        else:
            # The second attempt, on a file of its own, once the first one was ruled out.
            assert calls(here, "create") == here.counts()["uploads"] == 2
            assert here.clock.now() - began >= 1800


@pytest.mark.parametrize("effect", ["html", "truncated-json", "null-id", "other-file"])
def test_bad_42_a_created_batch_whose_reply_is_garbled_is_looked_for(effect: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=(f"create-committed-{effect}@1",)) as here:
        run(here, tmp_path)
        assert calls(here, "create") == here.counts()["batches"] == 1


# ---------------------------------------------------------------- replies to polls


@pytest.mark.parametrize("fault", ["batch-capital-status", "batch-canceled", "batch-unknown-status*30"])
def test_bad_48_status_words_in_other_spellings_or_unknown_are_polled_on(fault: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=(fault,)) as here:
        with here.manager() as manager:
            job = submitted(here, manager, tmp_path)
            if "unknown" in fault:
                status = manager.status(job)
                assert status.state == "running"
                assert "unknown status 'paused'" in str(status.attention)
            if "canceled" in fault:
                manager.cancel(job)
                assert manager.wait(job).state == "cancelled"
                return
            assert manager.wait(job).counts.succeeded == len(IDS)


def test_bad_48_an_unknown_status_is_given_to_a_person_after_two_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGBATCH_POLL_SECONDS", "3600")
    with world(tmp_path, faults=("batch-unknown-status",)) as here, here.manager() as manager:
        began = here.clock.now()
        job = submitted(here, manager, tmp_path)
        with pytest.raises(NeedsOperator, match="unknown status 'paused' for two days"):
            manager.wait(job)
        assert 2 * DAY <= here.clock.now() - began < 2 * DAY + 3700
        here.emulator.remove_faults()
        batch_id = manager.status(job, offline=True).shards[0].batch_id
        assert batch_id is not None
        manager.adopt(job, batch_id)
        assert manager.wait(job).counts.succeeded == len(IDS)
        assert here.counts()["batches"] == 1


@pytest.mark.parametrize(
    "fault",
    ["batch-iso-times", "batch-null-counts", "batch-ids-empty", "batch-ids-null", "batch-endpoint-null"],
)
def test_bad_49_odd_values_in_a_batch_are_read(fault: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=(fault,)) as here:
        run(here, tmp_path)


@pytest.mark.parametrize("fault", ["batch-line-string", "batch-line-int", "batch-line-null"])
def test_bad_49_a_failed_batchs_reasons_are_read_whatever_its_line_numbers_are(
    fault: str, tmp_path: Path
) -> None:
    with world(tmp_path, faults=("batch-fail=model_not_found", fault)) as here, here.manager() as manager:
        status = manager.wait(submitted(here, manager, tmp_path))
        assert status.state == "failed"
        assert {result.error.code for result in manager.results(status.id) if result.error} == {
            "model_not_found"
        }


@pytest.mark.parametrize(
    ("fault", "least", "most"),
    [
        ("poll-429-long=3600*3", 3 * 3600, 3 * 3600 + 600),
        ("poll-429-long=86400@1", DAY, DAY + 600),
        ("poll-429-long=999999@1", DAY, DAY + 600),
        ("poll-429-date=7200@1", 7200, 7800),
        ("poll-429-negative*3", 0, 600),
        ("poll-429-garbage*3", 0, 600),
        ("download-429-long=3600@1", 3600, 4200),
        ("upload-429-long=3600@1", 3600, 4200),
        ("create-429-long=3600@1", 3600, 4200),
    ],
)
def test_bad_50_the_services_advice_is_honoured_up_to_a_day_and_nonsense_is_not(
    fault: str, least: float, most: float, tmp_path: Path
) -> None:
    with world(tmp_path, faults=(fault,)) as here:
        began = here.clock.now()
        run(here, tmp_path)
        assert least <= here.clock.now() - began <= most
        assert here.counts()["batches"] == here.counts()["uploads"] == 1


def test_bad_50_advice_is_honoured_also_by_those_who_ask_again_at_once(tmp_path: Path) -> None:
    with world(tmp_path, faults=("poll-429-long=3600",)) as here, here.manager() as manager:
        job = submitted(here, manager, tmp_path)
        here.clock.sleep(5)
        for _ in range(20):
            manager.status(job)
        assert calls(here, "poll") == 1


def test_bad_50_a_storm_of_429_does_not_make_polls_more_frequent(tmp_path: Path) -> None:
    with world(tmp_path, faults=("poll-429",)) as here, here.manager() as manager:
        job = submitted(here, manager, tmp_path)
        end = here.clock.now() + 3600
        while here.clock.now() < end:
            due = manager.advance(job)
            assert due is not None
            here.clock.sleep(max(due, 0.01))
        # Full jitter under a cap of 60 s: on average every 30 s, but for the few first ones.
        assert 60 < calls(here, "poll") < 3600 / 15
        here.emulator.remove_faults()
        assert manager.wait(job).counts.succeeded == len(IDS)


def test_bad_51_a_refused_token_is_fetched_anew_once_and_the_job_never_notices(tmp_path: Path) -> None:
    given: list[str] = []

    def token() -> str:
        """Every third one has expired when it is used."""
        given.append("stale" if len(given) % 3 == 2 else "good")
        return given[-1]

    with world(tmp_path, bearer_tokens=frozenset({"good"})) as here, here.manager() as manager:
        job = submitted(here, manager, tmp_path, api_key=None, azure_ad_token_provider=token)
        assert manager.wait(job).counts.succeeded == len(IDS)
        assert given.count("stale") > 1
        with sqlite3.connect(here.home / "langbatch.db") as database:
            moves = {move for (move,) in database.execute("SELECT move FROM events")}
        database.close()
        assert "batch_ended" in moves
        assert "trouble" not in moves


@pytest.mark.parametrize("fault", ["poll-401-key", "poll-401-entra", "poll-401-role", "poll-403"])
def test_bad_51_access_refused_while_polling_pauses_the_job_and_the_next_resume_goes_on(
    fault: str, tmp_path: Path
) -> None:
    with running_server(config=EmulatorConfig.instant()) as server:
        langbatch = CommandLine(tmp_path, pointing_at(server))
        (tmp_path / "in.jsonl").write_text("".join(map(request_line, IDS)))
        job = langbatch.here("submit", "in.jsonl").job_id
        server.emulator.add_faults(fault)
        paused = langbatch.here("resume", job, "--json")
        assert paused.code == 5
        assert (paused.document["state"], paused.document["status"]) != ("failed", "failed")
        assert paused.document["state"] == "paused"
        assert paused.document["attention"]
        assert langbatch.here("resume", job, "--wait").code == 5
        server.emulator.remove_faults()
        assert langbatch.here("resume", job, "--wait").code == 0
        assert langbatch.here("fetch", job, "-o", "-").out.count("\n") == len(IDS)
        assert server.emulator.report()["counts"]["batches"] == 1


# ---------------------------------------------------------------- results


@pytest.mark.parametrize(("outcome", "ended"), [("expire_half", "completed"), ("cancel_half", "cancelled")])
def test_bad_54_what_an_ended_batch_had_finished_is_fetched_and_only_the_rest_is_sent_again(
    outcome: str, ended: str, tmp_path: Path
) -> None:
    clock = VirtualClock()
    settings = EmulatorConfig.instant(
        faults=(("batch-expire=half@1",) if outcome == "expire_half" else ("batch-cancel=half@1",))
    )
    with Emulator(settings, clock=clock.emulated, folder=tmp_path / "service") as emulator, routed(emulator):
        here = World(tmp_path / "home", clock, emulator)
        with here.manager() as manager:
            job = manager.submit(
                requests_file(tmp_path / "in.jsonl", IDS),
                "openai",
                base_url="https://api.openai.com/v1",
                api_key="key",
            ).id
            first = manager.wait(job)
            assert (first.state, first.counts.succeeded) == (ended, 4)
            manager.retry(job)
            assert manager.wait(job).counts.succeeded == len(IDS)
            assert sorted(result.attempt for result in manager.results(job)) == [1] * 4 + [2] * 4
        assert here.emulator.payments().executed == len(IDS)
        assert here.emulator.payments().max_paid == 1


@pytest.mark.parametrize("fault", ["download-truncated", "download-html", "download-reset"])
def test_bad_55_a_body_that_is_not_the_whole_file_is_never_published(fault: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=(fault,)) as here, here.manager() as manager:
        job = submitted(here, manager, tmp_path)
        for _ in range(12):
            here.clock.sleep(30)
            status = manager.status(job)
        folder = here.home / "jobs" / job
        assert status.shards[0].state == "harvesting"
        assert status.counts.pending == len(IDS)
        assert not (folder / "joined" / "00000.jsonl").exists()
        assert [path for path in (folder / "pieces").iterdir() if path.stat().st_size] == []
        here.emulator.remove_faults()
        assert manager.wait(job).counts.succeeded == len(IDS)
        assert here.counts()["batches"] == 1


def test_bad_55_a_file_that_is_shorter_than_its_batchs_counts_is_fetched_again(tmp_path: Path) -> None:
    with world(tmp_path, faults=("download-short*2",)) as here, here.manager() as manager:
        job = submitted(here, manager, tmp_path)
        doubts = 0
        while not (status := manager.status(job)).finished:
            doubts += "do not agree with its counts" in str(status.attention)
            assert not (here.home / "jobs" / job / "joined" / "00000.jsonl").exists()
            here.clock.sleep(30)
        assert doubts
        assert status.counts.succeeded == len(IDS)


#: A terminal's own orders, an override of direction, and far too much of it.
NASTY = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\u2066" + "x" * 1_000_000
_ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_bad_59_what_a_service_writes_into_errors_cannot_command_a_terminal(tmp_path: Path) -> None:
    def refuse(body: dict[str, Any], custom_id: str) -> RowError:
        return RowError(500, "bad\x1b[31m" + "c" * 5000, NASTY)

    name = "in\x1b[31m\u202e.jsonl"
    nasty_id = "id\u202e\u2066-" + "y" * 300
    with running_server(config=EmulatorConfig.instant(answer=refuse)) as server:
        langbatch = CommandLine(tmp_path, pointing_at(server))
        (tmp_path / name).write_text(request_line(nasty_id) + request_line("b"))
        ran = langbatch.here("submit", name, "--wait", "--name", "n\x1b[2J")
        assert ran.code == 4
        job = ran.job_id
        told = [
            ran,
            langbatch.here("status", job),
            langbatch.here("status"),
            langbatch.here("watch", job),
            langbatch.here("fetch", job, "-o", "out.csv", "--format", "csv"),
        ]
        for seen in told:
            assert not _ORDERS.search(seen.err), seen.err
            assert max(map(len, seen.err.splitlines()), default=0) < 2000
        raw = [json.loads(line) for line in langbatch.here("fetch", job, "-o", "-").out.splitlines()]
        assert raw[0]["custom_id"] == nasty_id
        assert raw[0]["response"]["body"]["error"]["message"] == NASTY
        with sqlite3.connect(langbatch.home / "langbatch.db") as database:
            stored = database.execute("SELECT code FROM unsuccessful").fetchall()
            events = database.execute("SELECT note FROM events WHERE note IS NOT NULL").fetchall()
        database.close()
        assert len(stored) == 2
        assert not any(_ORDERS.search(text) or len(text) > 500 for (text,) in (*stored, *events))


def test_bad_59_what_a_service_says_of_a_whole_batch_is_cleaned_and_cut_before_it_is_kept(
    tmp_path: Path,
) -> None:
    with running_server(
        config=EmulatorConfig.instant(faults=("batch-fail=model\x1b[31m_\u202enot_found" + "z" * 3000,))
    ) as server:
        langbatch = CommandLine(tmp_path, pointing_at(server))
        (tmp_path / "in.jsonl").write_text(request_line("a"))
        ran = langbatch.here("submit", "in.jsonl", "--wait", "--json")
        assert ran.code == 4
        assert not _ORDERS.search(ran.err)
        assert not _ORDERS.search(str(ran.document))
        with sqlite3.connect(langbatch.home / "langbatch.db") as database:
            (code, message) = database.execute("SELECT fault_code, fault_message FROM attempts").fetchone()
        database.close()
        assert code.startswith("model")
        assert not _ORDERS.search(code + message)
        assert len(code) <= 500


def test_bad_59_a_file_name_that_commands_a_terminal_makes_no_path_of_ours(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        with here.manager() as manager:
            source = requests_file(tmp_path / "x\x1b[2J\u202e.jsonl", IDS)
            job = manager.submit(source, **here.azure).id
            manager.wait(job)
        assert not any(_ORDERS.search(os.fsdecode(path)) for path in here.home.rglob("*"))
