"""The sample files do what their names say."""

from __future__ import annotations

from pathlib import Path

from input_files import AZURE, OPENAI, faults, intake_of
from support import world

SAMPLES = Path(__file__).parents[2] / "sample_batches"


def test_hello_is_five_good_chat_requests() -> None:
    intake = intake_of(SAMPLES / "hello.jsonl")
    assert (intake.total, intake.kind, intake.model) == (5, "chat_completions", "gpt-4o-mini-batch")
    assert (intake.problems, intake.warnings) == ((), ())


def test_invalid_lines_shows_ten_different_faults() -> None:
    intake = intake_of(SAMPLES / "invalid_lines.jsonl")
    assert faults(intake) == [
        (2, "invalid_json_line"),
        (3, "missing_custom_id"),
        (4, "duplicate_custom_id"),
        (5, "invalid_method"),
        (6, "unsupported_url"),
        (7, "invalid_body"),
        (8, "stream_not_supported"),
        (9, "model_mismatch"),
        (10, "invalid_number"),
        (11, "not_an_object"),
    ]
    assert (intake.total, intake.rejected) == (2, 10)


def test_embeddings_counts_every_input() -> None:
    for rules in (AZURE, OPENAI):
        intake = intake_of(SAMPLES / "embeddings.jsonl", rules)
        assert (intake.total, intake.kind, intake.embedding_inputs) == (3, "embeddings", 5)
        assert (intake.problems, intake.warnings) == ((), ())


def test_mixed_failures_ends_with_every_outcome_it_names(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(SAMPLES / "mixed_failures.jsonl", **here.azure)
        assert manager.wait(job.id).state == "completed"
        outcomes = {result.line: result.outcome for result in manager.results(job.id)}
    assert outcomes == {
        1: "succeeded",
        2: "errored",
        3: "succeeded",
        4: "errored",
        5: "expired",
        6: "missing",
        7: "unreadable",
        8: "succeeded",
        9: "errored",
        10: "succeeded",
    }
