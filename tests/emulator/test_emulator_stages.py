from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from langbatch.emulator.config import Timing
from langbatch.emulator.stages import ENDED, Course, stage_of

_spans = st.floats(min_value=0, max_value=1000, allow_nan=False)
_ends: st.SearchStrategy[Literal["expired", "cancelled"]] = st.sampled_from(["expired", "cancelled"])
_ranks = {"validating": 0, "in_progress": 1, "finalizing": 2, "cancelling": 3}


@st.composite
def _courses(draw: st.DrawFn) -> Course:
    timing = Timing(
        "seconds",
        file_pending=0,
        validating=draw(_spans),
        running=draw(_spans),
        finalizing=draw(_spans),
        cancelling=draw(_spans),
        running_per_request=draw(st.sampled_from([0.0, 0.5])),
    )
    return Course(
        timing,
        total=draw(st.integers(0, 200)),
        window=draw(st.none() | st.floats(min_value=1, max_value=3000)),
        cancelled_at=draw(st.none() | _spans),
        stop=draw(st.none() | st.tuples(_ends, st.integers(0, 250))),
    )


@given(_courses(), st.lists(st.floats(min_value=0, max_value=5000), min_size=2, max_size=12))
def test_batch_never_goes_back_whatever_its_course(course: Course, moments: list[float]) -> None:
    stages = [stage_of(course, moment) for moment in sorted(moments)]
    ranks = [4 if stage.status in ENDED else _ranks[stage.status] for stage in stages]
    assert ranks == sorted(ranks)
    rows = [stage.rows for stage in stages]
    assert rows == sorted(rows)
    assert all(0 <= count <= course.total for count in rows)


@given(_courses())
def test_batch_ends_in_one_way_for_ever(course: Course) -> None:
    ends = {stage_of(course, 10_000.0 + moment) for moment in range(3)}
    assert len(ends) == 1
    assert ends.pop().status in ENDED


@given(_courses())
def test_ending_is_dated_when_it_happens(course: Course) -> None:
    end = stage_of(course, 10_000.0)
    assert stage_of(course, end.since) == end
    if end.since > 0.01:
        assert stage_of(course, end.since - 0.005).status not in ENDED
