"""The exact examination of one line: every independent fault, in words that say what to do.

`frames` and `lane` spare most lines this work; what they cannot prove sound comes here, and here is
the only place that refuses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from langbatch.records import ENDPOINT_PATHS, EndpointKind, Limits
from langbatch.redaction import clean_text
from langbatch.requests.jsonscan import Flaw, Member, Scanned, find, repeated, scan_line, string_at
from langbatch.requests.shapes import SHAPES, json_type

#: White space that JSON allows around a value. Nothing else is trimmed, least of all U+0085 or U+2028.
LINE_SPACE = b" \t\r"
#: Longest part of a user's own name for something (a key, a model) that a message repeats.
_SHOWN = 80
#: A provider's byte limit is used up to this share; multipart framing and edits live in the rest.
USED_SHARE = 0.95

#: Every url a line may carry: both spellings of each kind (wire reference, section 1).
KNOWN_URLS: Mapping[str, EndpointKind] = {
    prefix + path: kind for kind, path in ENDPOINT_PATHS.items() for prefix in ("", "/v1")
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What an input is held against.

    `kind` None takes the kind from the first good line's url. `model` is what the target writes into each
    line; None leaves lines theirs, which must then name one. `max_unpacked_*` bound what `--gzip` unpacks.
    """

    kind: EndpointKind | None
    provider: str
    limits: Limits
    model: str | None = None
    skip_invalid: bool = False
    auto_id: bool = False
    split_by_model: bool = False
    gzip: bool = False
    max_custom_id_bytes: int = 512
    max_unpacked_bytes: int = 16 << 30
    max_unpacked_ratio: int = 200

    @property
    def max_line_bytes(self) -> int:
        """Longest line that fits a batch of its own, newline and edits included."""
        return int(self.limits.file_bytes * USED_SHARE)

    @property
    def keeps_url(self) -> bool:
        """Azure takes both spellings of a url as written; OpenAI wants the batch's endpoint, with `/v1`."""
        return self.provider != "openai"


@dataclass(slots=True)
class Agreement:
    """What the good lines so far have in common; later lines must agree. Set by the first good line."""

    kind: EndpointKind | None
    url: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    code: str
    message: str


@dataclass(slots=True)
class Examined:
    """One line's examination. `token` is its custom_id as canonical JSON; None where it has none to go by."""

    line: bytes
    faults: list[Fault] = field(default_factory=list)
    scanned: Scanned | None = None
    custom_id: str | None = None
    token: bytes | None = None
    kind: EndpointKind | None = None
    url: str | None = None
    model: str | None = None
    edited: bool = False
    inputs: int = 1
    unknown_keys: tuple[str, ...] = ()

    def refuse(self, code: str, message: str) -> None:
        self.faults.append(Fault(code, message))


def canonical(custom_id: str) -> bytes:
    """A custom_id as a JSON token with as few escapes as JSON allows, so that equal ids are equal bytes."""
    return json.dumps(custom_id, ensure_ascii=False).encode()


def too_large(size: int, limit: int) -> Fault:
    """`size` without the line's newline, which is sent, too."""
    return Fault(
        "line_too_large",
        f"the line has {size + 1} bytes with its newline, 95 % of the service's limit are {limit};"
        " make it shorter",
    )


def examine(line: bytes, rules: Rules, agreed: Agreement) -> Examined:
    """Judge one trimmed, non-empty line. Reads `agreed`, changes nothing."""
    seen = Examined(line)
    if not _is_text(seen):
        return seen
    try:
        seen.scanned = scan_line(line)
    except Flaw as flaw:
        seen.refuse(flaw.code, flaw.message)
        return seen
    for key in repeated(seen.scanned.members):
        seen.refuse("duplicate_key", f"the key {_quoted(key)} stands twice in the request; keep one")
    _custom_id(seen, rules)
    _method(seen)
    _url(seen, rules, agreed)
    _body(seen, rules, agreed)
    known = ("custom_id", "method", "url", "body")
    outer = tuple(member.key for member in seen.scanned.members if member.key not in known)
    seen.unknown_keys = outer + seen.unknown_keys
    return seen


def _is_text(seen: Examined) -> bool:
    if b"\0" in seen.line:
        seen.refuse("nul_character", "the line holds a NUL byte; is the file UTF-16? Save it as UTF-8")
        return False
    try:
        seen.line.decode()
    except UnicodeDecodeError as error:
        seen.refuse(
            "invalid_utf8",
            f"byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8 without BOM",
        )
        return False
    return True


def _quoted(name: str) -> str:
    return f"'{clean_text(name, _SHOWN)}'"


def _text(line: bytes, member: Member | None) -> str | None:
    """The member's value, if it is a string."""
    if member is None or line[member.value_start] != 0x22:
        return None
    return string_at(line, member.value_start, member.value_end)


def _custom_id(seen: Examined, rules: Rules) -> None:
    assert seen.scanned is not None
    member = seen.scanned.member("custom_id")
    if member is None:
        seen.refuse("missing_custom_id", "custom_id is missing; give each line its own, or use --auto-id")
        return
    custom_id = _text(seen.line, member)
    if not custom_id:
        seen.refuse("invalid_custom_id", "custom_id must be a non-empty string; mend it, or use --auto-id")
        return
    seen.custom_id = custom_id
    if "\0" in custom_id:
        seen.refuse("invalid_custom_id", "custom_id holds a NUL character (\\u0000); remove it")
        return
    size = len(custom_id.encode())
    if size > rules.max_custom_id_bytes:
        seen.refuse(
            "custom_id_too_long",
            f"custom_id has {size} bytes, the most is {rules.max_custom_id_bytes}; shorten it",
        )
        return
    seen.token = canonical(custom_id)


def _method(seen: Examined) -> None:
    assert seen.scanned is not None
    member = seen.scanned.member("method")
    if _text(seen.line, member) != "POST":
        problem = "is missing" if member is None else "is not allowed in a batch"
        seen.refuse("invalid_method", f'method {problem}; write "method": "POST"')


def _url(seen: Examined, rules: Rules, agreed: Agreement) -> None:
    assert seen.scanned is not None
    member = seen.scanned.member("url")
    url = _text(seen.line, member)
    seen.kind = KNOWN_URLS.get(url or "")
    wanted = ENDPOINT_PATHS[agreed.kind] if agreed.kind else None
    if url is None:
        problem = "is missing" if member is None else "must be a string"
        seen.refuse("invalid_url", f"url {problem}; write for example {wanted or '/v1/chat/completions'}")
    elif seen.kind is None:
        example = wanted or ", ".join(sorted(KNOWN_URLS))
        why = (
            "is an absolute address; only the path belongs here" if "//" in url else "is not a batch endpoint"
        )
        seen.refuse("unsupported_url", f"url {why}; use {example}")
    elif agreed.kind is not None and seen.kind != agreed.kind:
        seen.refuse("url_mismatch", f"url is for {seen.kind}, this input is for {agreed.kind}; use {wanted}")
    elif rules.keeps_url and agreed.url is not None and url != agreed.url:
        seen.refuse(
            "url_mismatch", f"url is {url}, earlier lines have {agreed.url}; write it the same on every line"
        )
    else:
        seen.url = url
        seen.edited |= not rules.keeps_url and not url.startswith("/v1/")


def _body(seen: Examined, rules: Rules, agreed: Agreement) -> None:
    assert seen.scanned is not None
    member = seen.scanned.member("body")
    body = seen.scanned.body
    if member is None:
        seen.refuse("missing_body", "body is missing; it holds the request itself")
        return
    if body is None:
        seen.refuse("invalid_body", "body must be an object")
        return
    for key in repeated(body):
        seen.refuse("duplicate_key", f"the key {_quoted(key)} stands twice in body; keep one")
    _model(seen, find(body, "model"), rules, agreed)
    stream = find(body, "stream")
    if stream is not None and seen.line[stream.value_start : stream.value_end] == b"true":
        seen.refuse("stream_not_supported", "body.stream is true, but a batch cannot stream; remove it")
    kind = seen.kind or agreed.kind
    if kind is None:
        return
    shape = SHAPES[kind]
    lacking = shape.missing(frozenset(inner.key for inner in body))
    if lacking:
        seen.refuse("invalid_body", lacking)
    fits = True
    for inner in body:
        fault = inner.key != "model" and shape.fault(
            inner.key, seen.line[inner.value_start : inner.value_end]
        )
        if fault:
            seen.refuse("invalid_body", fault)
            fits = fits and inner.key != shape.main
    main = find(body, shape.main)
    if main is not None and fits:
        seen.inputs = shape.inputs(seen.line[main.value_start : main.value_end])
        most = rules.limits.embedding_inputs
        if most is not None and seen.inputs > most:
            seen.refuse(
                "too_many_inputs", f"body.{shape.main} has {seen.inputs} inputs, a batch may have {most}"
            )
    seen.unknown_keys = tuple(inner.key for inner in body if inner.key not in shape.fields)


def _model(seen: Examined, member: Member | None, rules: Rules, agreed: Agreement) -> None:
    if member is None:
        if rules.model is None:
            seen.refuse("missing_model", "body.model is missing; name the deployment or model")
        seen.edited = True
        return
    value = seen.line[member.value_start : member.value_end]
    model = _text(seen.line, member)
    if model is None:
        seen.refuse("invalid_body", f"body.model must be string, not {json_type(value)}")
    elif not model and rules.model is None:
        seen.refuse("missing_model", "body.model is empty; name the deployment or model")
    elif agreed.model is not None and model != agreed.model and not rules.split_by_model:
        seen.refuse(
            "model_mismatch",
            f"body.model is {_quoted(model)}, earlier lines have {_quoted(agreed.model)}; "
            "a batch has one model: split the file, or use --split-by-model",
        )
    else:
        seen.model = model
        seen.edited |= rules.model is not None and model != rules.model
