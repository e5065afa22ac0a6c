"""On a terminal: colours, narrow lines, a progress bar; and none of it on standard output."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from langbatch import Progress
from langbatch.emulator import RunningServer
from langbatch.progress import TerminalProgress, numbers, terminal_progress
from running import CommandLine, pointing_at

COLUMNS = 60
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Our end and the program's end of a terminal of 60 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def on_a_terminal(
    langbatch: CommandLine, *arguments: object, term: str = "xterm", **variables: str
) -> tuple[int, bytes, str]:
    """Exit code, standard output (a pipe), and what the terminal was sent."""
    with terminal() as (ours, theirs):
        with langbatch.started(*arguments, stderr=theirs, TERM=term, **variables) as process:
            os.close(theirs)
            shown = b""
            try:
                while block := os.read(ours, 65536):
                    shown += block
            except OSError:
                pass  # the other end is closed: the program has ended
            assert process.stdout is not None
            out = process.stdout.read()
        return process.returncode, out, shown.decode()


def test_waiting_shows_a_live_view_and_keeps_standard_output_clean(
    langbatch: CommandLine, requests_file: Path
) -> None:
    code, out, shown = on_a_terminal(langbatch, "submit", requests_file, "--wait")
    assert code == 0
    assert re.fullmatch(rb"job_[0-9a-z]{26}\n", out)
    assert "Ctrl-C detaches, the job goes on" in shown
    assert "\x1b[" in shown
    told = _ESCAPES.sub("", shown).replace("\r", "\n")
    assert max(len(line) for line in told.split("\n")) <= COLUMNS


def test_ctrl_c_in_the_live_view_gives_the_terminal_back_and_says_how_to_return(
    tmp_path: Path, slow_service: RunningServer, requests_file: Path
) -> None:
    langbatch = CommandLine(tmp_path, pointing_at(slow_service))
    job = langbatch.here("submit", requests_file).job_id
    with terminal() as (ours, theirs):
        with langbatch.started("watch", job, stderr=theirs, TERM="xterm") as process:
            os.close(theirs)
            shown = b""
            while b"Ctrl-C detaches" not in shown:
                shown += os.read(ours, 65536)
            process.send_signal(signal.SIGINT)
            try:
                while block := os.read(ours, 65536):
                    shown += block
            except OSError:
                pass  # the other end is closed
        assert process.returncode == 130
    told = _ESCAPES.sub("", shown.decode()).replace("\r", "\n")
    assert f"  langbatch watch {job}\n" in told  # 60 columns: on a line of its own
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")  # the cursor is shown again
    assert max(len(line) for line in told.split("\n")) <= COLUMNS


def test_a_terminal_that_cannot_draw_gets_lines(langbatch: CommandLine, requests_file: Path) -> None:
    code, _, shown = on_a_terminal(langbatch, "submit", requests_file, "--wait", term="dumb")
    assert code == 0
    assert "Ctrl-C" not in shown
    assert "completed: 3 succeeded" in shown


def test_no_color_is_respected(langbatch: CommandLine) -> None:
    _, _, plain = on_a_terminal(langbatch, "fetch", "job_unknown", NO_COLOR="1")
    _, _, coloured = on_a_terminal(langbatch, "fetch", "job_unknown")
    assert "Error: " in _ESCAPES.sub("", plain)
    assert "\x1b[1;31m" in coloured
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain)


def test_no_bar_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal_progress() as bar:
        assert bar is None


def test_a_bar_changes_with_the_step_and_leaves_nothing_behind() -> None:
    screen = io.StringIO()
    bar = TerminalProgress(Console(file=screen, force_terminal=True, width=COLUMNS))
    bar(Progress("validate", 500_000, 2_000_000, "bytes"))
    bar(Progress("wait", 3, 10, "requests", "running: \x1b[31min_progress"))
    bar.clear()
    shown = screen.getvalue()
    assert "Validating" in shown
    assert "0.5 of 2.0 MB" in shown
    assert "3 of 10" in shown
    assert "\x1b[31min" not in shown
    assert shown.endswith("\x1b[1A\x1b[2K")


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (Progress("wait", 1200, 5000, "requests"), "1,200 of 5,000"),
        (Progress("join", 7, None, "requests"), "7"),
        (Progress("upload", 1_500_000, 200_000_000, "bytes"), "1.5 of 200.0 MB"),
        (Progress("download", 1_500_000, None, "bytes"), "1.5 MB"),
        (Progress("upload", 512, 4_096, "bytes"), "0.5 of 4.1 kB"),
    ],
)
def test_progress_is_told_in_the_steps_unit(progress: Progress, expected: str) -> None:
    assert numbers(progress) == expected
