"""Run by `test_memory_stays_flat_over_a_large_batch` in a process of its own: prints the peak of its
memory in kilobytes after a batch of 2,000 and after one of 20,000 requests of 2 kB each."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from emulator.calls import BOUNDARY, Caller, form_bytes, request_line
from langbatch.emulator import Emulator, EmulatorConfig


def _upload_body(count: int) -> Iterator[bytes]:
    head, tail = form_bytes(b"<here>", fields={"purpose": "batch"}).split(b"<here>")
    yield head
    for number in range(count):
        yield request_line(f"t-{number}", pad="x" * 2_000)
    yield tail


def _peak_kilobytes() -> int:
    """Linux hands a parent's `ru_maxrss` down to its children, so its own counter is asked there."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def peak_after(caller: Caller, count: int) -> int:
    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    file = caller.call("POST", "/files", body=_upload_body(count), headers=kind).json()
    batch = caller.finish(caller.create(file["id"]).json()["id"])
    assert batch["request_counts"]["completed"] == count
    reply = caller.call("GET", f"/files/{batch['output_file_id']}/content")
    assert sum(map(len, reply.blocks())) == reply.length
    return _peak_kilobytes()


if __name__ == "__main__":
    with Emulator(EmulatorConfig.instant()) as emulator:
        caller = Caller(emulator, "openai", "")
        print(peak_after(caller, 2_000), peak_after(caller, 20_000))
