"""The documentation's pictures show what is on the terminal now, and fetch nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from making import screens

#: What differs from run to run: ids, times, ports, room on the disk.
_PASSING = re.compile(
    r"job_\w{26}|batch_[\w-]{36}|[\w-]{8}-[\w-]{27}|127\.0\.0\.1:\d+|\d{4}-\d\d-\d\dT[\d:]+Z|[\d.]+ GB"
)


def words(picture: Path) -> list[str]:
    text = re.sub(r"<style>.*?</style>", "", picture.read_text(), flags=re.S)
    return _PASSING.sub("…", re.sub(r"<[^>]+>", " ", text).replace("&#160;", " ")).split()


@pytest.mark.parametrize("draw", [screens.validate, screens.status, screens.doctor])
def test_a_picture_is_what_the_command_says_now(draw: Callable[[Path], None], tmp_path: Path) -> None:
    draw(tmp_path)
    (drawn,) = tmp_path.iterdir()
    assert words(drawn) == words(screens.FOLDER / drawn.name), "run `make pictures`"


def test_the_demonstrations_picture_ends_as_the_demonstration_does(tmp_path: Path) -> None:
    screens.demonstration(tmp_path)
    # Which stages of the batch are seen before that depends on the machine.
    now, committed = (" ".join(words(folder / "demo.svg")) for folder in (tmp_path, screens.FOLDER))
    end = "One result per request"
    assert end in now
    assert now.partition(end)[2] == committed.partition(end)[2], "run `make pictures`"


def test_the_picture_of_watch_says_what_a_live_view_says() -> None:
    assert "Ctrl-C detaches" in " ".join(words(screens.FOLDER / "watch.svg"))


@pytest.mark.parametrize("picture", sorted(screens.FOLDER.iterdir()), ids=lambda path: path.stem)
def test_a_picture_loads_nothing(picture: Path) -> None:
    assert "url(http" not in picture.read_text()
