"""What the client gets to see of the service: calls that take time, and replies that get lost or bent."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import BinaryIO, TypeVar

from langbatch import failpoints
from langbatch.errors import (
    AccessRefused,
    BadDownload,
    FateUnknown,
    ProviderError,
    QuotaFull,
    Refused,
    RemoteNotFound,
    Throttled,
    Unreachable,
)
from langbatch.providers.limits import AZURE_LIMITS
from langbatch.records import BatchPage, FilePage, Limits, RemoteBatch, RemoteFile
from simulation.batches import StoredBatch, StoredFile
from simulation.faults import FaultPlan
from simulation.service import SimulatedService
from simulation.stage import VirtualClock

T = TypeVar("T")

#: Small pages, so that lists of a few batches are walked as lists of many are.
_PAGE = 3


class SimulatedProvider:
    """The `Provider` protocol over the simulated service, for one process."""

    name = "simulated"

    def __init__(
        self,
        service: SimulatedService,
        plan: FaultPlan,
        clock: VirtualClock,
        rng: random.Random,
        rest: Callable[[float], None],
        note: Callable[[str], None],
    ) -> None:
        self.waits_for_file = True
        self._service = service
        self._plan = plan
        self._clock = clock
        self._rng = rng
        self._rest = rest
        self._note = note

    @property
    def limits(self) -> Limits:
        return AZURE_LIMITS

    def close(self) -> None:
        pass

    # ------------------------------------------------------------ one call

    def _call(self, verb: str, exchange: Callable[[str | None], T]) -> T:
        """One exchange as the adapter makes it: it takes time, and both its ends are places to die at."""
        failpoints.reached(f"call.{verb}.before")
        knob = self._plan.draw(verb)
        self._rest(self._rng.uniform(0.02, 0.3))
        self._service.catch_up()
        answer: T | None = None
        trouble: ProviderError | None = None
        try:
            if knob is not None and (trouble := self._refused_at_the_door(knob)) is None:
                answer = exchange(knob)
            elif knob is None:
                answer = exchange(None)
        except ProviderError as error:
            trouble = error
        outcome = type(trouble).__name__ if trouble else "ok"
        self._note(f"{verb} {knob or '-'} {outcome}")
        if isinstance(trouble, FateUnknown) and self._rng.random() < 0.3:
            # A reply that does not come is waited for; it takes the client's whole timeout to know.
            self._rest(self._rng.choice((10.0, 25.0, 600.0)))
        failpoints.reached(f"call.{verb}.after")
        if trouble is not None:
            raise trouble
        assert answer is not None
        return answer

    def _refused_at_the_door(self, knob: str) -> ProviderError | None:
        """Trouble that keeps a call from having any effect, by the last word of its knob."""
        match knob.rpartition("_")[2]:
            case "unreachable":
                return Unreachable("simulated: connection refused")
            case "throttled":
                return Throttled(
                    "simulated", retry_after_seconds=self._rng.choice((None, 1.0, 120.0, 3_600.0))
                )
            case "access":
                return AccessRefused("simulated", status=401)
            case "trouble":
                advice = self._rng.choice((None, None, 60.0))
                return FateUnknown("simulated: 503", status=503, retry_after_seconds=advice)
            case "quota":
                return QuotaFull("simulated", status=400, code="quotaExceeded")
            case "path":
                return RemoteNotFound("Resource not found", status=404, code="404")
            case "refused":
                return Refused("simulated: refused", status=409 if knob == "cancel_refused" else 400)
            case _:
                pass
        if knob.endswith("_drop") and not knob.endswith("_committed_drop"):
            return FateUnknown("simulated: connection reset before it arrived")
        if knob in ("get_file_404", "poll_404", "download_404"):
            return RemoteNotFound("simulated: not found", status=404, code="notFound")
        if knob == "create_no_file":
            return RemoteNotFound("simulated: no such file", status=404, code="notFound")
        if knob == "create_no_deployment":
            return RemoteNotFound("simulated", status=404, code="DeploymentNotFound")
        return None

    # ------------------------------------------------------------ files

    def upload(self, filename: str, stream: BinaryIO, size_bytes: int) -> RemoteFile:
        content = stream.read()

        def exchange(knob: str | None) -> RemoteFile:
            if knob == "upload_late":
                wait = self._rng.choice((30.0, 900.0))
                self._service.arrives_late(wait, lambda at: self._service.put_file(filename, content, at))
                raise FateUnknown("simulated: timeout")
            file = self._service.put_file(filename, content, self._clock.now(), knob)
            if knob == "upload_committed_drop":
                raise FateUnknown("simulated: the reply was lost")
            return self._service.show_file(file)

        return self._call("upload", exchange)

    def get_file(self, file_id: str) -> RemoteFile:
        return self._call("get_file", lambda _: self._service.show_file(self._service.known_file(file_id)))

    def list_files(self, after: str | None = None) -> FilePage:
        def exchange(knob: str | None) -> FilePage:
            now = self._clock.now()
            shown = [f for f in self._service.files.values() if f.listed_at <= now < f.deleted_at]
            page, more = _page(sorted(shown, key=lambda f: f.id, reverse=True), after, lambda f: f.id)
            files = tuple(self._service.show_file(file) for file in page)
            return FilePage(files, None if knob == "list_files_partial" else more, self._date())

        return self._call("list_files", exchange)

    def delete_file(self, file_id: str) -> None:
        def exchange(knob: str | None) -> bool:
            self._service.delete_file(file_id)
            if knob == "delete_committed_drop":
                raise FateUnknown("simulated: the reply was lost")
            return True

        self._call("delete_file", exchange)

    # ------------------------------------------------------------ batches

    def create_batch(self, input_file_id: str, metadata: Mapping[str, str]) -> RemoteBatch:
        def make(at: float) -> StoredBatch:
            return self._service.make_batch(input_file_id, metadata, at)

        def exchange(knob: str | None) -> RemoteBatch:
            if knob == "create_late":
                wait = self._rng.choice((20.0, 300.0, 2_000.0, 20_000.0))
                self._service.arrives_late(wait, make, input_file_id)
                raise FateUnknown("simulated: timeout")
            if knob == "create_late_unchecked":
                # The service takes it, and looks for the file only when it validates the batch.
                self._service.arrives_late(
                    self._rng.choice((200.0, 400.0)),
                    lambda at: self._service.make_batch(input_file_id, metadata, at, unchecked=True),
                    input_file_id,
                )
                raise FateUnknown("simulated: timeout")
            batch = make(self._clock.now())
            if knob == "create_committed_drop":
                raise FateUnknown("simulated: the reply was lost")
            return self._show(batch)

        return self._call("create_batch", exchange)

    def get_batch(self, batch_id: str) -> RemoteBatch:
        def exchange(knob: str | None) -> RemoteBatch:
            batch = self._service.known_batch(batch_id)
            # A cache on the way may answer with what was true a while ago.
            behind = 120.0 if knob == "poll_stale" else 0.0
            return batch.as_seen(max(batch.created_at, self._clock.now() - behind), self._service.skew)

        return self._call("get_batch", exchange)

    def list_batches(self, after: str | None = None) -> BatchPage:
        def exchange(knob: str | None) -> BatchPage:
            shown = self._service.listed_batches()
            page, more = _page(shown, None if knob == "list_repeats" else after, lambda b: b.id)
            has_more: bool | None = more
            if knob == "list_no_has_more":
                has_more = None
            elif knob == "list_partial":
                page, has_more = page[:1], True
                if after is not None:
                    raise FateUnknown("simulated: the list broke off")
            elif knob == "list_repeats":
                has_more = True
            return BatchPage(tuple(self._show(batch) for batch in page), has_more, self._date())

        return self._call("list_batches", exchange)

    def cancel_batch(self, batch_id: str) -> RemoteBatch:
        def exchange(knob: str | None) -> RemoteBatch:
            batch = self._service.cancel_batch(batch_id)
            if knob == "cancel_committed_drop":
                raise FateUnknown("simulated: the reply was lost")
            return self._show(batch)

        return self._call("cancel_batch", exchange)

    def download(
        self, file_id: str, sink: BinaryIO, on_bytes: Callable[[int, int | None], None] | None = None
    ) -> int:
        def exchange(knob: str | None) -> int:
            file = self._service.known_file(file_id)
            content = self._cut(file, knob)
            if knob == "download_bad":
                sink.write(content[: len(content) // 2])
                raise BadDownload("simulated: shorter than promised")
            sink.write(content)
            return len(content) or -1

        return max(0, self._call("download", exchange))

    def _cut(self, file: StoredFile, knob: str | None) -> bytes:
        """A body that ends early without a word from HTTP: only a completed batch's counts can tell."""
        batch = next((b for b in self._service.batches.values() if file in (b.output, b.error)), None)
        if batch is None or not batch.honest() or not file.content:
            return file.content
        # What two fetches in a row say against the counts is believed at the third, whichever file was cut.
        if sum(cut.silent_cuts for cut in (batch.output, batch.error) if cut is not None) >= 2:
            return file.content
        rows = file.content.splitlines(keepends=True)
        if knob == "download_rows_left_out":
            file.silent_cuts += 1
            return b"".join(rows[:-1])
        if knob == "download_cut_in_a_row":
            file.silent_cuts += 1
            return file.content[: -len(rows[-1]) // 2]
        return file.content

    # ------------------------------------------------------------ parts of replies

    def _show(self, batch: StoredBatch) -> RemoteBatch:
        return batch.as_seen(self._clock.now(), self._service.skew)

    def _date(self) -> float | None:
        return self._clock.now() + self._service.skew


def _page(items: list[T], after: str | None, key: Callable[[T], str]) -> tuple[list[T], bool]:
    start = 0
    if after is not None:
        start = next((place + 1 for place, item in enumerate(items) if key(item) == after), len(items))
    return items[start : start + _PAGE], start + _PAGE < len(items)


class NaiveProvider(SimulatedProvider):
    """A client that sends its POST again when no reply comes, as the SDK's defaults do. Must be caught."""

    def create_batch(self, input_file_id: str, metadata: Mapping[str, str]) -> RemoteBatch:
        for _ in range(2):
            try:
                return super().create_batch(input_file_id, metadata)
            except FateUnknown:
                continue
        return super().create_batch(input_file_id, metadata)


class UnfencedProvider(SimulatedProvider):
    """A client that believes a batch absent without having deleted its input file. Must be caught."""

    def delete_file(self, file_id: str) -> None:
        pass
