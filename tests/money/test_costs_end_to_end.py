"""Costs before and after, end to end: previews without network, and what a finished job has cost."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from langbatch import JobManager, JobStatus
from langbatch.emulator import EmulatorConfig, RunningServer, running_server
from langbatch.money.costs import exact_text, short_text
from langbatch.running import quota
from running import CommandLine, pointing_at
from support import chat_line, requests_file, world

IDS = [f"r{n:02d}" for n in range(12)]
#: What the emulated Azure service says it runs, as the shipped price list has it.
MINI = {"input": Decimal("0.15"), "output": Decimal("0.60")}


def mini_cost(status: JobStatus) -> Decimal:
    used = status.usage
    assert used.input_tokens is not None
    assert used.output_tokens is not None
    return round((used.input_tokens * MINI["input"] + used.output_tokens * MINI["output"]) / 2_000_000, 9)


# ---------------------------------------------------------------- afterwards


def test_a_job_costs_its_usage_by_the_model_that_its_answers_name(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", [*IDS, "r-emulator-fail-500"])
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure)
        assert manager.status(job.id, offline=True).cost is None
        waited_for = manager.wait(job.id)
        status = manager.status(job.id, offline=True)
        assert status.cost is not None
        assert waited_for.cost == status.cost
        assert Decimal(status.cost.amount) == mini_cost(status)
        assert (status.cost.currency, status.cost.as_of) == ("USD", "2025-08-31")
        assert manager.jobs()[0].cost == status.cost


def test_what_the_user_says_of_a_deployment_beats_the_answers(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "prices.toml").write_text(
        '[deployments]\ndep = "m"\n[models.m]\ninput = 2\noutput = 2\n'
    )
    source = requests_file(tmp_path / "in.jsonl", IDS)
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure)
        manager.wait(job.id)
        status = manager.status(job.id, offline=True)
        assert status.cost is not None
        used = (status.usage.input_tokens or 0) + (status.usage.output_tokens or 0)
        assert Decimal(status.cost.amount) == Decimal(used) / 1_000_000
        assert status.cost.as_of is None


def test_an_unknown_model_has_no_cost(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], custom_id: str) -> dict[str, Any]:
        return {"model": "unheard-of", "usage": {"prompt_tokens": 3, "completion_tokens": 1}, "choices": []}

    source = requests_file(tmp_path / "in.jsonl", IDS)
    with world(tmp_path, answer=answer) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure)
        manager.wait(job.id)
        assert manager.status(job.id, offline=True).cost is None


def test_retried_requests_cost_again_and_answers_of_both_attempts_are_added_up(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS)
    with world(tmp_path, faults=("batch-expire@1",)) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure)
        assert manager.wait(job.id).counts.succeeded < len(IDS)
        first = manager.status(job.id, offline=True).cost
        manager.retry(job.id)
        assert manager.wait(job.id).all_succeeded
        status = manager.status(job.id, offline=True)
        assert first is not None
        assert status.cost is not None
        assert Decimal(status.cost.amount) == mini_cost(status)
        assert Decimal(first.amount) < Decimal(status.cost.amount)


# ---------------------------------------------------------------- before


def test_a_preview_needs_neither_network_nor_credentials_nor_a_home(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=10)
    with JobManager(tmp_path / "home") as manager:
        found = manager.preview(source, "azure", max_requests_per_shard=5)
        assert [shard.requests for shard in found.shards] == [5, 5, 2]
        assert sum(shard.estimated_tokens for shard in found.shards) == pytest.approx(
            found.forecast.tokens.input_tokens, abs=3
        )
        assert found.forecast.tokens.output_tokens_at_most == 10 * len(IDS)
        assert found.forecast.cost is None
        assert "which model" in (found.forecast.cost_unknown or "")
        assert found.quota is None
    assert not (tmp_path / "home").exists()


def test_a_models_name_on_openai_has_its_price(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, model="gpt-4o-mini", max_tokens=10)
    with JobManager(tmp_path / "home") as manager:
        found = manager.preview(source, "openai").forecast
        assert found.cost is not None
        assert found.cost.high == (found.tokens.high * MINI["input"] + 120 * MINI["output"]) / 2_000_000


def test_what_the_first_job_learnt_of_a_deployment_prices_the_next(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, max_tokens=10)
    other = requests_file(tmp_path / "other.jsonl", IDS, max_tokens=11)
    with world(tmp_path) as here, here.manager() as manager:
        assert manager.preview(other, **here.azure).forecast.cost is None
        manager.wait(manager.submit(source, **here.azure).id)
        calls = here.emulator.report()["calls"]
        assert manager.preview(other, **here.azure).forecast.cost is not None
        assert here.emulator.report()["calls"] == calls
        job = manager.submit(other, **here.azure, max_cost=1)
        assert manager.wait(job.id).all_succeeded


def test_a_stated_quota_tells_how_often_it_is_filled(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS, model="a")
    each = quota.estimate_tokens(source.stat().st_size // len(IDS))
    with JobManager(tmp_path / "home") as manager:
        need = manager.preview(
            source,
            "azure",
            targets=[{"deployment": "a", "quota_tokens": 7 * each // 2}],
            max_requests_per_shard=1,
        ).quota
    assert need is not None
    assert (need.at_once, need.rounds) == (3, 4)


def test_a_learnt_quota_tells_it_too(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS)
    each = quota.estimate_tokens(source.stat().st_size // len(IDS))
    with world(tmp_path, enqueued_token_limit=7 * each // 2) as here, here.manager() as manager:
        assert manager.preview(source, **here.azure, max_requests_per_shard=1).quota is None
        job = manager.submit(source, **here.azure, max_requests_per_shard=1)
        manager.wait(job.id, timeout=100_000)
        need = manager.preview(source, **here.azure, max_requests_per_shard=1).quota
        assert need is not None
        assert (need.limit_tokens, need.at_once, need.rounds) == (7 * each // 2, 3, 4)


@pytest.mark.parametrize(
    ("needs", "limits", "expected"),
    [
        ([5] * 12, [15], (3, 4)),
        ([5] * 4, [5, 10], (3, 2)),
        ([5, 50, 5], [10], (2, 2)),
        ([5], [5], (1, 1)),
        ([], [5], (0, 0)),
    ],
)
def test_rounds_fill_the_quotas_in_order(
    needs: list[int], limits: list[int], expected: tuple[int, int]
) -> None:
    assert quota.rounds(needs, limits) == expected


@pytest.mark.parametrize(
    ("amount", "short", "exact"),
    [
        ("0", "0.00", "0.00"),
        ("1.5", "1.50", "1.50"),
        ("1234.567", "1234.57", "1234.567"),
        ("0.5", "0.50", "0.50"),
        ("0.000018", "0.000018", "0.000018"),
        ("0.0000099", "0.0000099", "0.0000099"),
    ],
)
def test_amounts_are_written_without_exponents(amount: str, short: str, exact: str) -> None:
    assert short_text(Decimal(amount)) == short
    assert exact_text(Decimal(amount)) == exact


# ---------------------------------------------------------------- the command line


@pytest.fixture
def langbatch(tmp_path: Path) -> CommandLine:
    requests_file(tmp_path / "in.jsonl", IDS, max_tokens=10)
    return CommandLine(tmp_path)


def test_a_dry_run_tells_tokens_cost_and_what_of_the_budget_fits(langbatch: CommandLine) -> None:
    langbatch.home.mkdir()
    (langbatch.home / "prices.toml").write_text('[deployments]\ndep = "gpt-4o-mini"\n')
    ran = langbatch.here(
        "submit", "in.jsonl", "--dry-run", "--max-requests-per-shard", 4, "--max-tokens", 400
    )
    assert ran.code == 0
    assert "120 out" in ran.err
    assert "USD (list prices of 2025-08-31)" in ran.err
    assert "1 of 3 shards fit the budget at once" in ran.err
    document = langbatch.here(
        "submit", "in.jsonl", "--dry-run", "--max-requests-per-shard", 4, "--max-cost", "1", "--json"
    ).document
    assert len(document["shards"]) == 3
    assert document["tokens"]["output_at_most"] == 120
    assert Decimal(document["cost"]["low"]) < Decimal(document["cost"]["high"])
    assert document["budget"]["shards_at_once"] == 3
    assert document["quota"] is None
    assert [path.name for path in langbatch.home.iterdir()] == ["prices.toml"]


def test_an_unknown_price_is_said_to_be_unknown(langbatch: CommandLine) -> None:
    ran = langbatch.here("submit", "in.jsonl", "--dry-run")
    assert "unknown: nobody has said which model" in ran.err
    document = langbatch.here("submit", "in.jsonl", "--dry-run", "--json").document
    assert document["cost"] is None
    assert "model" in document["cost_unknown"]


def test_validate_counts_tokens_when_asked_and_says_how(langbatch: CommandLine) -> None:
    (langbatch.folder / "in.jsonl").write_text(chat_line("a", model="gpt-4o", max_tokens=5) + "\n")
    rough = langbatch.here("validate", "in.jsonl", "--provider", "openai", "--json").document
    assert "tokens" not in rough
    ran = langbatch.here("validate", "in.jsonl", "--provider", "openai", "--tokens", "--json")
    assert ran.document["tokens"]["counter"] in ("counted", "estimated")
    assert ran.document["tokens"]["counted_requests"] == 1
    shown = langbatch.here("validate", "in.jsonl", "--provider", "openai", "--tokens").err
    assert ran.document["tokens"]["counter"] in shown


def test_prices_are_shown_with_their_files_and_dates(langbatch: CommandLine) -> None:
    langbatch.home.mkdir()
    (langbatch.home / "prices.toml").write_text('[deployments]\nmine = "gpt-4o"\n[models.own]\ninput = 1\n')
    ran = langbatch.here("prices")
    assert "mine runs gpt-4o" in ran.err
    assert str(langbatch.home / "prices.toml") in ran.err
    document = langbatch.here("prices", "--json").document
    assert document["own_file_exists"] is True
    assert document["models"]["gpt-4o"]["as_of"] == "2025-08-31"
    assert document["models"]["own"]["output"] is None


@pytest.fixture
def server() -> Any:
    with running_server(config=EmulatorConfig.instant()) as running:
        yield running


def test_a_budget_that_is_used_up_exits_5_with_the_jobs_id_and_what_to_do(
    langbatch: CommandLine, server: RunningServer
) -> None:
    where = pointing_at(server)
    refused = langbatch.here("submit", "in.jsonl", "--max-cost", "25", **where)
    assert (refused.code, refused.out) == (5, "")
    assert "langbatch prices" in refused.err
    ran = langbatch.here("submit", "in.jsonl", "--max-tokens", 20, **where)
    assert ran.code == 5
    job = ran.job_id
    assert "the budget of 20 tokens is too small" in ran.err
    assert "--max-tokens" in ran.err
    assert langbatch.here("resume", **where).code == 5
    again = langbatch.here("submit", "in.jsonl", "--max-tokens", 10_000, "--wait", **where)
    assert (again.code, again.job_id) == (0, job)
    shown = langbatch.here("status", job, "--offline", **where)
    assert "of 10,000 tokens used or reserved" in shown.err
    assert "USD (list prices of 2025-08-31)" in shown.err
    document = langbatch.here("status", job, "--offline", "--json", **where).document
    assert set(document["cost"]) == {"amount", "currency", "as_of"}
    assert document["budget"]["max_tokens"] == 10_000


@pytest.mark.parametrize("value", ["0", "-1", "much", "nan"])
def test_a_budget_that_is_no_amount_is_a_usage_error(langbatch: CommandLine, value: str) -> None:
    ran = langbatch.here("submit", "in.jsonl", f"--max-cost={value}", "--json")
    assert ran.code == 2
    assert json.loads(ran.out)["error"]["code"] == "usage"
