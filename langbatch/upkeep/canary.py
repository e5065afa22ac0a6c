"""What only a live endpoint can tell, measured with one request that is cancelled before it runs.

After a lost reply, langbatch lists batches and deletes the input file, so that a create still under way must
fail. How late a list is, whether it echoes what a batch is recognised by, and whether that fence holds are
documented nowhere (wire reference, 3): `langbatch doctor --canary` tries it, for under a cent.
"""

from __future__ import annotations

import io
import json
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langbatch.clock import Clock
from langbatch.errors import FateUnknown, ProviderError, QuotaFull, Refused, RemoteNotFound
from langbatch.providers.base import Provider
from langbatch.records import ENDPOINT_PATHS, EndpointKind, RemoteBatch, RemoteFile, Target
from langbatch.running import decisions as d
from langbatch.running.creating import tags
from langbatch.running.fate import TAG
from langbatch.running.reconcile import search_batches
from langbatch.upkeep.endpoint import EndpointFacts

if TYPE_CHECKING:
    pass

#: How long a file may take to be processed, and a batch to be listed, before the canary gives up waiting.
FILE_SECONDS = 600.0
LAG_SECONDS = 120.0
#: A batch made in spite of the fence may yet fail in validation, which costs nothing.
VALIDATION_SECONDS = 120.0
_LOOK_SECONDS = 2.0
#: How far back the list must be readable: no reply is doubted for longer.
_READ_BACK_SECONDS = 2 * 86_400.0

_BODIES: Mapping[EndpointKind, Mapping[str, Any]] = {
    "chat_completions": {"messages": [{"role": "user", "content": "Say ok."}]},
    "responses": {"input": "Say ok."},
    "completions": {"prompt": "Say ok.", "max_tokens": 5},
    "embeddings": {"input": "ok"},
}


def run_canary(provider: Provider, target: Target, store_id: str, clock: Clock) -> EndpointFacts:
    """Measure the endpoint. Its batches are cancelled and its files deleted, also after an error.

    Raises `ProviderError` where the endpoint does not let the measurement begin: an upload or the create is
    refused, or a file is never processed.
    """
    return _Canary(provider, target, store_id, clock).run()


@dataclass(slots=True)
class _Canary:
    provider: Provider
    target: Target
    store_id: str
    clock: Clock

    def run(self) -> EndpointFacts:
        files: list[str] = []
        batches: set[str] = set()
        try:
            names = [f"lb-{self.store_id}-canary-{secrets.token_hex(6)}.jsonl" for _ in range(2)]
            files += [self._upload(name) for name in names]
            for file_id in files:
                self._until_processed(file_id)
            fence = self._try_fence(files[1], names[1], batches)
            listed, lag = self._list_one(files[0], names[0], batches)
            now = self.clock.now()
            walk = search_batches(self.provider.list_batches, lambda _: False, now - _READ_BACK_SECONDS, now)
            return EndpointFacts(
                fence_holds=fence,
                list_lag_seconds=lag,
                input_file_id_listed=None if listed is None else listed.input_file_id == files[0],
                metadata_listed=None if listed is None else (listed.metadata or {}).get(TAG) == names[0],
                list_complete=walk.complete,
            )
        finally:
            for batch_id in batches:
                with suppress(ProviderError):
                    self.provider.cancel_batch(batch_id)
            for file_id in files:
                with suppress(ProviderError):
                    self.provider.delete_file(file_id)

    def _upload(self, name: str) -> str:
        body = {**_BODIES[self.target.kind]}
        if self.target.model is not None:
            body = {"model": self.target.model, **body}
        url = "/v1" + ENDPOINT_PATHS[self.target.kind]
        line = (
            json.dumps({"custom_id": "canary", "method": "POST", "url": url, "body": body}).encode() + b"\n"
        )
        # A real file: the SDK asks for its descriptor.
        with tempfile.TemporaryFile() as stream:
            stream.write(line)
            stream.seek(0, io.SEEK_SET)
            return self.provider.upload(name, stream, len(line)).id

    def _until_processed(self, file_id: str) -> None:
        began = self.clock.monotonic()
        while not self._ready(file := self.provider.get_file(file_id)):
            if self.clock.monotonic() - began > FILE_SECONDS:
                raise FateUnknown(f"the canary's file is {file.status} after {FILE_SECONDS:g} s")
            self.clock.sleep(_LOOK_SECONDS)

    def _ready(self, file: RemoteFile) -> bool:
        verdict = d.judge_file(file, None, 0.0, d.Policy())
        if verdict == "unusable":
            raise Refused(f"the service could not take in the canary's file: {file.status_details}")
        return verdict == "ready" and not (file.status is None and self.provider.waits_for_file)

    def _try_fence(self, file_id: str, name: str, batches: set[str]) -> bool | None:
        """Delete the file, then create a batch from it: does the service refuse?"""
        try:
            self.provider.delete_file(file_id)
        except ProviderError:
            return None
        try:
            batch = self.provider.create_batch(file_id, tags(self.store_id, name))
        except QuotaFull:
            return None  # refused, but not for the file's sake
        except (Refused, RemoteNotFound):
            return True
        except ProviderError:
            # No answer, no finding; but a batch there may be.
            with suppress(ProviderError):
                batches.update(found.id for found in self._find(file_id, name))
            return None
        batches.add(batch.id)
        return self._fails_in_validation(batch)

    def _fails_in_validation(self, batch: RemoteBatch) -> bool:
        """Some services take any create and look for the file later: then nothing runs, which is as good."""
        began = self.clock.monotonic()
        while batch.status == "validating" and self.clock.monotonic() - began < VALIDATION_SECONDS:
            self.clock.sleep(_LOOK_SECONDS)
            batch = self.provider.get_batch(batch.id)
        return batch.status == "failed" and not batch.output_file_id

    def _list_one(
        self, file_id: str, name: str, batches: set[str]
    ) -> tuple[RemoteBatch | None, float | None]:
        """A batch as the list shows it, and after how many seconds it did."""
        try:
            batch = self.provider.create_batch(file_id, tags(self.store_id, name))
        except FateUnknown:
            batches.update(found.id for found in self._find(file_id, name))
            raise
        batches.add(batch.id)
        began = self.clock.monotonic()
        while True:
            listed = self._find(file_id, name, batch.id)
            lag = self.clock.monotonic() - began
            if listed:
                return listed[0], lag
            if lag > LAG_SECONDS:
                return None, None
            self.clock.sleep(_LOOK_SECONDS)

    def _find(self, file_id: str, name: str, batch_id: str | None = None) -> tuple[RemoteBatch, ...]:
        def ours(batch: RemoteBatch) -> bool:
            tag = (batch.metadata or {}).get(TAG)
            return batch.id == batch_id or batch.input_file_id == file_id or tag == name

        now = self.clock.now()
        return search_batches(self.provider.list_batches, ours, now - FILE_SECONDS, now).found
