from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emulator.calls import Caller, Start, request_line, request_lines
from langbatch.emulator.clock import ManualClock, RealClock, ScaledClock
from langbatch.emulator.config import DEMO, EmulatorConfig
from langbatch.emulator.service import Emulator

# ---------------------------------------------------------------- payments


def test_payments_count_each_request_of_each_batch(start: Start) -> None:
    caller = start("azure")
    caller.run(request_lines(3) + request_line("bad emulator-fail-500"))
    bill = caller.emulator.payments()
    assert (bill.executed, bill.paid, bill.requests, bill.max_paid, bill.paid_twice) == (4, 3, 4, 1, 0)


def test_second_batch_for_one_input_is_paid_twice_even_when_nobody_looks_at_it(start: Start) -> None:
    caller = start("azure")
    file_id = caller.ready_file(request_lines(3), name="job-0-1.jsonl")
    caller.finish(caller.create(file_id).json()["id"])
    caller.create(file_id)
    bill = caller.emulator.payments()
    assert (bill.paid, bill.max_paid, bill.paid_twice) == (6, 2, 3)
    assert {(example.family, example.paid) for example in bill.examples} == {("job-0", 2)}


def test_retry_of_what_did_not_succeed_is_not_paid_twice(start: Start) -> None:
    caller = start("azure", faults=("batch-expire=4@1",))
    batch_id = caller.begin(request_lines(10), name="lb-s-job_1-00000-1-deadbeef.jsonl")
    batch = caller.finish(batch_id)
    left = {row["custom_id"] for row in caller.rows(batch["error_file_id"])}
    again = b"".join(request_line(custom_id) for custom_id in sorted(left))
    caller.finish(caller.begin(again, name="lb-s-job_1-00000-2-0badf00d.jsonl"))
    bill = caller.emulator.payments()
    assert (bill.paid, bill.requests, bill.max_paid) == (10, 10, 1)


def test_same_ids_in_files_of_other_families_are_other_requests(start: Start) -> None:
    caller = start("azure")
    for name in ("job-0-1.jsonl", "job-1-1.jsonl"):
        caller.finish(caller.begin(request_lines(2), name=name))
    assert caller.emulator.payments().max_paid == 1


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("lb-ab12-job_XYZ-00003-1-12345678.jsonl", "lb-ab12-job_XYZ-00003"),
        ("lb-ab12-job_XYZ-00003-2-deadbeef.jsonl", "lb-ab12-job_XYZ-00003"),
        ("report.jsonl", "report"),
        ("report-attempt2.jsonl", "report"),
    ],
)
def test_family_of_a_file_name_leaves_out_the_attempt(name: str, family: str) -> None:
    assert EmulatorConfig().family_of(name) == family


def test_cancelled_batch_is_paid_for_the_rows_that_were_run(start: Start) -> None:
    caller = start("azure")
    batch_id = caller.begin(request_lines(10))
    for _ in range(2):
        caller.poll(batch_id)
    caller.call("POST", f"/batches/{batch_id}/cancel")
    assert caller.emulator.payments().paid == 5
    batch = caller.finish(batch_id)
    assert batch["request_counts"]["completed"] == 5
    assert caller.emulator.payments().paid == 5


def test_payments_are_served_as_a_sum_and_one_by_one(start: Start) -> None:
    caller = start("azure")
    caller.run(request_lines(2_500))
    bill = caller.raw("GET", "/_emulator/payments").json()
    assert (bill["paid"], bill["paid_twice"]) == (2_500, 0)
    lines = caller.raw("GET", "/_emulator/payments", query={"each": "1"}).read().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len({row["custom_id"] for row in rows}) == len(rows) == 2_500
    assert rows[0] == {"family": "job-0", "custom_id": "t-0", "executed": 1, "paid": 1}


# ---------------------------------------------------------------- admin


def test_report_counts_what_was_done(start: Start) -> None:
    caller = start("azure")
    batch = caller.run(request_lines(2), metadata={"tag": "x"})
    caller.call("DELETE", f"/files/{batch['input_file_id']}")
    report = caller.raw("GET", "/_emulator/").json()
    assert report["counts"] == {"uploads": 1, "batches": 1, "cancels": 0, "deletes": 1}
    assert report["calls"]["create"] == report["calls"]["upload"] == 1
    shown = report["batches"][0]
    expected = {
        "id": batch["id"],
        "input_file_id": batch["input_file_id"],
        "filename": "job-0-1.jsonl",
        "status": "completed",
        "metadata": {"tag": "x"},
        "requests": 2,
        "completed": 2,
    }
    assert {key: shown[key] for key in expected} == expected
    assert shown["tokens_paid"] > 0


def test_report_does_not_move_an_instant_batch(start: Start) -> None:
    caller = start("azure")
    batch_id = caller.begin(request_lines(2))
    for _ in range(5):
        assert caller.emulator.report()["batches"][0]["status"] == "validating"
    assert caller.poll(batch_id)["status"] == "in_progress"


def test_prompts_appear_nowhere_in_the_admin_view(start: Start) -> None:
    caller = start("azure")
    caller.run(request_line("t", messages=[{"role": "user", "content": "my-secret-prompt"}]))
    assert b"my-secret-prompt" not in caller.raw("GET", "/_emulator/").read()


def test_manual_clock_is_moved_through_the_admin_view(start: Start) -> None:
    caller = start("azure", clock=ManualClock(1000.0), timing=DEMO)
    file_id = caller.upload(request_lines(1)).json()["id"]
    reply = caller.raw("POST", "/_emulator/clock", body=(b'{"advance": 5}',))
    assert reply.json() == {"now": 1005.0}
    assert caller.call("GET", f"/files/{file_id}").json()["status"] == "processed"
    assert caller.raw("POST", "/_emulator/clock", body=(b'{"advance": -5}',)).status == 400


def test_real_clock_cannot_be_moved(start: Start) -> None:
    caller = start("azure", clock=RealClock())
    assert caller.raw("POST", "/_emulator/clock", body=(b'{"advance": 5}',)).status == 409


def test_date_header_tells_the_emulator_s_time(start: Start) -> None:
    reply = start("azure", clock=ManualClock(1_800_000_000)).call("GET", "/batches")
    assert reply.header("date") == "Fri, 15 Jan 2027 08:00:00 GMT"


@pytest.mark.parametrize("path", ["/_emulator/nothing", "/_blobs/none", "/v1/models", "/", "/openai/v1"])
def test_unknown_path_is_404(start: Start, path: str) -> None:
    assert start("azure").raw("GET", path, headers={"authorization": "Bearer k"}).status == 404


# ---------------------------------------------------------------- persistence


def test_everything_is_found_again_in_its_folder(tmp_path: Path) -> None:
    with Emulator(EmulatorConfig.instant(faults=("list-500@1",)), folder=tmp_path) as first:
        caller = Caller(first, "azure", "2025-04-01-preview")
        assert caller.call("GET", "/batches").status == 500
        done = caller.run(request_lines(3))
        running = caller.begin(request_lines(4))
        caller.poll(running)
        before = first.report()
    with Emulator(EmulatorConfig.instant(faults=("list-500@1",)), folder=tmp_path) as second:
        caller = Caller(second, "azure", "2025-04-01-preview")
        assert {**second.report(), "now": None} == {**before, "now": None}
        assert caller.call("GET", "/batches").status == 200
        assert len(caller.rows(done["output_file_id"])) == 3
        assert caller.finish(running)["request_counts"]["completed"] == 4
        assert second.payments().paid == 7


def test_emulated_time_never_runs_backwards_over_a_restart(tmp_path: Path) -> None:
    with Emulator(folder=tmp_path, clock=ScaledClock(1000)) as first:
        first.advance(3600)
        seen = first.clock.now()
    for speed in (1000.0, 2.0, 1.0):
        with Emulator(EmulatorConfig(speed=speed), folder=tmp_path) as again:
            assert again.clock.now() >= seen
            seen = again.clock.now()
    with Emulator(folder=tmp_path, clock=ManualClock(0)) as manual:
        assert manual.clock.now() >= seen - 1


def test_temporary_folder_goes_with_the_emulator() -> None:
    emulator = Emulator()
    root = emulator.folder
    assert root.is_dir()
    emulator.close()
    assert not root.exists()


def test_contents_are_private_to_the_user(tmp_path: Path) -> None:
    with Emulator(EmulatorConfig.instant(), folder=tmp_path / "emu") as emulator:
        caller = Caller(emulator, "azure-v1", "")
        caller.run(request_lines(1))
        caller.poll(caller.begin(request_lines(1)))
        emulator.put_blob("https://h/blob", b"content")
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "emu").rglob("*")}
    assert (tmp_path / "emu").stat().st_mode & 0o077 == 0
    assert modes == {0}


# ---------------------------------------------------------------- the rest


def test_many_threads_lose_nothing(start: Start) -> None:
    caller = start("openai")
    done: list[str] = []

    def work(number: int) -> None:
        for turn in range(5):
            batch = caller.run(request_lines(5), metadata={"from": f"{number}-{turn}"})
            done.append(batch["status"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["completed"] * 30
    assert caller.emulator.report()["counts"]["batches"] == 30
    assert caller.emulator.payments().paid == 150


def test_importing_the_package_or_the_fixture_imports_nothing_heavy() -> None:
    code = (
        "import sys, langbatch.emulator, langbatch.emulator.fixture; "
        "print([m for m in ('starlette', 'uvicorn', 'openai', 'respx', 'httpx', 'msgspec', 'sqlite3', "
        "'python_multipart', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_sorted_and_all_there() -> None:
    import langbatch.emulator as package

    assert sorted(package.__all__, key=lambda name: (not name.isupper(), name)) == package.__all__
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = package.nothing


def test_every_item_of_the_reference_has_a_test() -> None:
    """Section 9 of the wire reference lists 25 points; a test of each says `Item n.` in its docstring."""
    folder = Path(__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("test_emulator_*.py")]
    found = {int(number) for text in texts for number in re.findall(r'"""Item (\d+)\.', text)}
    assert found == set(range(1, 26))
