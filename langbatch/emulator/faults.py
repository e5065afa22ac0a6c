"""Fault knobs: a grammar, a registry of every name, and the box that decides when one fires.

Grammar, for `--fault` and `EmulatorConfig.faults`:  `NAME[=PARAM][SELECTOR]`

| selector | fires on |
|---|---|
| none | every hit |
| `@n` | the n-th hit only |
| `*n` | the first n hits |
| `%p` | p percent of the hits, drawn from the emulator's seed |

A hit is one occasion at which the fault could act: a call of its verb, one rendering of a batch, one
batch created, one file uploaded. Several faults may be set for one occasion; the first that fires wins,
and those behind it do not count the hit, so `create-500@1` with `create-429@1` fails the first create
with 500 and the second with 429.

`VERB-EFFECT` acts instead of the call (nothing is committed); `VERB-committed-EFFECT` acts after the
call has taken effect and spoils only the reply.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

VERBS: Mapping[str, str] = {
    "upload": "file upload",
    "get-file": "file status",
    "list-files": "file list",
    "delete-file": "file deletion",
    "download": "file content",
    "create": "batch creation",
    "poll": "batch status",
    "list": "batch list",
    "cancel": "batch cancellation",
}
CHANGING_VERBS = ("upload", "create", "cancel", "delete-file")

Kind = Literal["text", "number", "rows"]

#: effect -> (what the caller sees, default parameter)
EFFECTS: Mapping[str, tuple[str, str | None]] = {
    "drop": ("the connection closes without an answer", None),
    "reset": ("the connection is reset (TCP RST)", None),
    "408": ("408 request timeout", None),
    "409": ("409 conflict", None),
    "500": ("500 with a JSON error", None),
    "503-html": ("503 with an HTML page", None),
    "html": ("200 with an HTML page", None),
    "truncated-json": ("a success whose JSON is cut in the middle", None),
    "redirect": ("307 to the same address", None),
    "404": ("404 with the family's not-found body", None),
    "403": ("403, access forbidden by network rules", None),
    "401-entra": ("401 without an `error` wrapper: token missing, expired or for another audience", None),
    "401-key": ("401, wrong key", None),
    "401-role": ("401 PermissionDenied: the principal lacks a role", None),
    "429": ("429 without any advice when to come back", None),
    "429-ms": ("429 with retry-after-ms (parameter: milliseconds)", "250"),
    "429-short": ("429 with a short Retry-After (parameter: seconds)", "1"),
    "429-long": ("429 with a Retry-After above the SDK's 120 s (parameter: seconds)", "3600"),
    "429-date": ("429 with Retry-After as an HTTP date (parameter: seconds from now)", "2"),
    "429-negative": ("429 with a negative Retry-After", "-5"),
    "429-garbage": ("429 with a Retry-After that is no number", "soon"),
}
COMMITTED_EFFECTS = ("drop", "reset", "408", "409", "500", "503-html", "html", "truncated-json", "redirect")


@dataclass(frozen=True, slots=True)
class FaultName:
    """One entry of the registry. `kind` says what the parameter must look like."""

    name: str
    summary: str
    default: str | None = None
    kind: Kind = "text"


_BEHAVIOURS: tuple[tuple[str, str, str | None, Kind], ...] = (
    ("upload-committed-null-id", "the file is stored, the reply's id is null", None, "text"),
    ("upload-null-bytes", "the file object never says how many bytes it has", None, "text"),
    ("upload-wrong-bytes", "the file object is off by this many bytes", "7", "number"),
    ("upload-renamed", "a gateway stores the upload under another name", "renamed.jsonl", "text"),
    ("upload-quota", "400 quotaExceeded", None, "text"),
    ("file-stays-pending", "the uploaded file is never processed", None, "text"),
    ("file-error", "the uploaded file ends in status error", None, "text"),
    ("create-committed-null-id", "the batch exists, the reply's id is null", None, "text"),
    ("create-committed-other-file", "the batch exists, the reply names another input_file_id", None, "text"),
    ("create-late", "the connection drops; the batch comes to be this many seconds later", "5", "number"),
    ("create-twice", "something in between sends the create twice: two batches on one file", None, "text"),
    ("create-token-limit", "400 token_limit_exceeded", None, "text"),
    ("download-truncated", "the connection closes after this share of the body", "0.5", "number"),
    ("download-short", "only this share of the body, with a matching Content-Length", "0.5", "number"),
    ("list-lag", "a new batch is not listed for this many seconds", "30", "number"),
    ("list-stale", "the batch list shows each batch as it was when it was made", None, "text"),
    ("list-no-has-more", "batch list without has_more", None, "text"),
    ("list-repeats-cursor", "batch list ignores `after` and always has more", None, "text"),
    ("list-oldest-first", "batch list in the order of creation", None, "text"),
    ("list-as-value", "batch list under `value` instead of `data`", None, "text"),
    ("list-files-lag", "a new file is not listed for this many seconds", "30", "number"),
    ("list-files-no-has-more", "file list without has_more", None, "text"),
    ("list-files-repeats-cursor", "file list ignores `after` and always has more", None, "text"),
    ("list-files-as-value", "file list under `value` instead of `data`", None, "text"),
    ("old-batch-404", "batches older than this many seconds are 404 and unlisted", "3600", "number"),
    (
        "batch-other-file",
        "a gateway shows ids of its own: input_file_id is never the uploaded one's",
        None,
        "text",
    ),
    ("batch-metadata-null", "metadata reads null", None, "text"),
    ("batch-metadata-reordered", "metadata comes in another order", None, "text"),
    ("batch-metadata-non-string", "metadata values come as numbers and lists", None, "text"),
    ("batch-endpoint-null", "endpoint reads null", None, "text"),
    ("batch-ids-empty", 'output and error file ids that do not exist read ""', None, "text"),
    ("batch-ids-null", "output and error file ids that do not exist read null", None, "text"),
    ("batch-iso-times", "times are ISO-8601 texts with 7 fractional digits", None, "text"),
    ("batch-capital-status", "the status is capitalised, as in `Validating`", None, "text"),
    ("batch-unknown-status", "the status is a word nobody documented", "paused", "text"),
    ("batch-canceled", "cancelled is spelled canceled", None, "text"),
    ("batch-null-counts", "members of request_counts are null", None, "text"),
    ("batch-line-int", "errors carry the line as a number", None, "text"),
    ("batch-line-string", "errors carry the line as a text", None, "text"),
    ("batch-line-null", "errors carry no line", None, "text"),
    ("batch-no-output-file", "completed, rows counted, but no output_file_id", None, "text"),
    ("batch-fail", "the batch fails in validation with this code", "invalid_request", "text"),
    ("batch-token-limit", "the batch fails in validation with token_limit_exceeded", None, "text"),
    ("batch-all-fail", "every row fails; the batch completes without output file", None, "text"),
    ("batch-expire", "the batch expires after this many rows", "half", "rows"),
    ("batch-cancel", "the service cancels the batch after this many rows", "half", "rows"),
    ("rows-fail", "this many rows fail with HTTP 500", "1", "rows"),
    ("rows-filtered", "this many prompts are refused by the content filter (400)", "1", "rows"),
    ("rows-filtered-answer", "this many answers end with finish_reason content_filter", "1", "rows"),
    ("rows-expire", "this many rows come as batch_expired", "1", "rows"),
    ("rows-lost", "this many rows are counted as completed and are in neither file", "1", "rows"),
    ("rows-status-0", "this many rows have status_code 0 and are counted as completed", "1", "rows"),
    ("rows-malformed", "this many rows are no JSON", "1", "rows"),
    ("rows-duplicate", "this many rows come twice", "1", "rows"),
    ("rows-in-both-files", "this many rows are in the output and in the error file", "1", "rows"),
    ("rows-unknown-id", "this many rows are added for ids nobody sent", "1", "rows"),
    ("rows-u2028", "this many answers hold a raw U+2028", "1", "rows"),
    ("rows-no-final-newline", "output and error file end without a newline", None, "text"),
)


def _registry() -> dict[str, FaultName]:
    names: list[FaultName] = []
    for verb, what in VERBS.items():
        for effect, (seen, default) in EFFECTS.items():
            kind: Kind = "text" if default is None or effect.endswith("garbage") else "number"
            names.append(FaultName(f"{verb}-{effect}", f"{what}: {seen}; nothing happens", default, kind))
        names.append(FaultName(f"{verb}-delay", f"{what}: answered after this many seconds", "1", "number"))
    for verb in CHANGING_VERBS:
        for effect in COMMITTED_EFFECTS:
            seen, default = EFFECTS[effect]
            names.append(
                FaultName(f"{verb}-committed-{effect}", f"{VERBS[verb]} takes effect, but {seen}", default)
            )
    for name, summary, default, kind in _BEHAVIOURS:
        names.append(FaultName(name, summary, default, kind))
    return {entry.name: entry for entry in names}


#: Every fault there is, by name.
FAULTS: Mapping[str, FaultName] = _registry()

Selector = Literal["every", "nth", "first", "percent"]
_SIGNS: Mapping[str, Selector] = {"@": "nth", "*": "first", "%": "percent"}
_SPELLING = re.compile(
    r"(?P<name>[a-z0-9-]+)(?:=(?P<param>.*?))?(?:(?P<sign>[@*%])(?P<number>\d+(?:\.\d+)?))?"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One knob as set. `text` is how it was written."""

    text: str
    name: str
    param: str | None
    selector: Selector
    number: float
    twin: int = 0

    @property
    def key(self) -> str:
        """What its hits are counted under."""
        return f"{self.text}#{self.twin}" if self.twin else self.text

    @property
    def amount(self) -> float:
        """The parameter as a number."""
        return float(self.param or 0)

    def selects(self, hit: int, seed: int) -> bool:
        if self.selector == "every":
            return True
        if self.selector == "nth":
            return hit == self.number
        if self.selector == "first":
            return hit <= self.number
        return share(seed, self.key, hit) * 100 < self.number


def share(seed: int, *what: object) -> float:
    """A reproducible number in [0, 1) for something that happens under a seed."""
    key = "\0".join(str(part) for part in (seed, *what)).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "big") / 2**48


def parse_fault(text: str) -> Fault:
    """Read one fault as written; ValueError says what is wrong with it."""
    match = _SPELLING.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not NAME[=PARAM][@n|*n|%p]")
    entry = FAULTS.get(match["name"])
    if entry is None:
        raise ValueError(f"no fault is called {match['name']!r}")
    param = match["param"] if match["param"] is not None else entry.default
    if entry.kind == "rows" and not re.fullmatch(r"\d+|half|all", param or ""):
        raise ValueError(f"{text!r}: {entry.name} takes a number of rows, 'half' or 'all'")
    if entry.kind == "number":
        try:
            float(param or "")
        except ValueError:
            raise ValueError(f"{text!r}: {entry.name} takes a number") from None
    selector = _SIGNS[match["sign"]] if match["sign"] else "every"
    return Fault(text.strip(), entry.name, param, selector, float(match["number"] or 0))


class Counters(Protocol):
    """Where hits and firings are remembered; a persistent emulator keeps them over a restart."""

    def count(self, kind: str, name: str, /) -> int:
        """Add one to a counter and return the new value."""

    def forget(self, kind: str, name: str, /) -> None: ...


class FaultBox:
    """The faults that are set. Not safe for several threads: the service calls it under its lock."""

    def __init__(self, texts: Iterable[str], seed: int, counters: Counters) -> None:
        self._seed = seed
        self._counters = counters
        self._faults: list[Fault] = []
        for text in texts:
            self._append(parse_fault(text))

    @property
    def texts(self) -> list[str]:
        return [fault.text for fault in self._faults]

    def add(self, texts: Iterable[str]) -> None:
        """Set more faults; their hits count from now. All or none, if one is misspelt."""
        for fault in [parse_fault(text) for text in texts]:
            self._append(fault)
            self._counters.forget("fault_hit", self._faults[-1].key)

    def remove(self, text: str | None = None) -> None:
        """Take out one fault as it was written, or every fault of a name, or all of them."""
        self._faults = [f for f in self._faults if text is not None and text not in (f.text, f.name)]

    def fires(self, *names: str) -> Fault | None:
        """The first fault among those names that acts on this occasion. Every call is a hit."""
        for fault in self._faults:
            if fault.name in names and fault.selects(
                self._counters.count("fault_hit", fault.key), self._seed
            ):
                self._counters.count("fault", fault.name)
                return fault
        return None

    def fires_for(self, verb: str, *, committed: bool) -> Fault | None:
        """The effect on a call of `verb`, in place of it or behind it."""
        prefix = f"{verb}-committed-" if committed else f"{verb}-"
        names = tuple(prefix + effect for effect in (COMMITTED_EFFECTS if committed else EFFECTS))
        return self.fires(*names)

    def _append(self, fault: Fault) -> None:
        """Faults that are written alike count their hits apart."""
        twins = sum(fault.text == other.text for other in self._faults)
        self._faults.append(replace(fault, twin=twins))
