"""Fixtures of the command line's tests: one emulator for a module, whose batches take a moment."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from langbatch.emulator import EmulatorConfig, RunningServer, Timing, running_server
from running import CommandLine, answer, pointing_at, request_line


@pytest.fixture(scope="module")
def service() -> Iterator[RunningServer]:
    """By the time another process has started, its batches have ended."""
    with running_server(config=EmulatorConfig.demo(speed=50.0, answer=answer)) as server:
        yield server


@pytest.fixture(scope="module")
def slow_service() -> Iterator[RunningServer]:
    """Takes files in at once; its batches run for as long as anybody looks."""
    timing = Timing("seconds", file_pending=0, validating=0, running=3600, finalizing=0, cancelling=0)
    with running_server(config=EmulatorConfig(timing=timing, answer=answer)) as server:
        yield server


@pytest.fixture
def langbatch(tmp_path: Path, service: RunningServer) -> CommandLine:
    return CommandLine(tmp_path, pointing_at(service))


@pytest.fixture
def requests_file(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(request_line(name) for name in ("one", "two", "three")))
    return path


@pytest.fixture
def mixed_file(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(request_line(name) for name in ("one", "bad-two", "three")))
    return path


@pytest.fixture
def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def service_port(service: RunningServer) -> int:
    """A port that is taken."""
    return int(service.url.rpartition(":")[2])
