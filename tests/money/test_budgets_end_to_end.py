"""Budgets against the emulated service: what it was paid never exceeds them, and what waits says why."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langbatch import ChatCompletionBatch, JobManager, JobStatus, LangBatchError, SetupError
from langbatch.failpoints import listening
from support import World, requests_file, world

IDS = [f"r{n:02d}" for n in range(8)]
#: A model whose tokens cost a millionth each in a batch, in or out.
PRICES = '[models.m]\ninput = 2\noutput = 2\n[deployments]\ndep = "m"\n'


def with_prices(tmp_path: Path, text: str = PRICES) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / "prices.toml").write_text(text)


def paid(here: World) -> int:
    """Tokens that the service will have been paid for, over all batches there ever were."""
    here.emulator.payments()
    return sum(batch["tokens_paid"] for batch in here.emulator.report()["batches"])


def states(status: JobStatus) -> list[str]:
    return [shard.state for shard in status.shards]


def bound(manager: JobManager, source: Path) -> int:
    """Tokens that one of a file's requests reserves at first."""
    need = manager.preview(source, "azure", max_requests_per_shard=1, max_tokens=10**9).budget
    assert need is not None
    assert need.most_tokens is not None
    return need.most_tokens // len(IDS)


def submitted(manager: JobManager, source: Path, here: World, **options: Any) -> JobStatus:
    """One shard a request, sent as far as the budget lets."""
    job = manager.submit(source, **here.azure, max_requests_per_shard=1, start=False, **options)
    try:
        manager.start(job.id)
    except SetupError as error:
        if error.code != "budget":
            raise
    return manager.status(job.id, offline=True)


# ---------------------------------------------------------------- what is sent


def test_shards_beyond_the_budget_are_not_sent_and_the_rest_wait_for_a_person(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=10)
    with world(tmp_path) as here, here.manager() as manager:
        budget = 3 * bound(manager, source)
        job = submitted(manager, source, here, max_tokens=budget)
        assert states(job) == ["active"] * 3 + ["waiting"] * 5
        assert job.state == "running"
        with pytest.raises(SetupError, match=f"the budget of {budget:,} tokens is used up") as told:
            manager.wait(job.id)
        assert told.value.code == "budget"
        assert "of 8 shards are not sent" in told.value.message
        status = manager.status(job.id, offline=True)
        assert status.state == "paused"
        assert status.budget is not None
        assert status.budget.committed_tokens == paid(here)
        assert paid(here) <= budget


def test_the_same_file_with_more_money_goes_on_as_the_same_job(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=10)
    with world(tmp_path) as here, here.manager() as manager:
        job = submitted(manager, source, here, max_tokens=3 * bound(manager, source))
        with pytest.raises(SetupError):
            manager.wait(job.id)
        again = submitted(manager, source, here, max_tokens=20 * bound(manager, source))
        assert again.id == job.id
        assert manager.wait(job.id).all_succeeded
        assert here.emulator.payments().paid_twice == 0


def test_what_ended_shards_did_not_use_lets_others_go(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=1000)
    with world(tmp_path) as here, here.manager() as manager:
        budget = 2 * bound(manager, source)
        job = submitted(manager, source, here, max_tokens=budget)
        assert states(job).count("active") == 2
        assert "waiting" in states(job)
        assert manager.wait(job.id, timeout=100_000).all_succeeded
        assert paid(here) <= budget


def test_a_shard_larger_than_the_whole_budget_is_refused_with_what_it_may_take(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=10)
    with world(tmp_path) as here, here.manager() as manager:
        job = submitted(manager, source, here, max_tokens=5)
        assert job.state == "paused"
        assert "the budget of 5 tokens is too small: one shard may take" in (job.attention or "")
        assert here.counts().get("uploads", 0) == 0


def test_a_budget_of_money_holds_in_the_price_lists_currency(tmp_path: Path) -> None:
    with_prices(tmp_path, '[source]\ncurrency = "EUR"\n' + PRICES)
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=10)
    with world(tmp_path) as here, here.manager() as manager:
        most = Decimal(3 * bound(manager, source)) / 1_000_000
        job = submitted(manager, source, here, max_cost=most)
        assert states(job).count("active") == 3
        with pytest.raises(SetupError, match=r"the budget of 0\.000\d+ EUR is used up"):
            manager.wait(job.id)
        budget = manager.status(job.id, offline=True).budget
        assert budget is not None
        assert Decimal(paid(here)) / 1_000_000 == Decimal(budget.committed_cost or 0) <= most
        assert budget.currency == "EUR"


def test_a_budget_that_shrinks_after_the_upload_stops_the_create(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS[:1], max_tokens=10)
    with world(tmp_path) as here, here.manager() as manager, here.manager() as other:
        job = manager.submit(source, **here.azure, max_tokens=10_000, start=False)

        def shrink(point: str) -> None:
            if point == "call.upload.after":
                other.set_budget(job.id, max_tokens=5)

        with listening(shrink), pytest.raises(SetupError, match="too small"):
            manager.start(job.id)
        assert states(manager.status(job.id, offline=True)) == ["uploaded"]
        assert here.counts()["uploads"] == 1
        assert here.counts().get("batches", 0) == 0
        manager.set_budget(job.id, max_tokens=10_000)
        assert manager.wait(job.id).all_succeeded
        assert here.counts()["uploads"] == 1


def test_a_retry_counts_against_the_same_budget(tmp_path: Path) -> None:
    ids = [*IDS[:4], "r-emulator-fail-500"]
    source = requests_file(tmp_path / "in.jsonl", ids, max_tokens=100)
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure, max_tokens=100_000)
        assert manager.wait(job.id).counts.errored == 1
        used = paid(here)
        manager.set_budget(job.id, max_tokens=used + 60)
        with pytest.raises(SetupError, match="used up or reserved"):
            manager.retry(job.id)
        manager.set_budget(job.id, max_tokens=used + 200)
        assert manager.wait(job.id).counts.errored == 1
        assert here.counts()["batches"] == 2


def test_a_cancelled_wait_for_the_budget_ends_the_job(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=10)
    with world(tmp_path) as here, here.manager() as manager:
        job = submitted(manager, source, here, max_tokens=5)
        manager.cancel(job.id)
        status = manager.wait(job.id)
        assert status.state == "cancelled"
        assert status.counts.cancelled == len(IDS)


# ---------------------------------------------------------------- what is reserved, and given back


def committed(manager: JobManager, job_id: str) -> int | None:
    budget = manager.status(job_id, offline=True).budget
    assert budget is not None
    return budget.committed_tokens


@pytest.mark.parametrize("fault", ["rows-lost", "rows-malformed", "rows-status-0"])
def test_a_row_that_may_have_cost_something_keeps_the_bound_reserved(fault: str, tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=500)
    with world(tmp_path, faults=(fault,)) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure, max_tokens=1_000_000)
        before = committed(manager, job.id)
        assert before is not None
        manager.wait(job.id)
        after = committed(manager, job.id)
        assert after is not None
        assert paid(here) <= after
        assert after == before or fault == "rows-status-0"


@pytest.mark.parametrize(
    "fault", ["create-404@1", "create-token-limit*3", "batch-token-limit@1", "batch-fail", "upload-500@1"]
)
def test_what_certainly_cost_nothing_is_given_back(fault: str, tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=50)
    with world(tmp_path, faults=(fault,)) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure, max_tokens=100_000, start=False)
        manager.wait(job.id, timeout=100_000)
        assert committed(manager, job.id) == paid(here)


def test_the_first_honest_report_frees_what_was_reserved_for_caution(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], custom_id: str) -> dict[str, Any]:
        return {"model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 1}, "choices": []}

    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=1)
    with world(tmp_path, answer=answer) as here, here.manager() as manager:
        each = bound(manager, source)
        job = submitted(manager, source, here, max_tokens=2 * each - 1)
        assert states(job).count("active") == 1
        for _ in range(20):
            here.clock.sleep(60)
            manager.advance(job.id)
            found = states(manager.status(job.id, offline=True))
            if "done" in found:
                break
        # A quarter of the bytes was reserved for the first; what was counted is far less.
        here.clock.sleep(60)
        manager.advance(job.id)
        assert states(manager.status(job.id, offline=True)).count("active") > 1


def test_a_budget_given_later_counts_what_was_used_before(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", [*IDS, "r-emulator-fail-500"], max_tokens=100)
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure)
        manager.wait(job.id)
        assert manager.submit(source, **here.azure, max_tokens=10_000, start=False).id == job.id
        assert committed(manager, job.id) == paid(here)


def test_a_budget_given_while_a_batch_runs_counts_its_bound(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=100)
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure)
        status = manager.set_budget(job.id, max_tokens=10_000)
        assert states(status) == ["active"]
        assert (committed(manager, job.id) or 0) > 100 * len(IDS)
        manager.wait(job.id)
        assert committed(manager, job.id) == paid(here)


# ---------------------------------------------------------------- what is refused


def nothing_was_stored(here: World, manager: JobManager) -> bool:
    return manager.jobs() == [] and here.counts().get("uploads", 0) == 0


def test_a_limit_on_money_with_an_unknown_price_is_refused(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=10)
    with world(tmp_path) as here, here.manager() as manager:
        with pytest.raises(SetupError, match="unknown") as told:
            manager.submit(source, **here.azure, max_cost=25)
        assert told.value.code == "unknown_price"
        assert "prices.toml" in (told.value.hint or "")
        assert nothing_was_stored(here, manager)


@pytest.mark.parametrize("limit", [{"max_tokens": 10**9}, {"max_cost": 1000}])
def test_a_limit_on_output_that_nothing_bounds_is_refused(limit: dict[str, Any], tmp_path: Path) -> None:
    with_prices(tmp_path)
    source = requests_file(tmp_path / "in.jsonl", IDS)
    with world(tmp_path) as here, here.manager() as manager:
        with pytest.raises(SetupError) as told:
            manager.submit(source, **here.azure, **limit)
        assert told.value.code == "unbounded_output"
        assert nothing_was_stored(here, manager)


@pytest.mark.parametrize("limit", [{"max_tokens": 10**9}, {"max_cost": 1000}])
def test_a_limit_on_input_that_is_not_in_the_requests_is_refused(
    limit: dict[str, Any], tmp_path: Path
) -> None:
    with_prices(tmp_path)
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=10, web_search_options={})
    with world(tmp_path) as here, here.manager() as manager:
        with pytest.raises(SetupError, match="web_search_options") as told:
            manager.submit(source, **here.azure, **limit)
        assert told.value.code == "unbounded_input"
        assert nothing_was_stored(here, manager)
        cost = manager.preview(source, "azure", **{k: v for k, v in here.azure.items() if k != "provider"})
        assert cost.forecast.cost is not None
        assert cost.forecast.cost.high is None


def test_a_models_own_longest_answer_is_a_bound(tmp_path: Path) -> None:
    with_prices(tmp_path, PRICES.replace("[models.m]", "[models.m]\nmost_output_tokens = 50"))
    source = requests_file(tmp_path / "in.jsonl", IDS)
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure, max_tokens=10_000)
        assert (committed(manager, job.id) or 0) >= 50 * len(IDS)


@pytest.mark.parametrize(
    "limit", [{"max_cost": 0}, {"max_cost": "nan"}, {"max_cost": "x"}, {"max_tokens": 0}]
)
def test_a_limit_that_is_no_amount_is_refused(limit: dict[str, Any], tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=10)
    with world(tmp_path) as here, here.manager() as manager:
        with pytest.raises(SetupError, match="above 0"):
            manager.submit(source, **here.azure, **limit)
        assert nothing_was_stored(here, manager)


def test_a_handle_starts_within_a_budget_and_goes_on_with_another(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=10)
    with world(tmp_path) as here:
        batch = ChatCompletionBatch(source, **here.azure, manager=here.manager())
        batch.save()
        with pytest.raises(SetupError, match="too small"):
            batch.start(max_tokens=20)
        batch.start(max_tokens=10_000)
        assert batch.wait().all_succeeded


# ---------------------------------------------------------------- the promise


@dataclass(frozen=True)
class Story:
    """What happens to a job: how it is cut, what goes wrong at the service and here, what a person does."""

    requests: int
    per_shard: int
    max_tokens: int
    budget: int
    in_money: bool
    faults: tuple[str, ...]
    dies_at: tuple[str, int] | None
    retries: int
    raised_by: int


FAULTS = (
    "create-committed-drop@1",
    "create-committed-500@2",
    "create-drop@2",
    "create-500@1",
    "create-token-limit@2",
    "create-late=5@1",
    "batch-token-limit@1",
    "batch-expire@1",
    "batch-cancel@2",
    "rows-fail@1",
    "rows-lost@2",
    "rows-malformed@1",
    "rows-duplicate@1",
    "upload-committed-drop@1",
    "file-error@1",
)
POINTS = ("call.create_batch.before", "call.create_batch.after", "call.upload.after", "commit.after")
STORIES = st.builds(
    Story,
    requests=st.integers(1, 6),
    per_shard=st.integers(1, 3),
    max_tokens=st.sampled_from([1, 12, 60]),
    budget=st.integers(1, 700),
    in_money=st.booleans(),
    faults=st.lists(st.sampled_from(FAULTS), max_size=3, unique=True).map(tuple),
    dies_at=st.none() | st.tuples(st.sampled_from(POINTS), st.integers(1, 6)),
    retries=st.integers(0, 2),
    raised_by=st.sampled_from([0, 0, 100, 1000]),
)


class Died(BaseException):
    """This process is no more."""


def tell(story: Story, folder: Path) -> None:
    with_prices(folder)
    source = requests_file(
        folder / "in.jsonl", [f"r{n}" for n in range(story.requests)], max_tokens=story.max_tokens
    )
    reached = 0

    def die(point: str) -> None:
        nonlocal reached
        if story.dies_at is not None and point == story.dies_at[0]:
            reached += 1
            if reached == story.dies_at[1]:
                raise Died

    def limits(tokens: int) -> dict[str, Any]:
        return {"max_cost": Decimal(tokens) / 1_000_000} if story.in_money else {"max_tokens": tokens}

    budget = story.budget
    with world(folder, faults=story.faults) as here:

        def live(act: str) -> None:
            """What one process does, until it dies or has nothing to do for now."""
            with here.manager() as manager, listening(die):
                try:
                    job_id = ""
                    if act in ("submit", "raise"):
                        job_id = manager.submit(
                            source, **here.azure, max_requests_per_shard=story.per_shard, **limits(budget)
                        ).id
                    job_id = job_id or manager.jobs()[0].id
                    if act == "retry":
                        manager.retry(job_id)
                    manager.wait(job_id, timeout=50_000)
                except (LangBatchError, IndexError):
                    pass
                except Died:
                    pass
            assert paid(here) <= budget

        live("submit")
        live("submit")
        for _ in range(story.retries):
            live("retry")
        budget += story.raised_by
        live("raise")
        for _ in range(story.retries):
            live("retry")


@settings(max_examples=12, deadline=None)
@given(STORIES)
def test_the_service_is_never_paid_more_than_the_budget(story: Story) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tell(story, Path(folder))
