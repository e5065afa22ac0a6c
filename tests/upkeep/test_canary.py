"""The canary measures an endpoint, leaves nothing behind, and what it found decides how long is waited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from langbatch import NeedsOperator
from langbatch.config.resolving import resolve_target
from langbatch.providers import open_provider
from langbatch.providers.base import Provider
from langbatch.records import RemoteBatch, Target
from langbatch.store.store import JobStore
from langbatch.upkeep.canary import run_canary
from langbatch.upkeep.endpoint import EndpointFacts, keep_facts, known_facts
from support import World, requests_file, world

TARGET = Target("azure", "res.openai.azure.com", "chat_completions", "dep", {"api_version": "v1"})


def measure(here: World, **arguments: Any) -> EndpointFacts | None:
    with here.manager() as manager:
        return manager.doctor(**here.azure, model="dep", canary=True, **arguments).canary


def test_an_honest_endpoint_is_measured_for_nothing_and_left_clean(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        facts = measure(here)
        assert facts == EndpointFacts(True, 0.0, True, True, True)
        assert [b["status"] for b in here.emulator.report()["batches"]] in (["cancelling"], ["cancelled"])
        assert here.emulator.payments().paid == 0
        counts = here.counts()
        assert (counts["uploads"], counts["deletes"], counts["batches"]) == (2, 2, 1)
        store = JobStore.open(here.home)
        assert known_facts(store, TARGET) == facts
        assert known_facts(store, Target("azure", "other", "chat_completions")) == EndpointFacts()
        store.close()


def test_a_fence_that_holds_only_in_validation_holds(tmp_path: Path) -> None:
    with world(tmp_path, missing_file="fail") as here:
        facts = measure(here)
        assert facts is not None
        assert facts.fence_holds is True
        assert here.emulator.payments().paid == 0


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (("list-lag=7",), EndpointFacts(True, 8.0, True, True, True)),
        (("list-lag=100000",), EndpointFacts(True, None, None, None, True)),
        (("batch-metadata-null",), EndpointFacts(True, 0.0, True, False, True)),
        (("list-as-value",), EndpointFacts(True, 0.0, True, True, True)),
        (("create-500@1",), EndpointFacts(None, 0.0, True, True, True)),
        (("create-token-limit@1",), EndpointFacts(None, 0.0, True, True, True)),
        (("delete-file-html@1",), EndpointFacts(None, 0.0, True, True, True)),
    ],
)
def test_what_an_endpoint_does_otherwise_is_noticed(
    faults: tuple[str, ...], expected: EndpointFacts, tmp_path: Path
) -> None:
    with world(tmp_path, faults=faults) as here:
        assert measure(here) == expected


@dataclass
class Fenceless:
    """A service that forgets to look whether a batch's input file is still there."""

    real: Provider
    kept: set[str]

    def delete_file(self, file_id: str) -> None:
        self.kept.add(file_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def opened(here: World) -> Provider:
    arguments = {name: value for name, value in here.azure.items() if name != "provider"}
    return open_provider(*resolve_target("azure", "chat_completions", model="dep", **arguments))


def test_a_batch_made_in_spite_of_the_fence_is_noticed_and_cancelled(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        fenceless: Any = Fenceless(opened(here), set())
        facts = run_canary(fenceless, TARGET, "00000000", here.clock)
        assert facts.fence_holds is False
        assert len(fenceless.kept) == 2 or len(fenceless.kept) == 3
        batches = here.emulator.report()["batches"]
        assert len(batches) == 2
        assert all(batch["status"] in ("cancelling", "cancelled") for batch in batches)


@dataclass
class Nameless:
    """A service whose lists do not show what a batch reads."""

    real: Provider

    def list_batches(self, after: str | None = None) -> Any:
        from dataclasses import replace

        page = self.real.list_batches(after)
        bare: Mapping[str, Any] = {"input_file_id": None, "metadata": None}
        shown: tuple[RemoteBatch, ...] = tuple(replace(batch, **bare) for batch in page.batches)
        return replace(page, batches=shown)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def test_where_nothing_of_ours_is_listed_absence_proves_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        nameless: Any = Nameless(opened(here))
        facts = run_canary(nameless, TARGET, "00000000", here.clock)
        assert (facts.fence_holds, facts.input_file_id_listed, facts.metadata_listed) == (True, False, False)
        assert facts.absence_is_proof is False


@pytest.mark.parametrize("fault", ["upload-401-key", "create-404", "file-error", "create-committed-500@1"])
def test_a_canary_that_comes_to_nothing_is_a_problem_and_leaves_nothing(fault: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=(fault,)) as here, here.manager() as manager:
        diagnosis = manager.doctor(**here.azure, model="dep", canary=True)
        assert diagnosis.canary is None
        assert "came to nothing" in next(f.what for f in diagnosis if f.check == "canary")
        report = here.emulator.report()
        assert here.counts()["deletes"] == here.counts()["uploads"]
        assert all(batch["status"] in ("cancelling", "cancelled") for batch in report["batches"])
        assert here.emulator.payments().paid == 0


def test_an_azure_canary_needs_a_deployment(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        diagnosis = manager.doctor(**here.azure, canary=True)
        assert not diagnosis.healthy
        assert here.counts()["uploads"] == 0


def known(here: World, facts: EndpointFacts) -> None:
    store = JobStore.open(here.home)
    keep_facts(store, TARGET, facts)
    store.close()


@pytest.mark.parametrize(
    ("facts", "least", "most"),
    [
        (EndpointFacts(True, 2.0), 600, 900),
        (EndpointFacts(True, 500.0), 1800, 2400),
        (EndpointFacts(True, None), 1800, 2400),
        (EndpointFacts(), 1800, 2400),
    ],
)
def test_a_proven_fence_with_a_quick_list_makes_the_grace_period_short(
    facts: EndpointFacts, least: float, most: float, tmp_path: Path
) -> None:
    with world(tmp_path, faults=("create-drop@1",)) as here:
        with here.manager() as manager:
            manager.jobs()
        known(here, facts)
        began = here.clock.now()
        with here.manager() as manager:
            job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure)
            assert manager.wait(job.id).state == "completed"
        assert least <= here.clock.now() - began <= most


def test_the_users_own_grace_period_beats_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGBATCH_GRACE_SECONDS", "5000")
    with world(tmp_path, faults=("create-drop@1",)) as here:
        with here.manager() as manager:
            manager.jobs()
        known(here, EndpointFacts(True, 2.0))
        began = here.clock.now()
        with here.manager() as manager:
            manager.wait(manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure).id)
        assert here.clock.now() - began >= 5000


def test_without_a_fence_an_unknown_create_ends_at_a_person_and_not_in_a_second_batch(tmp_path: Path) -> None:
    with world(tmp_path, faults=("create-drop@1",)) as here:
        with here.manager() as manager:
            manager.jobs()
        known(here, EndpointFacts(False, 2.0))
        with here.manager() as manager:
            job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure)
            with pytest.raises(NeedsOperator, match="proves nothing"):
                manager.wait(job.id)
            assert here.counts()["batches"] == 0
            manager.resubmit(job.id)
            assert manager.wait(job.id).state == "completed"
        assert here.counts()["batches"] == 1
