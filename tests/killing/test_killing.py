"""The short form of the campaign: `python -m killing` is the long one, docs/campaign-killing.md its report."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from killing.audit import audit
from killing.bad_clients import PER_SHARD, frozen_before_create, naive_client
from killing.campaign import Extent, Findings, campaign
from killing.enumerated import (
    BY_NAME,
    CANCELLED,
    IDS,
    INPUT,
    SUBMIT,
    Tally,
    failpoints_of_the_product,
    kill_and_finish,
)
from killing.ground import Ground, ground
from killing.kept import load, save
from killing.lives import ANY, Order
from killing.orders import Orders
from killing.pairs import CANCEL, all_pairs, unordered
from killing.processes import CODE, Hung, Nursery, Progress, surroundings
from killing.report import report
from killing.storm import Plan, storm
from played_code import OtherCode

#: Which hit of each failpoint is drawn; another seed draws others.
SEED = 20261121

#: Every failpoint of the product, and the scenarios in which it is killed here.
PLACES = {
    "submit": (
        "call.create_batch.before", "call.create_batch.after", "call.download.before", "call.download.after",
        "call.get_batch.before", "call.get_batch.after", "call.get_file.before", "call.get_file.after",
        "call.upload.before", "call.upload.after", "commit.before", "commit.after", "fsync.before",
        "fsync.after", "rename.before", "rename.after",
    ),
    "lost replies": ("call.list_files.before", "call.list_files.after", "call.list_batches.after"),
    "lost requests": ("call.delete_file.before", "call.delete_file.after", "call.list_batches.before"),
    "cancel": ("call.cancel_batch.before", "call.cancel_batch.after"),
    "retry": ("call.create_batch.after",),
    "recover": ("commit.after", "rename.after"),
    "fetch": ("rename.before",),
}  # fmt: skip
#: How often a run reaches those that are not calls, at least; every call is made twice or more, `fetch`
#: writes one file.
REACHED = {"commit": 30, "fsync": 18, "rename": 8}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("processes")) as opened:
        yield opened


def test_every_failpoint_of_the_product_has_its_place_here() -> None:
    assert failpoints_of_the_product() == {name for names in PLACES.values() for name in names}


@pytest.mark.parametrize(
    ("scenario", "name"), [(scenario, name) for scenario, names in PLACES.items() for name in names]
)
def test_a_process_killed_at_a_failpoint_leaves_a_job_that_ends_with_every_row_paid_once(
    scenario: str, name: str, nursery: Nursery, tmp_path: Path
) -> None:
    often = 1 if scenario in ("fetch", "recover") else REACHED.get(name.split(".")[0], 2)
    hit = random.Random(f"{SEED} {scenario} {name}").randint(1, often)
    tally = Tally()
    kill_and_finish(tmp_path, nursery, BY_NAME[scenario], [Order("kill", name, hit)], tally)
    assert tally.kills == {name: 1}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("call.create_batch.before", "call.delete_file.after"),
        ("call.upload.after", "call.create_batch.after"),
        ("commit.after", "call.list_batches.before"),
    ],
)
def test_a_successor_killed_too_changes_nothing(
    first: str, second: str, nursery: Nursery, tmp_path: Path
) -> None:
    tally = Tally()
    orders = [Order("kill", first, 1 if first.startswith("call") else 12), Order("kill", second, 1)]
    kill_and_finish(tmp_path, nursery, BY_NAME["lost requests"], orders, tally)
    assert tally.kills == {first: 1, second: 1}


@pytest.mark.parametrize("cancel", CANCEL)
def test_a_job_cancelled_on_its_way_survives_deaths_before_in_and_after_the_cancel(
    cancel: str, nursery: Nursery, tmp_path: Path
) -> None:
    pairs = all_pairs(CANCELLED, Counter({"call.list_files.before": 1}), SEED)
    pair = next(pair for pair in pairs if pair.names == (cancel, "call.list_files.before"))
    tally = Tally()
    kill_and_finish(tmp_path, nursery, pair.scenario, pair.ways[0], tally)
    assert tally.courses == [("call.upload.before", cancel, "call.list_files.before")]


def test_all_pairs_are_the_ordered_ones_of_a_course_and_a_cancel_with_everything() -> None:
    reached = failpoints_of_the_product() - set(CANCEL)
    pairs = all_pairs(BY_NAME["lost requests"], Counter(dict.fromkeys(reached, 9)), SEED)
    assert len(pairs) == len({pair.names for pair in pairs}) == len(reached) ** 2 + 2 * (len(reached) + 2)
    assert {frozenset(pair.names) for pair in pairs} == unordered(failpoints_of_the_product())
    for pair in pairs:
        assert {order.name for order in pair.ways[-1]} >= set(pair.names)


def test_a_storm_over_three_processes_ends_with_four_zeros(nursery: Nursery, tmp_path: Path) -> None:
    plan = Plan(SEED, (5, 7), kills=8, stops=2, fired=5, rest_seconds=0.4)
    outcome = storm(tmp_path, nursery, plan)
    assert outcome.audit.zeros == (0, 0, 0, 0)
    assert outcome.audit.shards >= 12
    assert outcome.kills.total() >= 8
    assert outcome.stops >= 2
    assert outcome.audit.faults.total() >= 5


def test_an_order_nobody_came_to_is_given_again_until_nobody_can_miss_it() -> None:
    dealer = Orders(random.Random(SEED))
    (order,) = next(filter(None, (dealer.deal({"kill"}) for _ in range(100))))
    given = [order]
    while order != Order("kill", ANY, 1):
        dealer.not_carried_out(order)
        (order,) = next(filter(None, (dealer.deal({"kill"}) for _ in range(100))))
        given.append(order)
    assert len(given) <= 10
    dealer.not_carried_out(order)
    assert all(other.act == "stop" for _ in range(100) for other in dealer.deal({"stop"}))


def test_a_naive_client_is_caught_paying_twice(nursery: Nursery, tmp_path: Path) -> None:
    """Each of the four processes makes the batch again that its predecessor had made, but not noted."""
    orders = [Order("kill", "call.create_batch.after", 2)] * 4
    caught = naive_client(tmp_path, nursery, 5, orders)
    assert caught.kills == {"call.create_batch.after": 4}
    assert (caught.paid_twice, caught.requests) == (8, 10)


@pytest.mark.parametrize("hit", [1, 2])
def test_langbatch_without_its_fence_is_caught_where_langbatch_pays_once(
    hit: int, nursery: Nursery, tmp_path: Path
) -> None:
    assert frozen_before_create(tmp_path / "unfenced", nursery, "unfenced", hit).paid_twice == PER_SHARD
    fenced = frozen_before_create(tmp_path / "fenced", nursery, "langbatch", hit)
    assert fenced.zeros == (0, 0, 0, 0)
    assert fenced.moves["batch_ruled_out"] == 1


def test_who_reaches_no_failpoint_or_too_many_hangs() -> None:
    busy = Progress(most_bytes=10)
    busy.check(10, "somebody")
    with pytest.raises(Hung, match="after 11 bytes of notes: somebody"):
        busy.check(11, "somebody")


def finished(place: Ground) -> Path:
    """A job that has ended; its first shard's results."""
    place.input_file(INPUT, IDS)
    assert place.run(*SUBMIT, "--wait").code == 0
    assert audit(place, {INPUT: IDS}).zeros == (0, 0, 0, 0)
    return next(place.home.glob("jobs/*/joined/00000.jsonl"))


def test_the_audit_sees_every_kind_of_loss(nursery: Nursery, tmp_path: Path) -> None:
    with ground(tmp_path, nursery) as place:
        results = finished(place)
        lines = results.read_text().splitlines(keepends=True)
        for changed, zeros in (
            (lines[:2], (0, 0, 1, 0)),
            ([*lines, lines[0]], (0, 0, 0, 1)),
            ([lines[1], lines[0], lines[2]], (0, 0, 0, 2)),
            ([lines[0].replace("answer to r0", "answer to r1"), *lines[1:]], (0, 0, 0, 1)),
        ):
            results.write_text("".join(changed))
            assert audit(place, {INPUT: IDS}).zeros == zeros
        results.write_text("".join(lines))
        place.change("UPDATE attempts SET batch_id = NULL WHERE shard = 1")
        assert audit(place, {INPUT: IDS}).zeros == (0, 1, 0, 0)


def test_the_same_requests_paid_in_two_jobs_count_as_paid_twice(nursery: Nursery, tmp_path: Path) -> None:
    with ground(tmp_path, nursery) as place:
        finished(place)
        assert place.run(*SUBMIT, "--wait", "--new").code == 0
        # The emulator tells jobs apart; the audit does not care in whose name it was paid.
        assert place.server.emulator.payments().paid_twice == 0
        assert audit(place, {INPUT: IDS}).paid_twice == len(IDS)


def test_the_child_runs_by_itself_and_dies_where_it_was_told(nursery: Nursery, tmp_path: Path) -> None:
    with ground(tmp_path, nursery) as place:
        place.input_file(INPUT, IDS)
        hits = tmp_path / "hits"
        ran = subprocess.run(
            [sys.executable, "-m", "killing.child", "--kill", "call.upload.before:2", "--hits", hits, "--", *SUBMIT],
            cwd=tmp_path,
            env={**surroundings(), **place.surroundings(), "PYTHONPATH": os.pathsep.join(CODE)},
            capture_output=True,
            timeout=60,
            check=False,
        )  # fmt: skip
        assert ran.returncode == -signal.SIGKILL
        assert hits.read_text().splitlines()[-2:] == ["call.upload.before", "!kill call.upload.before"]
        assert place.server.emulator.report()["counts"]["uploads"] == 1


def test_the_report_is_one_page_without_places_of_this_machine(nursery: Nursery, tmp_path: Path) -> None:
    found = Findings()
    found.alone["submit"] = Tally()
    kill_and_finish(
        tmp_path, nursery, BY_NAME["submit"], [Order("kill", "commit.after", 5)], found.alone["submit"]
    )
    text = report(found, Extent(), "PYTHONPATH=tests python -m killing")
    assert "| **paid twice** | **0** |" in text
    assert "| commit.after |" in text
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text


def test_a_campaign_goes_on_with_what_it_kept_of_the_same_code_and_extent(tmp_path: Path) -> None:
    path, extent = tmp_path / "kept.pickle", Extent(kills=7)
    assert load(path, extent) == Findings()
    found = Findings(done={"alone", "pairs", "disturbances", "storms", "bad clients"}, pairs_tried=3)
    save(path, extent, found)
    said: list[str] = []
    assert campaign(tmp_path / "ground", extent, said.append, load(path, extent)) == found
    assert said == []
    with pytest.raises(OtherCode):
        load(path, Extent(kills=8))
