"""Python processes of our own that do what they are told."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any, Final, ParamSpec, TypeVar, TypeVarTuple

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_WORKER: Final = "import sys; sys.path[:] = sys.argv[1:]; from langbatch.pool import serve; serve()"
_READY: Final = b"\0langbatch is ready\0"


class ProcessPool(Executor):
    """Runs functions of importable modules in Python processes of its own.

    Unlike those of `multiprocessing` they need no guard in the caller's script, which they do not run anew,
    do not share its memory or locks, do not hear its Ctrl-C, and end with it whatever ends it. A process that
    dies, or cannot be started, shows as `BrokenExecutor` in the future of what it was to do.
    """

    def __init__(self, processes: int) -> None:
        self._local = threading.local()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="langbatch-pool")

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        return self._threads.submit(self._run, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for worker in self._workers:
            # It has nothing to finish. The end of its input alone might not reach it: a fork of this process
            # may hold that open, too.
            worker.kill()
            for stream in (worker.stdin, worker.stdout):
                assert stream is not None
                with suppress(OSError):
                    stream.close()
            worker.wait()

    def _run(self, function: Any, arguments: Any, named: Any) -> Any:
        worker = self._worker()
        try:
            assert worker.stdin is not None
            assert worker.stdout is not None
            pickle.dump((function, arguments, named), worker.stdin)
            worker.stdin.flush()
            succeeded, result = pickle.load(worker.stdout)
        except Exception as error:
            worker.kill()  # an answer that cannot be read leaves it out of step
            raise BrokenExecutor("a process that judges lines is gone") from error
        if not succeeded:
            raise result
        return result

    def _worker(self) -> subprocess.Popen[bytes]:
        """This thread's process, started when it is first needed."""
        worker: subprocess.Popen[bytes] | None = getattr(self._local, "worker", None)
        if worker is None:
            try:
                worker = subprocess.Popen(
                    # Modules are found where they are found here, and nowhere else.
                    [sys.executable, "-c", _WORKER, *(place or os.getcwd() for place in sys.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                raise BrokenExecutor("no process can be started that judges lines") from error
            self._local.worker = worker
            self._workers.append(worker)
            _wait_until_ready(worker.stdout)
        return worker


def _wait_until_ready(answers: IO[bytes] | None) -> None:
    """Past whatever was printed while Python started: a site's own customs, for example."""
    assert answers is not None
    seen = b""
    while not seen.endswith(_READY):
        byte = answers.read(1)
        if not byte:
            raise BrokenExecutor("a process that judges lines has ended at once")
        seen = seen[-len(_READY) :] + byte


def serve() -> None:
    """A process of the pool: does what it is told on standard input, until that ends."""
    tasks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a function prints is no answer
    answers.write(_READY)
    answers.flush()
    while True:
        try:
            function, arguments, named = pickle.load(tasks)
        except EOFError:
            return
        try:
            answer = True, function(*arguments, **named)
        except Exception as error:  # noqa: BLE001 - the caller's, as from any executor
            answer = False, error
        pickle.dump(answer, answers)
        answers.flush()
