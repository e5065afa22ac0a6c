"""What goes wrong, drawn from the seed: every knob, where it is drawn, and a plan that counts what fired."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from simulation.stage import VirtualClock

#: Knobs by the moment at which they are drawn: a verb's call, a batch's making, a row's, or a local act.
KNOBS: Mapping[str, tuple[str, ...]] = {
    "upload": (
        "upload_drop",
        "upload_committed_drop",
        "upload_late",
        "upload_unreachable",
        "upload_throttled",
        "upload_access",
        "upload_quota",
        "upload_no_path",
        "upload_refused",
        "file_never_ready",
        "file_error",
        "file_wrong_bytes",
        "file_renamed",
        "file_list_lag",
    ),
    "get_file": ("get_file_trouble", "get_file_404", "get_file_throttled"),
    "list_files": ("list_files_trouble", "list_files_partial"),
    "delete_file": ("delete_drop", "delete_committed_drop", "delete_refused", "delete_throttled"),
    "create_batch": (
        "create_drop",
        "create_committed_drop",
        "create_late",
        "create_late_unchecked",
        "create_unreachable",
        "create_throttled",
        "create_access",
        "create_quota",
        "create_refused",
        "create_no_path",
        "create_no_file",
        "create_no_deployment",
    ),
    "get_batch": ("poll_trouble", "poll_throttled", "poll_access", "poll_404", "poll_stale"),
    "list_batches": (
        "list_trouble",
        "list_throttled",
        "list_partial",
        "list_repeats",
        "list_no_has_more",
    ),
    "cancel_batch": ("cancel_drop", "cancel_committed_drop", "cancel_throttled", "cancel_refused"),
    "download": (
        "download_bad",
        "download_trouble",
        "download_404",
        "download_throttled",
        "download_rows_left_out",
        "download_cut_in_a_row",
    ),
    "batch": (
        "batch_refused",
        "batch_bounced",
        "batch_expires",
        "batch_slow",
        "batch_strange",
        "batch_hidden",
        "batch_lost",
        "batch_output_late",
        "batch_output_gone",
        "batch_list_lag",
        "batch_counts_null",
        "batch_metadata_null",
    ),
    "row": (
        "row_errored",
        "row_missing",
        "row_garbled",
        "row_garbled_id",
        "row_twice",
        "row_in_both_files",
        "row_unknown",
    ),
    "commit": ("commit_fails",),
    "fsync": ("disk_full",),
    "open": ("setup_missing",),
    "point": ("crash_here", "crash_elsewhere"),
    "pause": ("freeze",),
}
ALL_KNOBS: tuple[str, ...] = tuple(knob for knobs in KNOBS.values() for knob in knobs)

#: How often an active knob fires where it is drawn. Commits and points are passed by the hundred.
_RATES = (0.1, 0.4, 0.4, 1.0)
_RARE_RATES = (0.004, 0.012, 0.03)
RARE_MOMENTS = ("commit", "point", "pause")
_DEATHS = (("crash_here", 0.35), ("crash_elsewhere", 0.35), ("freeze", 0.35), ("commit_fails", 0.1))


#: Faults that meet in one story: alone most of them are harmless, or never drawn.
THEMES: tuple[tuple[str, ...], ...] = (
    ("create_drop", "create_late", "batch_list_lag", "list_trouble", "delete_committed_drop", "freeze"),
    ("create_drop", "create_late", "delete_refused", "delete_drop", "delete_throttled", "list_partial"),
    (
        "create_committed_drop",
        "list_repeats",
        "list_partial",
        "list_no_has_more",
        "list_throttled",
        "crash_here",
    ),
    ("upload_committed_drop", "upload_late", "list_files_trouble", "list_files_partial", "file_list_lag"),
    ("batch_slow", "cancel_drop", "cancel_committed_drop", "cancel_throttled", "cancel_refused"),
    (
        "download_bad",
        "download_rows_left_out",
        "download_cut_in_a_row",
        "download_trouble",
        "batch_output_late",
    ),
    ("batch_hidden", "batch_lost", "batch_strange", "poll_404", "batch_list_lag", "create_committed_drop"),
    KNOBS["row"],
)


@dataclass(slots=True)
class _Armed:
    knob: str
    rate: float
    left: int


class FaultPlan:
    """Which knobs are on, how often each fires, and when all of it stops (virtual time)."""

    def __init__(self, clock: VirtualClock, rng: random.Random) -> None:
        self.fired: Counter[str] = Counter()
        self.stops_at = float("inf")
        self._clock = clock
        self._rng = rng
        self._armed: dict[str, list[_Armed]] = {}

    def draw_knobs(self, rng: random.Random) -> None:
        """A few knobs, each at a rate of its own, some only for their first few times."""
        knobs = [rng.choice(ALL_KNOBS) for _ in range(rng.choice((0, 1, 3, 6)))]
        for theme in rng.sample(THEMES, rng.choice((0, 1, 1, 2))):
            knobs += rng.sample(theme, min(len(theme), 3))
        for knob in knobs:
            rates = _RARE_RATES if moment_of(knob) in RARE_MOMENTS else _RATES
            self.arm(knob, rng.choice(rates), rng.choice((1, 2, 4, 12)))

    def draw_deaths(self, rng: random.Random) -> None:
        """Processes die, freeze and find the database locked, whatever else goes wrong."""
        for knob, chance in _DEATHS:
            if rng.random() < chance:
                self.arm(knob, rng.choice(_RARE_RATES), rng.choice((1, 2, 4, 8)))

    def arm(self, knob: str, rate: float = 1.0, times: int = 1) -> None:
        self._armed.setdefault(moment_of(knob), []).append(_Armed(knob, rate, times))

    def disarm(self) -> None:
        self._armed.clear()

    @property
    def over(self) -> bool:
        return self._clock.now() >= self.stops_at

    def draw(self, moment: str) -> str | None:
        """The knob that fires now, if one does."""
        armed = self._armed.get(moment)
        if not armed or self.over:
            return None
        for item in armed:
            if item.left and (item.rate >= 1.0 or self._rng.random() < item.rate):
                item.left -= 1
                self.fired[item.knob] += 1
                return item.knob
        return None


_MOMENTS = {knob: moment for moment, knobs in KNOBS.items() for knob in knobs}


def moment_of(knob: str) -> str:
    return _MOMENTS[knob]
