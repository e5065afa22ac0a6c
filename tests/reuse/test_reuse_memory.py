"""Comparing, parting and laying together again takes no more memory for a file of any size."""

from __future__ import annotations

import tempfile

from measuring import peak_megabytes

#: Plans a job of so many requests of 2 kB, half of which repeat others and a tenth of which were answered
#: before; then reads all its results.
SCRIPT = """
import json, sys
from array import array
from pathlib import Path
from langbatch.folders import JobFolder
from langbatch.publish import private_folder
from langbatch.records import Target
from langbatch.reuse.cache import Answer, Cache, index_path, write_index
from langbatch.reuse.digests import answerer, body_digest, question
from langbatch.reuse.expansion import Expansion, JoinedShard
from langbatch.reuse.parting import part
from langbatch.shards.snapshot import Snapshot, SnapshotWriter

home, count = Path(sys.argv[1]), int(sys.argv[2])
target = Target("azure", "res", "chat_completions", "dep")
text = "x" * 2000
def line(number, custom_id):
    body = {"messages": [{"role": "user", "content": f"{number} {text}"}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/x", "body": body}).encode() + b"\\n"
def record(number):
    return b'{"custom_id": "q%d", "outcome": "succeeded", "line": 1, "attempt": 1, "response": null, "error": null}\\n' % number

earlier = JobFolder.of(home, "job_1")
private_folder(earlier.joined(0).parent)
who = answerer(target, None)
def answers(out):
    offset = 0
    for number in range(0, count // 2, 5):
        found = record(number)
        out.write(found)
        yield Answer(question(body_digest(line(number, "q"))[0], who), 0, offset, found)
        offset += len(found)
with earlier.joined(0).open("wb") as out:
    write_index(index_path(home / "cache", "job_1"), answers(out), 1)

folder = home / "jobs" / "job_2"
with SnapshotWriter(folder) as writer:
    for at in range(0, count, 500):
        lines = [line(number % (count // 2), f"r{number}") for number in range(at, at + 500)]
        ids = [json.dumps(f"r{number}").encode() for number in range(at, at + 500)]
        writer.add(lines, array("I", map(len, lines)), array("I", range(at, at + 500)), ids)
    writer.close()
found = part(folder, [target], dedupe=True, cache=Cache(home, [index_path(home / "cache", "job_1")]))
assert (found.counts.sent, found.counts.copies, found.counts.answered) == (count * 4 // 10, count * 4 // 10, count // 5)
joined = JobFolder(folder).joined(0)
private_folder(joined.parent)
with joined.open("wb") as out:
    for number in range(found.counts.sent):
        out.write(record(number))
shards = [JoinedShard(0, found.counts.sent, joined)]
assert sum(each is not None for each in Expansion(JobFolder(folder), shards).records()) == count
"""


def test_peak_memory_stays_flat_from_20_to_200_megabytes() -> None:
    peaks = {}
    for count in (10_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            peaks[count] = peak_megabytes(SCRIPT, folder, count)
    assert peaks[10_000] < 120
    assert peaks[100_000] - peaks[10_000] < 20 + 40 * 90_000 / 1e6, peaks
    print(peaks)
