"""What must be true once a campaign's jobs are done, and the counts that show whether it is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from killing.ground import KEY, PROMPT, Ground
from killing.processes import Child
from langbatch import BatchResultsError, JobManager, Result
from langbatch.results.result import read_results


@dataclass(slots=True)
class Audit:
    """Four zeros and what they were counted over. Audits add up."""

    jobs: int = 0
    shards: int = 0
    requests: int = 0
    batches: int = 0
    #: Requests that were paid more than once, whatever file or job they were sent in.
    paid_twice: int = 0
    #: Batches of the service that the store does not know.
    ids_lost: int = 0
    #: Requests without a result, and results that say `missing` of a request that the service ran, or of
    #: one in a job that nobody cancelled.
    rows_lost: int = 0
    #: Results beyond the first of a request, and those that are out of order or another's.
    rows_doubled: int = 0
    #: Input files that the store knows no attempt for, or whose attempt came to nothing. They cost nothing.
    orphan_files: int = 0
    #: Shards that a person had to settle.
    operator_stops: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    moves: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Audit) -> Audit:
        for entry in fields(self):
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))
        return self

    @property
    def zeros(self) -> tuple[int, int, int, int]:
        """Paid twice, ids lost, rows lost, rows doubled."""
        return self.paid_twice, self.ids_lost, self.rows_lost, self.rows_doubled


def audit(ground: Ground, inputs: Mapping[str, Sequence[str]]) -> Audit:
    """Compare results, store and service. `inputs`: each input file's name with its requests' ids, which
    no other file has."""
    report = ground.server.emulator.report()
    paid = payments(ground)
    found = Audit(
        jobs=len(inputs),
        requests=sum(map(len, inputs.values())),
        batches=report["counts"]["batches"],
        paid_twice=sum(times > 1 for times in paid.values()),
        faults=Counter(ground.server.emulator.faults_fired()),
    )
    known = {row[0] for row in ground.rows("SELECT batch_id FROM attempts")}
    # Of several batches on one file one is adopted, the others are written down.
    known |= {row[0].split()[0] for row in ground.rows("SELECT note FROM events WHERE move = 'extra_batch'")}
    found.ids_lost = sum(batch["id"] not in known for batch in report["batches"])
    used = {row[0] for row in ground.rows("SELECT file_id FROM attempts WHERE batch_id IS NOT NULL")}
    files = [file for file in report["files"] if file["purpose"] == "batch"]
    found.orphan_files = sum(file["id"] not in used for file in files)
    found.shards = ground.rows("SELECT count(*) FROM shards")[0][0]
    found.moves = Counter(dict(ground.rows("SELECT move, count(*) FROM events GROUP BY move")))
    found.operator_stops = ground.rows(
        "SELECT count(*) FROM events WHERE \"to\" = 'needs_operator' AND shard IS NOT NULL"
    )[0][0]
    with JobManager(ground.home) as manager:
        jobs = {status.input: status for status in manager.jobs()}
        assert set(jobs) == set(inputs)
        for name, ids in inputs.items():
            assert jobs[name].finished, f"{name} is {jobs[name].state}"
            ran = set() if jobs[name].state == "cancelled" else set(ids)
            lost, doubled = _compare(manager, jobs[name].id, ids, ran | {*paid})
            found.rows_lost += lost
            found.rows_doubled += doubled
    return found


def _compare(manager: JobManager, job_id: str, ids: Sequence[str], ran: set[str]) -> tuple[int, int]:
    """Requests without a result that answers them, and results too many or in a wrong place."""
    got: list[str] = []
    unanswered = strangers = 0
    for result in _results(manager, job_id):
        got.append(result.custom_id)
        unanswered += result.outcome == "missing" and result.custom_id in ran
        strangers += result.text not in (None, f"answer to {result.custom_id}")
    lost = len(set(ids) - set(got)) + unanswered
    doubled = len(got) - len(set(got)) + strangers
    if got != list(ids) and not lost and not doubled:
        doubled = sum(one != other for one, other in zip(got, ids, strict=True))
    return lost, doubled


def _results(manager: JobManager, job_id: str) -> list[Result]:
    try:
        return list(manager.results(job_id))
    except BatchResultsError:
        # Refused as damaged. What is there is counted all the same.
        return list(read_results(sorted((manager.home / "jobs" / job_id / "joined").iterdir())))


def payments(ground: Ground) -> Counter[str]:
    """How often each request was paid, by custom_id over everything that was ever sent: stricter than
    the emulator's own count, which tells jobs apart."""
    paid: Counter[str] = Counter()
    for payment in ground.server.emulator.each_payment():
        paid[payment.custom_id] += payment.paid
    return +paid


#: A killed process says nothing; one that ends by itself ends with one of the documented codes.
KNOWN_CODES = frozenset({0, 2, 4, 5, 6, 7, 8})


def check_manners(child: Child) -> None:
    """A process that was not killed ended as the contract says: no traceback, no unexpected error, no
    prompt and no key."""
    said = child.out + child.err
    assert KEY not in said
    assert PROMPT not in said
    assert "Traceback" not in said, said
    if not child.killed:
        assert child.code in KNOWN_CODES, f"{child.life} ended with {child.code}: {child.err}"


def document(child: Child) -> dict[str, object]:
    """The JSON document a command printed."""
    read: dict[str, object] = json.loads(child.out)
    return read
