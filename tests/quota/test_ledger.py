"""Token quotas end to end: back-pressure, learning, several targets, shards cut smaller."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from langbatch import JobManager, NeedsOperator, WaitTimeout
from langbatch.records import Account
from langbatch.running import quota
from langbatch.store import ledger
from support import SECRET_KEY, World, requests_file, world

IDS = [f"r{n:02d}" for n in range(12)]
DEP = "azure/res.openai.azure.com/dep"


def input_of(tmp_path: Path, **options: Any) -> tuple[Path, int]:
    """Twelve requests of one size, and the tokens that one of them is taken for."""
    source = requests_file(tmp_path / "in.jsonl", IDS, **options)
    return source, quota.estimate_tokens(source.stat().st_size // len(IDS))


def known(manager: JobManager) -> dict[str, tuple[int | None, int]]:
    """Each deployment's limit, as far as known, and what is reserved of it."""
    return {account.label: (account.limit_tokens, held) for account, held in ledger.all_known(manager._store)}


def models_of(here: World) -> list[str]:
    return [batch["model"] for batch in here.emulator.report()["batches"]]


@pytest.mark.parametrize("where", ["create", "validation"])
def test_a_full_quota_is_waited_for_and_every_shard_is_run_once(where: str, tmp_path: Path) -> None:
    source, each = input_of(tmp_path)
    with (
        world(tmp_path, enqueued_token_limit=7 * each // 2, token_limit_at=where) as here,
        here.manager() as manager,
    ):
        job = manager.submit(source, **here.azure, max_requests_per_shard=1)
        assert manager.status(job.id, offline=True).state == "running"
        assert manager.wait(job.id, timeout=100_000).counts.succeeded == 12
        assert here.emulator.payments().paid_twice == 0
        assert known(manager) == {DEP: (7 * each // 2, 0)}


def test_a_quota_that_is_known_is_never_overrun(tmp_path: Path) -> None:
    source, each = input_of(tmp_path, model="a")
    with world(tmp_path, enqueued_token_limit=7 * each // 2) as here, here.manager() as manager:
        job = manager.submit(
            source,
            **here.azure,
            targets=[{"deployment": "a", "quota_tokens": 7 * each // 2}],
            max_requests_per_shard=1,
        )
        status = manager.status(job.id, offline=True)
        assert [shard.state for shard in status.shards].count("active") == 3
        assert f" of {7 * each // 2:,} tokens enqueued" in (status.attention or "")
        assert manager.wait(job.id, timeout=100_000).all_succeeded
        assert here.emulator.report()["calls"]["create"] == 12


def test_what_one_job_learnt_spares_the_next_one_its_refusals(tmp_path: Path) -> None:
    source, each = input_of(tmp_path)
    other = requests_file(tmp_path / "other.jsonl", [f"s{n:02d}" for n in range(12)])
    with world(tmp_path, enqueued_token_limit=7 * each // 2) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure, max_requests_per_shard=1)
        manager.wait(job.id, timeout=100_000)
        before = here.emulator.report()["calls"]["create"]
        assert before > 12
        job = manager.submit(other, **here.azure, max_requests_per_shard=1)
        assert manager.wait(job.id, timeout=100_000).all_succeeded
        assert here.emulator.report()["calls"]["create"] == before + 12


def test_two_jobs_on_one_deployment_share_its_quota(tmp_path: Path) -> None:
    source, each = input_of(tmp_path, model="a")
    other = requests_file(tmp_path / "other.jsonl", [f"s{n:02d}" for n in range(12)], model="a")
    where: dict[str, Any] = {
        "targets": [{"deployment": "a", "quota_tokens": 7 * each // 2}],
        "max_requests_per_shard": 1,
    }
    with world(tmp_path, enqueued_token_limit=7 * each // 2) as here, here.manager() as manager:
        first = manager.submit(source, **here.azure, **where)
        second = manager.submit(other, **here.azure, **where)
        states = [s.state for job in (first, second) for s in manager.status(job.id, offline=True).shards]
        assert states.count("active") == 3
        assert manager.wait_all([first.id, second.id]) == {}
        assert here.emulator.report()["calls"]["create"] == 24


def test_a_shard_that_no_quota_could_hold_is_cut_smaller_and_results_stay_in_order(tmp_path: Path) -> None:
    source, each = input_of(tmp_path)
    with world(tmp_path, enqueued_token_limit=5 * each) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure)
        status = manager.wait(job.id, timeout=100_000)
        assert status.all_succeeded
        assert len(status.shards) > 2
        assert [shard.first_line for shard in status.shards] == sorted(s.first_line for s in status.shards)
        assert [result.custom_id for result in manager.results(job.id)] == IDS
        assert here.emulator.payments().paid_twice == 0


def test_a_request_larger_than_the_whole_quota_stops_for_a_person_and_pays_nothing(
    tmp_path: Path,
) -> None:
    source, each = input_of(tmp_path)
    with world(tmp_path, enqueued_token_limit=each // 2) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure, max_requests_per_shard=12)
        status = manager.jobs()[0]
        for _ in range(40):
            here.clock.sleep(120)
            manager.advance()
            status = manager.status(job.id, offline=True)
        assert status.state == "needs_operator"
        assert "ask for more quota" in (status.attention or "")
        assert here.counts()["batches"] == 0


def test_shards_go_to_two_deployments_by_weight_and_room(tmp_path: Path) -> None:
    source, _ = input_of(tmp_path)
    targets: list[dict[str, Any]] = [{"deployment": "big", "weight": 2}, {"deployment": "small"}]
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure, targets=targets, max_requests_per_shard=1)
        assert sorted(models_of(here)).count("big") == 8
        status = manager.wait(job.id)
        assert {shard.target.rpartition("/")[2] for shard in status.shards} == {"big", "small"}
        assert [result.custom_id for result in manager.results(job.id)] == IDS


def test_a_full_deployment_leaves_its_shards_to_the_other(tmp_path: Path) -> None:
    source, each = input_of(tmp_path)
    targets: list[dict[str, Any]] = [{"deployment": "full"}, {"deployment": "free"}]
    with (
        world(tmp_path, enqueued_token_limits={"full": 5 * each // 2}) as here,
        here.manager() as manager,
    ):
        job = manager.submit(source, **here.azure, targets=targets, max_requests_per_shard=1)
        states = [shard.state for shard in manager.status(job.id, offline=True).shards]
        assert states == ["active"] * 12
        assert models_of(here).count("full") == 2
        assert manager.wait(job.id).all_succeeded
        assert here.emulator.payments().paid_twice == 0


def test_a_resource_that_refuses_our_key_is_avoided(tmp_path: Path) -> None:
    source, _ = input_of(tmp_path)
    targets: list[dict[str, Any]] = [
        {"deployment": "east", "azure_endpoint": "https://east.openai.azure.com", "api_key": "wrong"},
        {"deployment": "west", "azure_endpoint": "https://west.openai.azure.com"},
    ]
    with world(tmp_path, api_key="canary-key-3f9b0d7c5a") as here, here.manager() as manager:
        job = manager.submit(source, **here.azure, targets=targets, max_requests_per_shard=2)
        assert manager.wait(job.id).all_succeeded
        assert set(models_of(here)) == {"west"}


# ---------------------------------------------------------------- what only experience tells


@pytest.mark.parametrize("where", ["create", "validation"])
@pytest.mark.parametrize("service", [{"token_limit_named": False}, {"tokens_per_byte": 0.75}])
def test_a_shard_larger_than_the_service_ever_takes_is_halved_until_it_fits(
    service: dict[str, Any], where: Any, tmp_path: Path
) -> None:
    source, each = input_of(tmp_path)
    limit = 12 * each // 2
    with (
        world(tmp_path, enqueued_token_limit=limit, token_limit_at=where, **service) as here,
        here.manager() as manager,
    ):
        job = manager.submit(source, **here.azure)
        status = manager.wait(job.id, timeout=6 * 3600)
        assert status.all_succeeded
        assert len(status.shards) > 1
        assert [result.custom_id for result in manager.results(job.id)] == IDS
        assert here.emulator.payments().paid_twice == 0


def test_a_quota_that_others_hold_is_waited_for_without_cutting_what_would_fit(tmp_path: Path) -> None:
    source, _ = input_of(tmp_path)
    with world(tmp_path, faults=("create-token-limit",)) as here, here.manager() as manager:  # it names 30K
        job = manager.submit(source, **here.azure)
        for _ in range(60):
            here.clock.sleep(120)
            manager.advance()
        assert here.emulator.report()["calls"]["create"] > 50
        here.emulator.remove_faults("create-token-limit")
        assert len(manager.wait(job.id, timeout=10_000).shards) == 1


def test_a_single_request_that_is_never_taken_is_a_persons_matter_after_a_day(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", ["a"])
    settings: dict[str, Any] = {"enqueued_token_limit": 1, "token_limit_named": False}
    with world(tmp_path, **settings) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure)
        nearly_given_up = quota.REFUSALS_GIVEN_UP - 20
        with pytest.raises(WaitTimeout):
            manager.wait(job.id, timeout=3_600)
        (account, _), *_ = ledger.known(manager._store, [DEP]).values()
        assert 50 < account.refusals < 150
        ledger.remember(manager._store, replace(account, refusals=nearly_given_up))
        with pytest.raises(NeedsOperator, match="may be larger than the quota"):
            manager.wait(job.id, timeout=3_600)


def test_a_batch_that_finds_no_room_in_validation_leaves_no_file_behind(tmp_path: Path) -> None:
    source, each = input_of(tmp_path)
    with (
        world(tmp_path, enqueued_token_limit=7 * each // 2, token_limit_at="validation") as here,
        here.manager() as manager,
    ):
        job = manager.submit(source, **here.azure, max_requests_per_shard=1)
        assert manager.wait(job.id, timeout=100_000).all_succeeded
        inputs = [file for file in here.emulator.report()["files"] if file["purpose"] == "batch"]
        assert here.counts()["uploads"] > len(IDS)
        assert len(inputs) == len(IDS)


def test_openais_own_words_name_the_limit(tmp_path: Path) -> None:
    source, each = input_of(tmp_path)
    with (
        world(tmp_path, enqueued_token_limit=5 * each, token_limit_at="validation") as here,
        here.manager() as manager,
    ):
        job = manager.submit(source, "openai", api_key=SECRET_KEY)
        assert manager.wait(job.id, timeout=10_000).all_succeeded
        assert [limit for limit, _ in known(manager).values()] == [5 * each]


def test_a_retry_of_what_brought_nothing_is_cut_to_a_quota_learnt_since(tmp_path: Path) -> None:
    source, each = input_of(tmp_path)
    with (
        world(tmp_path, enqueued_token_limit=5 * each, faults=("batch-fail=model_not_found@1",)) as here,
        here.manager() as manager,
    ):
        job = manager.submit(source, **here.azure, max_requests_per_shard=4)
        manager.wait(job.id, timeout=100_000)
        ledger.remember(manager._store, Account(DEP, 2 * each), told=True)
        manager.retry(job.id)
        status = manager.wait(job.id, timeout=100_000)
        assert status.all_succeeded
        assert len(status.shards) > 3
        assert [result.custom_id for result in manager.results(job.id)] == IDS


def test_a_shard_too_large_for_the_healthy_target_is_cut_for_it(tmp_path: Path) -> None:
    source, each = input_of(tmp_path)
    targets: list[dict[str, Any]] = [
        {"deployment": "east", "azure_endpoint": "https://east.openai.azure.com", "api_key": "wrong"},
        {"deployment": "west", "azure_endpoint": "https://west.openai.azure.com"},
    ]
    limits = {"enqueued_token_limits": {"west": 5 * each}}
    with world(tmp_path, api_key=SECRET_KEY, **limits) as here, here.manager() as manager:
        ledger.remember(manager._store, Account("azure/west.openai.azure.com/west", 5 * each), told=True)
        job = manager.submit(source, **here.azure, targets=targets)
        assert manager.wait(job.id, timeout=100_000).all_succeeded
        assert set(models_of(here)) == {"west"}


def test_a_stated_quota_is_no_limit_for_a_single_request(tmp_path: Path) -> None:
    source, each = input_of(tmp_path)
    targets: list[dict[str, Any]] = [
        {"deployment": "large", "quota_tokens": 100_000},
        {"deployment": "small", "quota_tokens": each // 2},
    ]
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, **here.azure, targets=targets)
        assert manager.wait(job.id).all_succeeded
        assert set(models_of(here)) == {"large"}


def test_a_limit_not_named_for_a_day_is_tried_anew(tmp_path: Path) -> None:
    source, each = input_of(tmp_path)
    with world(tmp_path) as here, here.manager() as manager:
        ledger.remember(manager._store, Account(DEP, 5 * each), told=True)
        here.clock.sleep(86_401)
        job = manager.submit(source, **here.azure)
        assert len(manager.wait(job.id).shards) == 1
