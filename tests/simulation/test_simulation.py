"""A short campaign in CI, and proof that it would notice: bad clients are caught, a seed replays exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from langbatch.records import ShardState
from langbatch.store.store import JobStore
from played_code import OtherCode
from simulation.__main__ import complain, main
from simulation.campaign import Totals, add_up, failpoint_names, play_seed, run
from simulation.faults import ALL_KNOBS
from simulation.judge import judge
from simulation.kept import Kept
from simulation.people import Errand, retry_all, settle_all
from simulation.provider import NaiveProvider, SimulatedProvider, UnfencedProvider
from simulation.report import write_report
from simulation.turns import TWO_ROUNDS, calm_seeds
from simulation.world import Arena, World, arena

#: Each knob, and each move that is seldom made, has its turn twice.
SEEDS = range(TWO_ROUNDS)


@pytest.fixture(scope="module")
def place() -> Iterator[Arena]:
    with arena() as made:
        yield made


@pytest.fixture(scope="module")
def totals() -> Totals:
    return add_up(SEEDS)


def test_no_seed_of_the_short_run_breaks_a_promise(totals: Totals) -> None:
    assert totals.failures == []
    assert totals.seeds == len(SEEDS)
    assert (totals.paid_twice, totals.ids_lost, totals.rows_lost, totals.rows_doubled) == (0, 0, 0, 0)


def test_every_fault_failpoint_and_move_fires_in_the_short_run(totals: Totals) -> None:
    assert totals.missing() == []


def test_a_run_in_which_something_never_fired_says_so(totals: Totals) -> None:
    poorer = Totals(fired=totals.fired.copy(), points=totals.points, moves=totals.moves)
    del poorer.fired[ALL_KNOBS[0]]
    assert poorer.missing() == [ALL_KNOBS[0]]
    assert f"Never fired: {ALL_KNOBS[0]}" in write_report(poorer, 1.0, "command")
    assert totals.passed
    assert not poorer.passed


def test_the_command_fails_and_says_why_when_a_run_shows_too_little(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seeds", "2", "--processes", "1"]) == 1
    told = capfd.readouterr()
    assert "never fired, so this run shows too little: " in told.err
    assert "2 seeds: **paid twice 0, ids lost 0, rows lost 0, rows doubled 0**" in told.out


def test_a_failing_seed_is_told_with_the_command_that_plays_it_again(
    capsys: pytest.CaptureFixture[str], place: Arena
) -> None:
    seed = calm_seeds("create_committed_drop", 1)[0]
    failed = Totals.of(*play_seed(seed, place, NaiveProvider))
    assert failed.failing_seeds == [seed]
    assert not failed.passed
    complain(failed)
    told = capsys.readouterr().err
    assert f"seed {seed}: paid twice: " in told
    assert f"python -m simulation --replay {seed}\n" in told
    page = write_report(failed, 1.0, "command")
    assert "**paid twice 1, " in page
    assert f"--replay {seed}" in page


def test_the_replay_command_plays_a_seed_and_shows_its_trace(
    capsys: pytest.CaptureFixture[str], place: Arena
) -> None:
    assert main(["--replay", "11"]) == 0
    world, _ = play_seed("11", place)
    assert capsys.readouterr().out == world.log.tail(len(world.log.lines)) + "\n"


def test_the_failpoints_of_the_core_are_known_by_name() -> None:
    assert {"call.create_batch.before", "commit.after", "fsync.before", "rename.after"} <= set(
        failpoint_names()
    )


def test_the_report_tells_zeros_and_faults_and_no_place_of_this_machine(totals: Totals, place: Arena) -> None:
    page = write_report(totals, 10.0, "command")
    assert "paid twice 0, ids lost 0, rows lost 0, rows doubled 0" in page
    assert f"create_committed_drop {totals.fired['create_committed_drop']}" in page
    assert str(place.home.parent.parent) not in page


@pytest.mark.parametrize("seed", ["11", "25", "32"])
def test_a_seed_replays_exactly(seed: str, place: Arena) -> None:
    first, _ = play_seed(seed, place)
    second, _ = play_seed(seed, place)
    assert first.plan.fired
    assert first.log.lines == second.log.lines
    assert first.log.digest() == second.log.digest()


def caught(client: type[SimulatedProvider], place: Arena, knob: str, seeds: int) -> int:
    """In how many of the campaign's calm seeds made for `knob` this client is found to pay twice."""
    return sum(bool(play_seed(seed, place, client)[1].paid_twice) for seed in calm_seeds(knob, seeds))


def test_a_client_that_creates_again_after_a_lost_reply_is_caught_every_time(place: Arena) -> None:
    assert caught(NaiveProvider, place, "create_committed_drop", 5) == 5


def test_a_client_that_does_not_delete_the_input_file_is_caught(place: Arena) -> None:
    # A create comes after the grace period in about half of these seeds; otherwise nothing is paid twice.
    assert caught(UnfencedProvider, place, "create_late", 24) >= 4


def test_our_own_client_is_not_caught_by_the_same_faults(place: Arena) -> None:
    assert caught(SimulatedProvider, place, "create_committed_drop", 5) == 0
    assert caught(SimulatedProvider, place, "create_late", 24) == 0


# ---------------------------------------------------------------- what the campaign found once


@pytest.fixture
def quiet(place: Arena) -> Iterator[World]:
    """A world in which nothing goes wrong but what the test arms: one shard of three requests, two workers."""
    world = World.quiet("quiet", place)
    with world.open():
        world.submit(requests=3, per_shard=3)
        yield world


def state_of(world: World) -> ShardState:
    return JobStore(world.connections, clock=world.clock).view(1, 0).shard.state


def run_until(world: World, state: ShardState, seconds: float = 50_000.0) -> None:
    end = world.clock.now() + seconds
    while state_of(world) != state:
        assert world.clock.now() < end, f"still {state_of(world)}\n{world.log.tail()}"
        world.stage.run(world.clock.now() + 30.0)


def run_until_frozen(world: World, seconds: float = 50_000.0) -> None:
    end = world.clock.now() + seconds
    while not world.log.freezes:
        assert world.clock.now() < end, f"nobody has come to that point\n{world.log.tail()}"
        world.stage.run(world.clock.now() + 1.0)


HARVEST = [
    *(("call.download.after", nth) for nth in range(2)),
    *(("fsync.before", nth) for nth in range(8)),
    *(("rename.before", nth) for nth in range(4)),
]


@pytest.mark.parametrize("retries", [1, 2])
@pytest.mark.parametrize(("point", "nth"), HARVEST)
def test_a_process_frozen_in_its_harvest_puts_no_old_file_over_a_newer_one(
    point: str, nth: int, retries: int, quiet: World
) -> None:
    """Another one fetches and joins meanwhile, and a retry adds to it; then the first wakes up, with a body
    that was cut short if it had only just read it. A second retry reads all pieces again."""
    quiet.plan.arm("row_errored", times=retries)
    quiet.start_worker(0)
    run_until(quiet, "active")
    if point.startswith("call"):
        quiet.plan.arm("download_cut_in_a_row", times=2)
    quiet.worker(0).spared[point] = nth
    quiet.worker(0).fates[point] = 200_000.0
    run_until_frozen(quiet)
    assert state_of(quiet) == "harvesting"
    quiet.start_worker(1)
    run_until(quiet, "done")
    Errand(quiet, "user", retry_all).start(0.0)
    quiet.stage.run(quiet.clock.now() + 1.0)
    run_until(quiet, "done")
    assert judge(quiet).wrong == []
    quiet.stage.run(quiet.clock.now() + 250_000.0)
    Errand(quiet, "user", retry_all).start(0.0)
    quiet.stage.run(quiet.clock.now() + 50_000.0)
    assert judge(quiet).wrong == []


def test_a_process_frozen_before_its_create_fails_after_the_operators_resubmit(quiet: World) -> None:
    """Nobody else sees that create: only the deleted input file can stop it."""
    quiet.service.fence_lag = 0.0
    quiet.plan.arm("list_trouble", times=100)
    quiet.worker(0).fates["call.create_batch.before"] = 40_000.0
    quiet.start_worker(0)
    run_until(quiet, "creating")
    quiet.start_worker(1)
    run_until(quiet, "needs_operator")
    quiet.plan.disarm()
    Errand(quiet, "operator", settle_all).start(0.0)
    run_until(quiet, "done")
    quiet.stage.run(quiet.clock.now() + 60_000.0)
    assert judge(quiet).wrong == []
    assert len(quiet.service.batches) == 1


def test_short_bodies_after_an_outage_are_not_taken_for_all_there_is(quiet: World) -> None:
    """Failed calls used to eat up the tries that a short body has."""
    quiet.plan.arm("download_trouble", times=4)
    quiet.plan.arm("download_rows_left_out", times=2)
    quiet.start_worker(0)
    run_until(quiet, "done")
    assert quiet.plan.fired["download_rows_left_out"] == 2
    assert judge(quiet).wrong == []


def test_a_job_whose_processes_all_died_before_its_first_attempt_can_be_settled(quiet: World) -> None:
    # At the first file that an attempt writes there is no attempt yet to name.
    quiet.worker(0).always_dies_at = "fsync.before"
    quiet.start_worker(0)
    run_until(quiet, "needs_operator")
    quiet.worker(0).always_dies_at = None
    Errand(quiet, "operator", settle_all).start(0.0)
    run_until(quiet, "done")
    assert judge(quiet).wrong == []


def test_a_process_frozen_while_it_writes_its_journal_stops_nobody_else(quiet: World) -> None:
    """The database did not take the batch's id. Whoever opens the store now must get past the frozen one."""
    worker = quiet.start_worker(0)
    worker.fates["call.create_batch.after"] = 10.0
    run_until_frozen(quiet)
    quiet.plan.arm("commit_fails")
    worker.fates["fsync.before"] = 100_000.0
    quiet.stage.run(quiet.clock.now() + 60.0)
    assert quiet.log.freezes == 2
    quiet.start_worker(1)
    run_until(quiet, "done")
    quiet.stage.run(quiet.clock.now() + 150_000.0)
    assert judge(quiet).wrong == []


def test_a_retry_keeps_what_succeeded_whatever_the_processes_do(quiet: World) -> None:
    quiet.plan.arm("row_errored")
    worker = quiet.start_worker(0)
    run_until(quiet, "done")
    for point in ("rename.after", "commit.after", "call.create_batch.after", "call.upload.after"):
        worker.fates[point] = True
    Errand(quiet, "user", retry_all).start(0.0)
    quiet.stage.run(quiet.clock.now() + 1.0)
    run_until(quiet, "done")
    assert quiet.log.crashes > 1
    assert judge(quiet).wrong == []


def test_a_campaign_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    run(2, 1, kept=Kept(file))
    with file.open("ab") as half:
        half.write(b'{"first": 2, "cou')  # killed while it wrote
    again = Kept(file)
    assert (again.totals.seeds, again.chunks) == (2, {(0, 2)})
    played: list[Totals] = []
    totals, _ = run(2, 1, kept=again, on_done=played.append)
    assert played == []
    assert totals == add_up([0, 1])


def test_seeds_of_other_code_are_not_added_to_ours(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    file.write_text('{"code": "0123456789abcdef"}\n')
    with pytest.raises(OtherCode, match="another state of the code"):
        Kept(file)
