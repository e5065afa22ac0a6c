"""What was paid: how often each request was executed, over all batches there ever were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from langbatch.emulator.context import Context
from langbatch.emulator.progress import Progress

_COUNTED = "FROM executions AS e JOIN batches AS b ON b.seq = e.batch_seq WHERE e.position < b.executed_rows"


@dataclass(frozen=True, slots=True)
class Payment:
    """One request of one family of file names: how often it was run, and how often that cost tokens."""

    family: str
    custom_id: str
    executed: int
    paid: int


@dataclass(frozen=True, slots=True)
class Payments:
    """The bill. `paid_twice` counts requests of one family of file names that were paid more than once."""

    executed: int
    paid: int
    requests: int
    max_paid: int
    paid_twice: int
    examples: tuple[Payment, ...]


class Ledger:
    """Reads the executions. Open batches count as if they ran to their end, because they will, unless
    they were cancelled: then with the rows that were run by then."""

    def __init__(self, context: Context, progress: Progress) -> None:
        self._context = context
        self._progress = progress

    def payments(self, examples: int = 20) -> Payments:
        self._progress.settle_payments()
        grouped = (
            f"SELECT e.family AS family, e.custom_id AS custom_id, COUNT(*) AS executed, SUM(e.paid) AS paid "
            f"{_COUNTED} GROUP BY e.family, e.custom_id"
        )
        query = self._context.storage.query
        sums = query(
            "SELECT COALESCE(SUM(executed), 0), COALESCE(SUM(paid), 0), COUNT(*), COALESCE(MAX(paid), 0), "
            f"COALESCE(SUM(paid > 1), 0) FROM ({grouped})"
        )[0]
        worst = (
            query(f"SELECT * FROM ({grouped}) WHERE paid > 1 ORDER BY paid DESC LIMIT ?", (examples,))
            if sums[4]
            else []
        )
        executed, paid, requests, max_paid, twice = (int(str(value)) for value in sums)
        return Payments(executed, paid, requests, max_paid, twice, tuple(_payment(row) for row in worst))

    def each(self) -> Iterator[Payment]:
        """Every request that was executed, sorted by family and custom_id; read as it is asked for."""
        self._progress.settle_payments()
        rows = self._context.storage.stream(
            f"SELECT e.family, e.custom_id, COUNT(*), SUM(e.paid) {_COUNTED} "
            "GROUP BY e.family, e.custom_id ORDER BY e.family, e.custom_id"
        )
        return map(_payment, rows)


def _payment(row: tuple[object, ...]) -> Payment:
    family, custom_id, executed, paid = row
    return Payment(str(family), str(custom_id), int(str(executed)), int(str(paid)))
