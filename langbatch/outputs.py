"""What a handle gives of its results: typed answers, files and DataFrames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from langbatch.errors import BatchInitializationError

if TYPE_CHECKING:
    from langbatch.manager import JobManager
    from langbatch.results.answers import Answer
    from langbatch.results.result import Result

T = TypeVar("T")


class Outputs:
    """The part of a handle that hands out results; `handles.Batch` is the rest."""

    id: str
    _manager: JobManager

    def _require_stored(self) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, id: str, *, manager: JobManager | None = None) -> Self:  # noqa: A002 - LangBatch's word
        raise NotImplementedError

    def answers(
        self,
        model: type[T],
        *,
        follow_ups: Sequence[Outputs] = (),
        with_request: bool = False,
        partial: bool = False,
    ) -> Iterator[Answer[T]]:
        """Each result with its answer as `model`, a pydantic model or any type that pydantic validates;
        in input order, streamed. What does not fit has `misfit`, and keeps its text in `result`.

        `follow_ups`: what `ask_again` gave, each made from the one before; their answers stand in for the
        unfit ones.
        """
        from langbatch.results.answers import answers, with_follow_ups

        self._require_stored()
        results = self._manager.results(self.id, with_request=with_request, partial=partial)
        own = answers(results, model)
        if not follow_ups:
            return own
        first, *others = follow_ups
        later = first.answers(model, follow_ups=others, with_request=with_request, partial=partial)
        return with_follow_ups(own, later)

    def ask_again(
        self,
        model: Any = None,
        *,
        where: Callable[[Result], bool] | None = None,
        changes: Mapping[str, Any] | None = None,
        new: bool = False,
    ) -> Self:
        """A new job, started, with the requests whose successful answers do not fit `model`, or whose results
        `where` chooses. It costs what it asks; this job's results stay as they are.

        `changes` go into each body (`{"max_completion_tokens": 4000}`); None takes a key away. The same
        requests are the same job: calling again changes and costs nothing, unless `new`. Raises
        `BatchStateError` where every answer fits, and what `start` raises.
        """
        from langbatch.again import does_not_fit

        if (model is None) is (where is None):
            raise BatchInitializationError("one of model and where is needed: which answers to ask for again")
        self._require_stored()
        choose = where or does_not_fit(model)
        submission = self._manager.ask_again(self.id, choose, changes=changes, new=new)
        return type(self).load(submission.id, manager=self._manager)

    def export(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,  # noqa: A002 - the word users write
        *,
        flatten: bool = False,
        with_request: bool = False,
        partial: bool = False,
    ) -> Path:
        """Write the results to `path`, over what is there. `format`: jsonl, csv or parquet; None: by the
        file's ending. `flatten`: a column for each part of the answers that are JSON."""
        self._require_stored()
        target = Path(path)
        self._manager.export(
            self.id, target, format=format, flatten=flatten, with_request=with_request, partial=partial
        )
        return target

    def to_pandas(self, *, flatten: bool = True, with_request: bool = False, partial: bool = False) -> Any:
        """The results as a `pandas.DataFrame`, whole in memory: a column for each part of the answers that
        are JSON, unless `flatten` is False. Needs `langbatch-manager[pandas]`."""
        self._require_stored()
        return self._manager.dataframe(
            self.id, "pandas", flatten=flatten, with_request=with_request, partial=partial
        )

    def to_polars(self, *, flatten: bool = True, with_request: bool = False, partial: bool = False) -> Any:
        """As `to_pandas`, a `polars.DataFrame`; lists in answers are JSON text. Needs
        `langbatch-manager[polars]`."""
        self._require_stored()
        return self._manager.dataframe(
            self.id, "polars", flatten=flatten, with_request=with_request, partial=partial
        )
