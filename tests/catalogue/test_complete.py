"""The catalogue of bad inputs has 60 rows, and each has a test with its number."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
#: A name may carry several rows: `test_bad_45_46_…`.
_NAMED = re.compile(r"^ *def test_bad((?:_\d\d)+)_[a-z]", re.M)
#: These rows guard money: each is also run with SIGKILL before and after.
_KILLED = {41, 42, 47, 52}


def rows_in(folder: Path) -> set[int]:
    return {
        int(row)
        for path in folder.rglob("test_*.py")
        for numbers in _NAMED.findall(path.read_text())
        for row in numbers.split("_")[1:]
    }


def test_all_60_rows_have_a_test_named_by_their_number() -> None:
    assert sorted(rows_in(TESTS)) == list(range(1, 61))


def test_the_rows_that_guard_money_are_also_run_with_kills() -> None:
    assert rows_in(TESTS / "crash") >= _KILLED
