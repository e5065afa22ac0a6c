"""One measurement of LangBatch, in its own virtual environment: `python theirs.py WORK ARGUMENT…`.

Only public methods are timed. A handle is made without its validation where that is not the work, and the
client's network calls are replaced by files where the network is not the work.
"""

from __future__ import annotations

import json
import logging
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonlines
from stopwatch import stopwatch

from langbatch.openai import OpenAIChatCompletionBatch

logging.disable(logging.CRITICAL)


class _Files:
    """A client whose batch has ended, and whose files lie on this disk."""

    def __init__(self, output: str, error: str) -> None:
        batch = SimpleNamespace(status="completed", output_file_id=output, error_file_id=error, errors=None)
        self.batches = SimpleNamespace(retrieve=lambda _id: batch)
        self.files = SimpleNamespace(content=lambda path: SimpleNamespace(content=Path(path).read_bytes()))


def _handle(source: str, client: Any, batch_id: str | None) -> OpenAIChatCompletionBatch:
    batch = OpenAIChatCompletionBatch.__new__(OpenAIChatCompletionBatch)
    batch._file, batch._client, batch.id = source, client, str(uuid.uuid4())
    batch.platform_batch_id = batch_id
    return batch


def validate(source: str) -> None:
    with stopwatch():
        OpenAIChatCompletionBatch(source, client=object())


def join(source: str, output: str, error: str, out: str) -> None:
    """It has no join: this is the least that its user must write for records in the input's order."""
    batch = _handle(source, _Files(output, error), "batch")
    Path(out).unlink(missing_ok=True)
    with stopwatch() as facts:
        successful, unsuccessful = batch.get_results()
        found = {result["custom_id"]: result for result in (*successful, *unsuccessful)}
        with jsonlines.open(source) as requests, jsonlines.open(out, mode="w") as records:
            for request in requests:
                records.write(found[request["custom_id"]])
        facts["records"] = len(found)


def retry(source: str, output: str, error: str) -> None:
    batch = _handle(source, _Files(output, error), "batch")
    with stopwatch() as facts:
        facts["records"] = len(batch.get_unsuccessful_requests())


def transfer(source: str, base_url: str) -> None:
    """Upload the input, create the batch, download what came of it."""
    import time

    from openai import OpenAI

    # It sends lines as they are, and names this url for the batch.
    rewritten = Path(source).with_suffix(".v1.jsonl")
    with open(source, encoding="utf-8") as given, open(rewritten, "w", encoding="utf-8") as kept:
        for line in given:
            kept.write(line.replace('"/chat/completions"', '"/v1/chat/completions"', 1))
    client = OpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=600)
    batch = _handle(str(rewritten), client, None)
    with stopwatch() as facts:
        batch.start()
        while batch.get_status() not in ("completed", "failed"):
            time.sleep(0.1)
        path = batch.get_results_file()
        facts["bytes"] = Path(path).stat().st_size
    rewritten.unlink()


if __name__ == "__main__":
    work = {"validate": validate, "join": join, "retry": retry, "transfer": transfer}
    try:
        work[sys.argv[1]](*sys.argv[2:])
    except Exception as error:  # noqa: BLE001 - what it cannot do is a finding, too
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"[:300]}))
