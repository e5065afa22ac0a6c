"""Ids, targets, processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from traceback import TracebackException

import pytest

from langbatch import SetupError, chat_completion_batch, processes
from langbatch.ids import new_job_id
from langbatch.records import Target
from langbatch.targets import reuse_key

TARGET = Target("azure", "host.example", "chat_completions", "dep", {"api_version": "2024-10-21"})


def test_job_ids_sort_by_the_time_they_were_made_and_never_repeat() -> None:
    ids = [new_job_id(1_700_000_000 + n) for n in range(50)]
    assert ids == sorted(ids)
    assert all(len(i) == len("job_") + 26 for i in ids)
    assert len({new_job_id(1.0) for _ in range(100)}) == 100


def test_the_same_target_is_told_by_host_and_deployment_and_not_by_version_or_letter_case() -> None:
    same = replace(TARGET, host="HOST.example", settings={"api_version": "v1"})
    assert reuse_key("aa", TARGET) == reuse_key("aa", same)
    for other in (replace(TARGET, model="x"), replace(TARGET, host="y"), replace(TARGET, kind="embeddings")):
        assert reuse_key("aa", TARGET) != reuse_key("aa", other)
    assert reuse_key("ab", TARGET) != reuse_key("aa", TARGET)


def test_a_live_process_is_not_gone_and_an_ended_one_is() -> None:
    assert not processes.is_gone(processes.identity())
    code = "from langbatch import processes; print(processes.identity())"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert processes.is_gone(ended)


def test_a_holder_on_another_machine_is_never_called_gone() -> None:
    assert not processes.is_gone("elsewhere/boot|1|1|abcd")
    assert not processes.is_gone("garbage")


def test_a_handle_that_was_never_made_can_be_shown_by_an_error_reporter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGBATCH_HOME", str(tmp_path / "home"))
    with pytest.raises(SetupError) as caught:
        chat_completion_batch(tmp_path / "in.jsonl", "azure")
    shown = TracebackException.from_exception(caught.value, capture_locals=True)
    assert any("<ChatCompletionBatch, not made>" in line for line in shown.format())
