"""The real command line as processes of their own, each test's in a home of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import langbatch
import langbatch_cli
from langbatch.emulator import RowError, RunningServer
from langbatch_cli import exits
from langbatch_cli.app import app, main

COMMANDS = frozenset(info.callback.__name__ for info in app.registered_commands if info.callback)
#: Long enough for a loaded machine; a run that takes longer hangs.
RUN_SECONDS = 300.0
_FOREIGN = ("AZURE_", "OPENAI_", "LANGBATCH_", "PYTHON")
_CODE = tuple(str(Path(str(module.__file__)).parents[1]) for module in (langbatch, langbatch_cli))


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def of(self, arguments: Sequence[object]) -> Self:
        """This run, of a command that says it may end so."""
        command = next((str(word) for word in arguments if str(word) in COMMANDS), "")
        assert self.code in exits.of_command(command), f"{command} ended with {self.code}: {self.err}"
        return self

    @property
    def document(self) -> dict[str, Any]:
        """Standard output as the one JSON document that it must be."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def job_id(self) -> str:
        """Standard output as the one line with the id that it must be."""
        line, rest = self.out.split("\n", 1)
        assert rest == ""
        assert line.startswith("job_")
        assert len(line) == 30
        return line


@dataclass(frozen=True)
class CommandLine:
    """Runs `langbatch` in `folder`, with its home there and `variables` set."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def __call__(self, *arguments: object, stdin: str = "", **variables: str) -> Ran:
        ran = subprocess.run(
            self._words(arguments),
            cwd=self.folder,
            env=self.environment(variables),
            input=stdin.encode(),
            capture_output=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        return Ran(ran.returncode, ran.stdout.decode(), ran.stderr.decode()).of(arguments)

    def here(self, *arguments: object, **variables: str) -> Ran:
        """The same without a process: what takes a second there takes a moment here. For the steps that lead
        to what a test is about."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        saved, folder = dict(os.environ), Path.cwd()
        os.environ.clear()
        os.environ.update(self.environment(variables))
        os.chdir(self.folder)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = main([str(argument) for argument in arguments])
        finally:
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(saved)
        told = [stream.buffer.getvalue().decode() for stream in (out, err)]
        return Ran(code, *told).of(arguments)

    @contextmanager
    def started(
        self, *arguments: object, stderr: int = subprocess.PIPE, **variables: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """The command while it runs; it does not outlive the block."""
        process = subprocess.Popen(
            # Ctrl-C in the middle of an import leaves that one's file to the garbage collector.
            self._words(arguments, "-W", "ignore::ResourceWarning"),
            cwd=self.folder,
            env=self.environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            # Tests run in the background of a shell ignore Ctrl-C, and would hand that down.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            with process:
                yield process
        finally:
            process.kill()

    @staticmethod
    def _words(arguments: tuple[object, ...], *options: str) -> list[str]:
        return [sys.executable, "-W", "error", *options, "-m", "langbatch_cli", *map(str, arguments)]

    def environment(self, variables: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_FOREIGN)
            and not name.upper().endswith("_PROXY")
            # A test runner's own idea of the window's size would beat the terminal's.
            and name not in ("COLUMNS", "LINES")
        }
        own = {
            "LANGBATCH_HOME": str(self.home),
            "LANGBATCH_POLL_SECONDS": "0.05",
            "PYTHONPATH": os.pathsep.join(_CODE),
        }
        return {**kept, **own, **self.variables, **variables}


def pointing_at(server: RunningServer, api_version: str = "2024-10-21") -> dict[str, str]:
    """The variables that lead to an emulator, for Azure and for OpenAI."""
    return {
        "AZURE_API_BASE": server.azure_endpoint,
        "AZURE_API_KEY": "test-key-0123456789",
        "AZURE_API_VERSION": api_version,
        "OPENAI_BASE_URL": server.openai_base_url,
        "OPENAI_API_KEY": "test-key-0123456789",
    }


def request_line(custom_id: str, question: str = "What is it?") -> str:
    body = {"model": "gpt-test", "messages": [{"role": "user", "content": question}]}
    request = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(request) + "\n"


def answer(_: dict[str, Any], custom_id: str) -> str | RowError:
    """Requests called `bad…` fail."""
    if custom_id.startswith("bad"):
        return RowError(500, "InternalServerError", "The server had an error.")
    return f"the answer to {custom_id}"
