"""The service without sockets: one request value in, one response value out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from langbatch.emulator.access import Access
from langbatch.emulator.admin import BLOBS_PREFIX, PREFIX, Admin, keep_clock
from langbatch.emulator.batches import Batches
from langbatch.emulator.clock import Clock, ManualClock, ScaledClock
from langbatch.emulator.config import EmulatorConfig
from langbatch.emulator.context import Context
from langbatch.emulator.effects import cut_download, effect_response, error_response
from langbatch.emulator.faults import CHANGING_VERBS, VERBS, FaultBox
from langbatch.emulator.files import Files
from langbatch.emulator.ledger import Ledger, Payment, Payments
from langbatch.emulator.profiles import Family
from langbatch.emulator.progress import Progress
from langbatch.emulator.routing import Call, route
from langbatch.emulator.storage import Storage
from langbatch.emulator.uploads import Uploads
from langbatch.emulator.wire import Refusal, Request, Response, http_date, json_response


class Emulator:
    """The Files and Batches services of Azure OpenAI and OpenAI, for tests and for trying things out.

    With a `folder` everything is kept there and found again; without one, a temporary folder lives as
    long as the emulator. `handle` may be called from several threads. Close it when done.
    """

    def __init__(
        self,
        config: EmulatorConfig | None = None,
        *,
        folder: Path | str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config = EmulatorConfig() if config is None else config
        storage = Storage(None if folder is None else Path(folder))
        faults = FaultBox(self.config.faults, self.config.seed, storage)
        self.clock = _open_clock(clock, self.config.speed, storage)
        context = Context(self.config, storage, self.clock, faults)
        self._context = context
        self._files = Files(context)
        progress = Progress(context, self._files)
        self._batches = Batches(context, self._files, progress)
        self._ledger = Ledger(context, progress)
        self._admin = Admin(context, progress, self._ledger)
        self._access = Access(context)
        uploads = Uploads(context, self._files)
        self._handlers: dict[str, Callable[[Call, Request], Response]] = {
            "upload": self._files.upload,
            "get-file": self._files.get,
            "list-files": self._files.list,
            "delete-file": self._files.delete,
            "download": self._files.download,
            "import": self._files.import_by_url,
            "create": self._batches.create,
            "poll": self._batches.poll,
            "list": self._batches.list,
            "cancel": self._batches.cancel,
            "open-upload": uploads.open,
            "add-part": uploads.add_part,
            "complete-upload": uploads.complete,
            "cancel-upload": uploads.cancel,
        }
        keep_clock(context)

    @property
    def folder(self) -> Path:
        """Where state and contents are kept."""
        return self._context.storage.root

    def close(self) -> None:
        """Give the database back; a temporary folder is removed."""
        self._context.storage.close()

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ the wire

    def handle(self, request: Request) -> Response:
        """The answer to one request. Raises only what the request's own body raises while it is read."""
        self._batches.release_parked()
        family: Family = self.config.profile
        try:
            if request.path.startswith((PREFIX, BLOBS_PREFIX)):
                return self._admin.handle(request)
            family, call = route(request, self.config.profile)
            response = self._answer(family, call, request)
        except Refusal as refusal:
            _drain(request)
            response = error_response(
                family,
                refusal.status,
                refusal.code,
                refusal.message,
                param=refusal.param,
                kind=refusal.kind,
            )
        return self._dressed(response, family)

    def _answer(self, family: Family, call: Call | None, request: Request) -> Response:
        self._context.storage.count("call", call.verb if call is not None else "unknown")
        refusal = self._access.refusal(family, request)
        if refusal is not None:
            _drain(request)
            return refusal
        if call is None or call.verb not in self._handlers:
            _drain(request)
            raise Refusal(404, "404", "Resource not found")
        if call.verb not in VERBS:
            return self._handlers[call.verb](call, request)
        slow = self._context.fires(f"{call.verb}-delay")
        fault = self._context.fires_for(call.verb, committed=False)
        if fault is not None:
            _drain(request)
            effect = fault.name.removeprefix(f"{call.verb}-")
            response = effect_response(fault, effect, family, request, self._context.now())
        else:
            response = self._carried_out(call, request)
        return response if slow is None else replace(response, delay_seconds=slow.amount)

    def _carried_out(self, call: Call, request: Request) -> Response:
        response = self._handlers[call.verb](call, request)
        if not response.ok or response.drop_connection is not None:
            return response
        context = self._context
        if call.verb == "download":
            cut = context.fires("download-truncated", "download-short")
            return response if cut is None else cut_download(response, cut)
        if call.verb not in CHANGING_VERBS:
            return response
        odd = context.fires(f"{call.verb}-committed-null-id", f"{call.verb}-committed-other-file")
        if odd is not None:
            what = (
                {"id": None}
                if odd.name.endswith("null-id")
                else {"input_file_id": f"file-{uuid.uuid4().hex}"}
            )
            return json_response(response.json() | what, response.status)
        fault = context.fires_for(call.verb, committed=True)
        if fault is None:
            return response
        effect = fault.name.removeprefix(f"{call.verb}-committed-")
        return effect_response(fault, effect, call.family, request, context.now(), response)

    def _dressed(self, response: Response, family: Family) -> Response:
        """With the headers that a real reply carries. `Date` is the emulator's own time."""
        own = str(uuid.uuid4())
        identity = (
            (("x-request-id", f"req_{own.replace('-', '')}"),)
            if family == "openai"
            else (("apim-request-id", own), ("x-ms-region", "Emulator"))
        )
        return response.with_headers(("date", http_date(self._context.now())), *identity)

    # ------------------------------------------------------------ behind the counter

    def report(self) -> dict[str, Any]:
        """What `GET /_emulator/` answers: counts, faults, batches, files."""
        return self._admin.report()

    def payments(self) -> Payments:
        """How often requests were executed and paid, over all batches."""
        return self._ledger.payments()

    def each_payment(self) -> Iterator[Payment]:
        """One by one, sorted by family of file names and custom_id; for any number of requests."""
        return self._ledger.each()

    def advance(self, seconds: float) -> float:
        """Move the clock forward; the time after that. Refused for a `RealClock`."""
        return self._admin.advance(seconds)

    def add_faults(self, *texts: str) -> None:
        """Set more faults, as `langbatch.emulator.faults` spells them; ValueError for a wrong one."""
        self._admin.add_faults(*texts)

    def remove_faults(self, *texts: str) -> None:
        """Take out faults as they were written or by name; without arguments all of them."""
        self._admin.remove_faults(*texts)

    def faults_fired(self) -> dict[str, int]:
        """How often each fault acted, by name; those that never did are absent."""
        return self._context.storage.counts("fault")

    def put_blob(self, url: str, content: bytes) -> None:
        """Place a blob for `input_blob` (Azure's blob mode); any host, the path counts."""
        self._admin.put_blob(url, content)

    def blob(self, url: str) -> bytes | None:
        """A blob that was placed, or that a batch wrote; None where there is none."""
        return self._admin.blob(url)


def _drain(request: Request) -> None:
    """Read the body to its end: a client that is still sending would not see the answer."""
    for _ in request.body:
        pass


def _open_clock(clock: Clock | None, speed: float, storage: Storage) -> Clock:
    """The given clock, or one of the given speed; never earlier than what this folder has seen."""
    kept = storage.setting("clock")
    seen = msgspec.json.decode(kept, type=tuple[float, float, float]) if kept is not None else None
    if clock is not None:
        if isinstance(clock, ManualClock) and seen is not None:
            clock.advance(max(0.0, seen[1] - clock.now()))
        return clock
    if seen is None or seen[2] == 0.0:
        return ScaledClock(speed)
    real = time.time()
    return ScaledClock(speed, (real, seen[1] + (real - seen[0]) * seen[2]))
