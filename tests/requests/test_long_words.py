"""Pictures in base64 are words of a million letters: nothing may try them anew from each letter."""

from __future__ import annotations

from pathlib import Path

from langbatch import JobManager
from support import chat_line


def test_a_word_of_two_million_letters_is_read_to_its_end(tmp_path: Path) -> None:
    """Searched quadratically it would take days."""
    source = tmp_path / "in.jsonl"
    long = "A" * 2_000_000
    source.write_text("".join(chat_line(f"task-{n}", extra=f"{word}") + "\n" for n, word in enumerate(
        (long, f"{long}=", f"data:image/png;base64,{long}", f"api_key {long}", f"{long}JQQJ99", f"sk-{long[:15]}!{long}")
    )))  # fmt: skip
    with JobManager(tmp_path / "home") as manager:
        intake = manager.validate(source)
    assert intake.total == 6
    assert "possible_secret" not in {warning.code for warning in intake.warnings}
