"""The script that draws the documentation's pictures runs, and its pictures fetch nothing."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def words(picture: Path) -> str:
    return re.sub(r"<[^>]+>", " ", picture.read_text()).replace("&#160;", " ")


def test_the_demonstration_is_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("screens", DOCS / "screens.py")
    assert spec is not None
    assert spec.loader is not None
    screens = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "screens", screens)
    spec.loader.exec_module(screens)
    screens.demonstration(tmp_path)
    drawn = tmp_path / "demo.svg"
    assert "Paris." in words(drawn)
    assert "$ langbatch demo" in words(drawn)


@pytest.mark.parametrize(("name", "said"), [("demo", "Paris."), ("watch", "Ctrl-C detaches")])
def test_the_pictures_say_what_they_should_and_load_nothing(name: str, said: str) -> None:
    picture = DOCS / "screens" / f"{name}.svg"
    assert said in words(picture)
    assert "url(http" not in picture.read_text()
