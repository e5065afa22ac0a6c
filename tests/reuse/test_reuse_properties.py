"""Whatever is equal, failed, answered before or cut into shards: each request ends as if it had been sent alone."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from langbatch.emulator import RowError
from reuse.asking import check, paid_ids, say, written
from support import world

SAYINGS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=14)


@settings(max_examples=15)
@given(
    earlier=st.lists(SAYINGS, max_size=2),
    sayings=SAYINGS,
    failing=st.sets(st.sampled_from("abcdefgh"), max_size=4),
    per_shard=st.integers(1, 5),
    dedupe=st.booleans(),
    cache=st.booleans(),
    purged=st.booleans(),
)
def test_each_request_ends_as_it_would_alone_and_nothing_is_paid_that_was_there(
    earlier: list[list[str]],
    sayings: list[str],
    failing: set[str],
    per_shard: int,
    dedupe: bool,
    cache: bool,
    purged: bool,
) -> None:
    refused = set(failing)

    def answer(body: dict[str, Any], custom_id: str) -> str | RowError:
        saying = body["messages"][0]["content"]
        return RowError(400, f"refused_{saying}") if saying in refused else say(body, custom_id)

    def ends(sayings: list[str]) -> list[tuple[str | None, str | None]]:
        """Text and error code of each request, had it been sent alone."""
        return [
            (None, f"refused_{saying}") if saying in refused else (f"said {saying}", None)
            for saying in sayings
        ]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with world(folder, answer=answer) as here, here.manager() as manager:
            known: set[str] = set()
            wishes: dict[str, Any] = {**here.azure, "max_requests_per_shard": per_shard, "dedupe": dedupe}
            before = []
            for number, asked in enumerate(earlier):
                source = written(folder / f"{number}.jsonl", asked, name=f"e{number}")
                job = manager.submit(source, cache=cache, **wishes)
                manager.wait(job.id)
                check(manager, job.id, asked, name=f"e{number}")
                known |= set(asked) - refused
                before.append(job.id)

            def ended() -> None:
                check(manager, job.id, sayings)
                results = list(manager.results(job.id))
                assert [(r.text, r.error.code if r.error else None) for r in results] == ends(sayings)

            def newly_sent() -> Counter[str]:
                """What was run for this job so far, by what it asks."""
                return Counter(
                    sayings[int(custom_id.removeprefix("task-"))]
                    for custom_id in paid_ids(here)
                    if custom_id.startswith("task-")
                )

            job = manager.submit(written(folder / "in.jsonl", sayings), cache=cache, start=False, **wishes)
            for job_id in before if purged else ():
                manager.purge(job_id)
            manager.wait(job.id)
            ended()
            times = Counter(saying for saying in sayings if not (cache and saying in known))
            assert newly_sent() == (Counter(set(times)) if dedupe else times)
            if refused & set(sayings):
                again = {name for name in paid_ids(here) if name.startswith("task-")}
                refused.clear()
                manager.retry(job.id)
                manager.wait(job.id)
                ended()
                assert {name for name in paid_ids(here) if name.startswith("task-")} == again
            assert manager.status(job.id).all_succeeded
            assert max(paid_ids(here).values(), default=0) <= 1
