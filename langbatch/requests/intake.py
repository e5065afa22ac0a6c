"""What one pass over an input found, in one value."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from langbatch.errors import BatchValidationError
from langbatch.records import EndpointKind, InputWarning, Problem
from langbatch.requests.lines import Fingerprint

#: Rough: English prose has about four bytes a token, JSON's punctuation and other scripts pull both ways.
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class ModelRun:
    """Consecutive accepted requests with one model; `first` counts from 0."""

    first: int
    count: int
    model: str


@dataclass(frozen=True, slots=True)
class ModelRuns:
    """Runs at eight bytes each, models by their place in `Intake.models`: every line may change it."""

    counts: array[int] = field(default_factory=lambda: array("I"))
    models: array[int] = field(default_factory=lambda: array("I"))

    def extend(self, model: int, count: int) -> None:
        if self.models and self.models[-1] == model:
            self.counts[-1] += count
        else:
            self.models.append(model)
            self.counts.append(count)


@dataclass(frozen=True, slots=True)
class Intake:
    """What one pass found.

    `bytes` and `sha256` are those of the user's file, which is hashed when first asked where nothing has
    copied it (`BatchValidationError` if it is gone or changed by then). `request_bytes` counts accepted
    lines with newlines.
    `total` counts accepted requests, `rejected` refused lines, `lines` all lines, blank ones included.
    `models` are those the accepted lines name, in order of appearance. `edited_lines` counts lines in which
    the target changes model or url.
    """

    kind: EndpointKind | None
    total: int
    rejected: int
    lines: int
    bytes: int
    models: tuple[str, ...]
    edited_lines: int
    problems: tuple[Problem, ...]
    warnings: tuple[InputWarning, ...]
    estimated_tokens: int
    max_line_bytes: int
    request_bytes: int
    embedding_inputs: int
    fingerprint: Fingerprint = field(repr=False, compare=False)
    runs: ModelRuns = field(repr=False, default_factory=ModelRuns)

    @property
    def sha256(self) -> str:
        return self.fingerprint.sha256()

    @property
    def model(self) -> str | None:
        """The one model of all lines; None where they have none or several."""
        return self.models[0] if len(self.models) == 1 else None

    @property
    def advice(self) -> str | None:
        """What to do about the problems; None where there are none."""
        if not self.problems:
            return None
        if self.total:
            return "mend the lines, or leave them out with --skip-invalid"
        if self.problems[0].code in ("not_an_object", "invalid_json_line"):
            return (
                "write one request, a JSON object, per line: `jq -c '.[]' FILE` makes such lines of an "
                "array, `jq -c . FILE` of objects over several lines"
            )
        return "mend the lines: none of them can be sent"

    def model_runs(self) -> Iterator[ModelRun]:
        """With `split_by_model`: where the model changes, in order. A shard must not cross a border."""
        first = 0
        for count, model in zip(self.runs.counts, self.runs.models, strict=True):
            yield ModelRun(first, count, self.models[model])
            first += count


def estimate_tokens(request_bytes: int, requests: int) -> int:
    """Input tokens of so many requests, roughly; for people, never for limits."""
    return max(requests, request_bytes // _BYTES_PER_TOKEN)


def refusal(intake: Intake) -> BatchValidationError:
    """The error that says what `intake.problems` hold: how many, and the first of them."""
    problems = intake.problems
    lines = len({problem.line for problem in problems})
    first = problems[0]
    more = f"; {len(problems) - 1} more" if len(problems) > 1 else ""
    return BatchValidationError(
        f"{lines} of {intake.lines} lines cannot be sent: line {first.line}: {first.message}{more}",
        problems,
        hint=intake.advice,
    )
