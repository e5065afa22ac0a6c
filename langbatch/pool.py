"""Python processes of our own that do what they are told."""

from __future__ import annotations

import fcntl
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from typing import IO, Any, Final, Literal, ParamSpec, TypeVar

from langbatch.pool_worker import READY

_P = ParamSpec("_P")
_T = TypeVar("_T")

_WORKER: Final = "import sys; sys.path[:] = sys.argv[1:]; from langbatch.pool_worker import serve; serve()"
#: Tasks that a process has at once: the next is there when it ends one, however busy this process is. But
#: one alone where the next is large: a pipe takes it at once only from whoever is reading.
_TASKS_AT_ONCE: Final = 2
_LARGE_TASK_BYTES: Final = 32 << 10
#: Room for answers that this process has no time to read yet, where the system gives it.
_PIPE_BYTES: Final = 1 << 20


class ProcessPool(Executor):
    """Runs functions of importable modules in Python processes of its own.

    Unlike those of `multiprocessing` they need no guard in the caller's script, which they do not run anew,
    do not share its memory or locks, do not hear its Ctrl-C, and end with it whatever ends it. A process that
    dies, or cannot be started, shows as `BrokenExecutor` in the futures of what it was to do.
    """

    def __init__(self, processes: int) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._ended = False
        self._waiting: deque[tuple[Future[Any], bytes]] = deque()
        self._workers: list[_Worker] = []
        for _ in range(processes):
            with suppress(OSError):
                self._workers.append(_Worker(self._listen))

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        task = pickle.dumps((fn, args, kwargs))
        future: Future[_T] = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError("the pool has ended")
            self._waiting.append((future, task))
        self._hand_out()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if os.getpid() != self._process:
            return  # a fork's copy: it has neither the threads nor the processes
        with self._lock:
            self._ended = True
            waiting = [future for future, _ in self._waiting]
            begun = [future for worker in self._workers for future in worker.begun]
        for future in waiting:
            if cancel_futures:
                future.cancel()
        try:
            if wait:
                wait_for([future for future in waiting if not future.cancelled()] + begun)
        finally:
            for worker in self._workers:
                worker.end()

    def _hand_out(self) -> None:
        """Give what waits to processes that have time."""
        refused: list[Future[Any]] = []
        with self._lock:
            while self._waiting:
                able = [worker for worker in self._workers if worker.state == "ready"]
                worker = min(able, key=lambda worker: len(worker.begun), default=None)
                if worker is None and any(worker.state == "starting" for worker in self._workers):
                    break
                future, task = self._waiting[0]
                most = 1 if len(task) > _LARGE_TASK_BYTES else _TASKS_AT_ONCE
                if worker is not None and len(worker.begun) >= most:
                    break
                self._waiting.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                if worker is None:
                    refused.append(future)
                else:
                    worker.begin(future, task)
        _break(refused)

    def _listen(self, worker: _Worker) -> None:
        """Take the answers of a process; in a thread of its own."""
        try:
            worker.wait_until_ready()
            with self._lock:
                worker.state = "ready"
            self._hand_out()
            while True:
                succeeded, result = worker.answer()
                with self._lock:
                    future = worker.begun.popleft()
                self._hand_out()
                if succeeded:
                    future.set_result(result)
                else:
                    future.set_exception(result)
        except Exception:  # noqa: BLE001 - it is gone, or its answer cannot be read, which leaves it out of step
            with self._lock:
                worker.state = "gone"
                broken = list(worker.begun)
                worker.begun.clear()
            worker.kill()
            _break(broken)
            self._hand_out()


def _break(futures: list[Future[Any]]) -> None:
    for future in futures:
        future.set_exception(BrokenExecutor("a process of the pool is gone, or could not be started"))


class _Worker:
    """A process, and the futures of what it was given and has not answered, in their order."""

    def __init__(self, listen: Callable[[_Worker], None]) -> None:
        self.begun: deque[Future[Any]] = deque()
        #: What it is to do can be taken back, and done elsewhere, as long as it is not ready.
        self.state: Literal["starting", "ready", "gone"] = "starting"
        self._process = subprocess.Popen(
            # Modules are found where they are found here, and nowhere else.
            [sys.executable, "-c", _WORKER, *(place or os.getcwd() for place in sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._tasks: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        with suppress(OSError, AttributeError):
            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._listener = threading.Thread(target=listen, args=(self,), name="langbatch-pool", daemon=True)
        try:
            self._listener.start()
        except RuntimeError as error:  # no more threads
            self.kill()
            self._process.communicate()
            raise OSError(str(error)) from error

    def begin(self, future: Future[Any], task: bytes) -> None:
        self.begun.append(future)
        try:
            self._tasks.write(task)
            self._tasks.flush()
        except OSError:
            pass  # whoever listens to it hears that it is gone
        except BaseException:
            self.kill()  # half a task leaves it out of step
            raise

    def wait_until_ready(self) -> None:
        seen = b""
        while not seen.endswith(READY):
            byte = self._answers.read(1)
            if not byte:
                raise EOFError
            seen = seen[-len(READY) :] + byte

    def answer(self) -> tuple[bool, Any]:
        found: tuple[bool, Any] = pickle.load(self._answers)
        return found

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        # It has nothing to finish. The end of its input alone might not reach it: a fork of this process may
        # hold that open, too.
        self.kill()
        self._listener.join()
        for stream in (self._tasks, self._answers):
            with suppress(OSError):
                stream.close()
        self._process.wait()
