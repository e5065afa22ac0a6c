"""Processes that judge large inputs: like any executor, and gone with whoever started them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from input_files import AZURE, chat, write
from langbatch import JobManager
from langbatch.parallel import in_order, processes_for, sharing_executor
from langbatch.pool import ProcessPool
from langbatch.requests.validation import read_requests

PATIENCE_SECONDS = 60


def test_functions_run_in_other_processes_and_what_they_print_harms_nothing() -> None:
    with ProcessPool(2) as pool:
        assert pool.submit(os.getpid).result() != os.getpid()
        assert pool.submit(print, "hello").result() is None
        assert list(pool.map(pow, range(9), range(9))) == [number**number for number in range(9)]


def test_what_a_function_raises_comes_back() -> None:
    with ProcessPool(1) as pool:
        with pytest.raises(ValueError, match="invalid literal"):
            pool.submit(int, "no").result()
        assert pool.submit(int, "7").result() == 7


def test_a_process_that_dies_breaks_its_future_and_later_ones() -> None:
    with ProcessPool(1) as pool:
        for _ in range(2):
            with pytest.raises(BrokenExecutor):
                pool.submit(os._exit, 3).result()


def test_lines_of_a_process_that_died_are_judged_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, [chat(f"r{number}", "text " * 50) for number in range(2000)])
    alone = read_requests(path, AZURE)
    with ProcessPool(2) as pool:
        assert read_requests(path, AZURE, executor=pool, range_bytes=20_000) == alone
        with pytest.raises(BrokenExecutor):
            pool.submit(os._exit, 3).result()
        assert read_requests(path, AZURE, executor=pool, range_bytes=20_000) == alone


def test_without_a_python_to_start_everything_is_judged_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, [chat(f"r{number}", "text " * 50) for number in range(500)])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    with ProcessPool(2) as pool:
        assert read_requests(path, AZURE, executor=pool, range_bytes=20_000) == read_requests(path, AZURE)


def test_an_executor_that_takes_nothing_any_more_leaves_the_work_here(tmp_path: Path) -> None:
    path = write(tmp_path, [chat(f"r{number}", "text " * 50) for number in range(500)])
    with ThreadPoolExecutor(1) as ended:
        pass
    assert read_requests(path, AZURE, executor=ended, range_bytes=20_000) == read_requests(path, AZURE)


def test_a_file_named_by_a_descriptor_is_opened_by_its_own_name(tmp_path: Path) -> None:
    path = write(tmp_path, [chat(f"r{number}", "text " * 50) for number in range(500)])
    with path.open("rb") as file, ProcessPool(1) as pool:
        named = Path(f"/dev/fd/{file.fileno()}")
        assert read_requests(named, AZURE, executor=pool, range_bytes=20_000) == read_requests(path, AZURE)
        path.unlink()
        assert read_requests(named, AZURE, executor=pool, range_bytes=20_000).total == 500


def test_processes_import_what_this_one_does_and_nothing_from_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit('run by mistake')")
    script = (
        "import sys; sys.path.remove('')\nfrom langbatch.pool import ProcessPool\n"
        "with ProcessPool(1) as pool: print(pool.submit(abs, -3).result())"
    )
    python = [sys.executable, "-c", script]
    ran = subprocess.run(python, cwd=tmp_path, capture_output=True, timeout=PATIENCE_SECONDS, check=False)
    assert (ran.stdout.decode(), ran.returncode) == ("3\n", 0), ran.stderr.decode()


def test_the_callers_script_is_not_run_anew(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "print('begun')\nfrom langbatch.pool import ProcessPool\n"
        "with ProcessPool(2) as pool:\n    print(list(pool.map(abs, [-1, -2])))\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, timeout=PATIENCE_SECONDS, check=True)
    assert ran.stdout.decode().splitlines() == ["begun", "[1, 2]"]


def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\nfrom langbatch.pool import ProcessPool\npool = ProcessPool(1)\n"
        "print(pool.submit(os.getpid).result(), flush=True)\nsys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, script], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        ends = os.pidfd_open(int(process.stdout.readline()))
        process.kill()
    try:
        assert select.select([ends], [], [], PATIENCE_SECONDS)[0]
    finally:
        os.close(ends)


def test_large_tasks_with_large_answers_never_wait_for_one_another() -> None:
    with ProcessPool(1) as pool:
        futures = [pool.submit(bytes.ljust, bytes(200_000), 3 << 20) for _ in range(6)]
        assert [len(future.result(PATIENCE_SECONDS)) for future in futures] == [3 << 20] * 6


def test_a_pool_whose_work_was_done_here_ends_without_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They start, and never get ready."""
    never = tmp_path / "never"
    never.write_text("#!/bin/sh\nexec sleep 600\n")
    never.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(never))
    with ProcessPool(2) as pool:
        assert list(in_order(pool, pow, [(2, number) for number in range(40)])) == [
            2**number for number in range(40)
        ]


def test_without_a_thread_to_listen_to_them_no_processes_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with ProcessPool(1) as pool:
        assert list(in_order(pool, pow, [(2, 3)])) == [8]


def test_what_others_have_cancelled_is_done_here() -> None:
    class Cancelling(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **named: Any) -> Future[Any]:
            future = super().submit(*arguments, **named)
            future.cancel()
            return future

    with Cancelling(1) as executor:
        assert list(in_order(executor, pow, [(2, number) for number in range(40)])) == [
            2**number for number in range(40)
        ]


@pytest.mark.parametrize(
    ("size_bytes", "cores", "processes"), [(99, 64, 0), (100, 1, 0), (100, 2, 1), (100, 64, 8)]
)
def test_what_is_large_is_worth_processes_where_there_are_cores(
    size_bytes: int, cores: int, processes: int
) -> None:
    assert processes_for(size_bytes, 100, cores) == processes


def test_what_is_large_gets_a_pool_unless_an_executor_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3))
    with sharing_executor(None, 100, 100) as pool:
        assert isinstance(pool, ProcessPool)
        with sharing_executor(pool, 100, 100) as same:
            assert same is pool
    with sharing_executor(None, 99, 100) as none:
        assert none is None


def test_a_manager_judges_what_is_large_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3))
    monkeypatch.setattr("langbatch.requests.validation.WORTH_REQUEST_BYTES", 1)
    path = write(tmp_path, [chat(f"r{number}", "text " * 200) for number in range(6000)])
    manager = JobManager(home=tmp_path / "home")
    assert manager.validate(path) == read_requests(path, AZURE)
