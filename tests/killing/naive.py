"""A batch client as many are written: the SDK with its default retries, ids noted after the reply.

It exists to be caught. What it does after a crash is what its notes say, and a batch that was made but
not noted is made again. `submit FILE --max-requests-per-shard N` notes the shards, `resume` works on
all that have no results yet; the home is LANGBATCH_HOME.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langbatch import failpoints

POLL_SECONDS = 0.05


def main(arguments: Sequence[str]) -> int:
    home = Path(os.environ["LANGBATCH_HOME"])
    if arguments[0] == "submit":
        _submit(home, Path(arguments[1]), int(arguments[-1]))
    else:
        _resume(home)
    return 0


def unfinished(home: Path) -> list[Path]:
    """The shards without results."""
    return [path for path in sorted(home.glob("*.shard.jsonl")) if not _noted(path, "results").exists()]


def _submit(home: Path, source: Path, size: int) -> None:
    home.mkdir(exist_ok=True)
    lines = source.read_text().splitlines(keepends=True)
    for index, first in enumerate(range(0, len(lines), size)):
        shard = home / f"{source.stem}-{index:05d}.shard.jsonl"
        _write(shard, "".join(lines[first : first + size]))


def _resume(home: Path) -> None:
    from openai import AzureOpenAI

    client = AzureOpenAI(
        azure_endpoint=os.environ["AZURE_API_BASE"],
        api_key=os.environ["AZURE_API_KEY"],
        api_version=os.environ["AZURE_API_VERSION"],
    )
    with client:
        open_shards = unfinished(home)
        for shard in open_shards:
            if not _noted(shard, "batch").exists():
                _write(_noted(shard, "batch"), _start(client, shard))
        for shard in open_shards:
            _finish(client, shard, _noted(shard, "batch").read_text())


def _start(client: Any, shard: Path) -> str:
    with failpoints.around("call.upload"), shard.open("rb") as file:
        uploaded = client.files.create(file=(f"{shard.stem}-1.jsonl", file), purpose="batch")
    while client.files.retrieve(uploaded.id).status != "processed":
        time.sleep(POLL_SECONDS)
    with failpoints.around("call.create_batch"):
        batch = client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    return str(batch.id)


def _finish(client: Any, shard: Path, batch_id: str) -> None:
    while (batch := client.batches.retrieve(batch_id)).status != "completed":
        time.sleep(POLL_SECONDS)
    _write(_noted(shard, "results"), client.files.content(batch.output_file_id).text)


def _noted(shard: Path, what: str) -> Path:
    return shard.with_suffix(f".{what}")


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(text)
    temporary.rename(path)
