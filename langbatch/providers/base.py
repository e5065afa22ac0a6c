"""What langbatch asks of a batch service: nine verbs, each one HTTP exchange, none retried.

Retrying is the runner's business: it alone knows whether a call may be repeated, and it keeps the
waiting time in the store so that a restart does not forget it.

Every verb raises only `langbatch.errors.ProviderError` and its children:

| seen | raised |
|---|---|
| connection refused, DNS failure, connect timeout, TLS failure | `Unreachable` |
| 401, 403, no token from the identity library | `AccessRefused` |
| 429 | `Throttled`; on create with `token_limit_exceeded`: `QuotaFull` |
| 400 with `token_limit_exceeded` or `quotaExceeded` | `QuotaFull` |
| 404 | `RemoteNotFound` |
| 408 | `FateUnknown` |
| 409 | `FateUnknown` for `upload`, `create_batch`; `Refused` for others |
| other 4xx | `Refused` |
| 3xx, 5xx, read timeout, reset, garbled or mismatching 2xx | `FateUnknown` |
| a download that is short, HTML, or not the promised length | `BadDownload` |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO, Protocol

from langbatch.records import BatchPage, FilePage, Limits, RemoteBatch, RemoteFile


class Provider(Protocol):
    """One target, opened. Safe to use from several threads."""

    @property
    def name(self) -> str: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def waits_for_file(self) -> bool:
        """Whether a file must be seen `processed` before a batch may name it (Azure)."""

    def upload(self, filename: str, stream: BinaryIO, size_bytes: int) -> RemoteFile:
        """Send `stream` (a real file, read in blocks, never whole) as a batch input file."""

    def get_file(self, file_id: str) -> RemoteFile: ...

    def list_files(self, after: str | None = None) -> FilePage:
        """One page of input files, newest first where the service sorts."""

    def delete_file(self, file_id: str) -> None: ...

    def create_batch(self, input_file_id: str, metadata: Mapping[str, str]) -> RemoteBatch:
        """The one call that costs money. A reply naming another `input_file_id` is `FateUnknown`."""

    def get_batch(self, batch_id: str) -> RemoteBatch: ...

    def list_batches(self, after: str | None = None) -> BatchPage:
        """One page of up to 100 batches, newest first, starting behind the batch id `after`."""

    def cancel_batch(self, batch_id: str) -> RemoteBatch: ...

    def download(
        self, file_id: str, sink: BinaryIO, on_bytes: Callable[[int, int | None], None] | None = None
    ) -> int:
        """Stream a file's content into `sink`; bytes written. `on_bytes(done, total)` reports progress.

        Zero bytes are a legal file. Length is checked against Content-Length where given, and a body
        whose first byte is not `{` is refused; `sink` may then hold rubbish, which the caller drops.
        """

    def close(self) -> None: ...
