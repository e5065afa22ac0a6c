"""How fast a job gets on, and how that is said: no more precise than it is known."""

from __future__ import annotations

import pytest

from langbatch_cli.pace import LOOKS, Pace, about, rate_text


def seen(*looks: tuple[float, int]) -> Pace:
    pace = Pace()
    for at, done in looks:
        pace = pace.after(at, done)
    return pace


def test_one_look_tells_no_rate() -> None:
    assert seen((0, 5)).per_second is None
    assert seen((0, 5)).seconds_left(10) is None


def test_the_rate_is_that_over_the_last_looks() -> None:
    assert seen((0, 100), (10, 120), (20, 140)).per_second == 2.0
    long_ago = [(0.0, 0), *((1000.0 + n, 500 + n) for n in range(LOOKS))]
    assert seen(*long_ago).per_second == 1.0


def test_what_was_done_before_the_first_look_is_no_pace() -> None:
    assert seen((0, 900), (10, 900)).per_second is None


def test_an_estimate_needs_two_steps() -> None:
    assert seen((0, 0), (10, 50)).seconds_left(100) is None
    assert seen((0, 0), (10, 25), (20, 50)).seconds_left(100) == 20.0


def test_a_count_that_goes_back_begins_anew() -> None:
    assert seen((0, 0), (10, 50), (20, 10)).looks == ((20, 10),)


def test_a_clock_that_stands_still_tells_no_rate() -> None:
    assert seen((5, 0), (5, 50)).per_second is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3, "under a minute"),
        (50, "about 1 min"),
        (8 * 60 + 20, "about 8 min"),
        (23 * 60, "about 25 min"),
        (97 * 60, "about 95 min"),
        (3.2 * 3600, "about 3 h"),
        (47 * 3600, "about 47 h"),
        (70 * 3600, "about 3 days"),
    ],
)
def test_a_time_to_come_is_rounded_as_it_is_far(seconds: float, words: str) -> None:
    assert about(seconds) == words


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (1234.5, "1,234/s"),
        (42.4, "42/s"),
        (3.14, "3.1/s"),
        (0.5, "30/min"),
        (0.001, "3.6/h"),
        (0.0001, "0.36/h"),
    ],
)
def test_a_rate_is_told_in_the_unit_that_reads_best(rate: float, words: str) -> None:
    assert rate_text(rate) == words
