"""The rules of section 4: what makes a batch fail before any row is run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from langbatch.emulator.objects import Checked, LineFault

BOM = b"\xef\xbb\xbf"
#: The message is observed, its code is not (§4).
BOM_MESSAGE = (
    "The batch failed validation: a valid model deployment name couldn't be extracted from the input file. "
    "Please ensure that the input file is UTF-8 without a byte order mark and names a deployment."
)


@dataclass(frozen=True, slots=True)
class Rules:
    """`endpoint` is set where each line's url must equal it. `deployments` None: every model exists."""

    requests_limit: int
    endpoint: str | None
    deployments: frozenset[str] | None
    standard_deployments: frozenset[str]
    errors_listed: int
    bom_is_json_fault: bool = False


class _Body(msgspec.Struct):
    model: Any = None


class _Line(msgspec.Struct):
    custom_id: Any = None
    method: Any = None
    url: Any = None
    body: msgspec.Raw = msgspec.Raw()


_lines = msgspec.json.Decoder(_Line)
_bodies = msgspec.json.Decoder(_Body)


def first_model(path: Path) -> str | None:
    """The model of the first line, for the quota of its deployment."""
    with path.open("rb") as file:
        line = file.readline().removeprefix(BOM)
    try:
        body = _lines.decode(line).body
        model = _bodies.decode(body).model
    except msgspec.DecodeError:
        return None
    return model if isinstance(model, str) else None


@dataclass(slots=True)
class _Seen:
    """What the lines so far have in common."""

    url: str | None = None
    model: str | None = None


def check_file(path: Path, rules: Rules) -> Checked:
    """Read an input file once; every fault up to the number that is listed."""
    faults: list[LineFault] = []
    seen = _Seen(url=rules.endpoint)
    # Digests, not ids: 100,000 ids of any length then cost the same few megabytes.
    ids: set[bytes] = set()
    count = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.startswith(BOM) and not rules.bom_is_json_fault:
                return Checked(0, None, (LineFault("invalid_request", BOM_MESSAGE),))
            count += 1
            if count > rules.requests_limit:
                message = f"The batch holds more than {rules.requests_limit} requests."
                return Checked(0, seen.model, (LineFault("too_many_tasks", message),))
            for code, message, param in _line_faults(line, seen, ids, rules):
                if len(faults) < rules.errors_listed:
                    faults.append(LineFault(code, message, number, param))
    if count == 0:
        return Checked(0, None, (LineFault("empty_file", "The input file holds no requests."),))
    if not faults:
        faults.extend(_model_faults(seen.model, rules))
    return Checked(0 if faults else count, seen.model, tuple(faults))


def _model_faults(model: str | None, rules: Rules) -> Iterator[LineFault]:
    if model in rules.standard_deployments:
        message = f"The deployment '{model}' is not a batch deployment; its SKU does not support batch."
        yield LineFault("invalid_request", message)
    elif rules.deployments is not None and model not in rules.deployments:
        yield LineFault("model_not_found", f"The provided model deployment name '{model}' was not found.")


def _line_faults(
    line: bytes, seen: _Seen, ids: set[bytes], rules: Rules
) -> Iterator[tuple[str, str, str | None]]:
    try:
        request = _lines.decode(line)
    except msgspec.ValidationError:
        yield "invalid_request", "This line is not a JSON object with the members of a request.", None
        return
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield "invalid_json_line", "This line is not parseable as valid JSON.", None
        return
    if not isinstance(request.custom_id, str) or not request.custom_id:
        yield "invalid_request", "custom_id must be a text.", "custom_id"
    else:
        digest = hashlib.blake2b(request.custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in ids:
            yield "duplicate_custom_id", "This custom_id was used on an earlier line.", "custom_id"
        ids.add(digest)
    if request.method != "POST":
        yield "invalid_request", "method must be POST.", "method"
    if not isinstance(request.url, str):
        yield "invalid_request", "url must be a text.", "url"
    elif seen.url is None:
        seen.url = request.url
    elif request.url != seen.url:
        yield "url_mismatch", "The url of this line differs from the batch's.", "url"
    yield from _body_faults(request.body, seen)


def _body_faults(body: msgspec.Raw, seen: _Seen) -> Iterator[tuple[str, str, str | None]]:
    try:
        model = _bodies.decode(body).model
    except msgspec.DecodeError:
        yield "invalid_request", "body must be an object.", "body"
        return
    if not isinstance(model, str) or not model:
        yield "invalid_request", "body.model must name a model.", "body.model"
    elif seen.model is None:
        seen.model = model
    elif model != seen.model:
        yield "model_mismatch", "All lines of a file must name the same model.", "body.model"
