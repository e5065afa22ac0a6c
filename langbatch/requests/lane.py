"""The quick way for lines that look like lines already examined.

Two stages, the first the quicker: a line that differs from an accepted one only in custom_id and prompt
(see `express`), and a line with a known frame (see `frames`), whose small values are looked up or judged one
by one. In both the prompt is decoded into a shape that allows nothing but text. The lane never refuses:
None means that `examine` must look. Both stages are proofs, so a wrong guess costs time, never a verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any

from langbatch.requests.examine import KNOWN_URLS, Agreement, Examined, Rules
from langbatch.requests.express import Express, Gap, Lines, Verdict
from langbatch.requests.frames import UNREADABLE, FrameShelf, body_place, frame_of
from langbatch.requests.prompts import Prompts, Unfit
from langbatch.requests.shapes import SHAPES, BodyShape, sound

#: A value that was different this often is no longer looked up but judged each time (seeds, user names).
_VARIES_FROM = 32
#: Looked-up combinations kept per frame, and the longest one worth keeping: bounds memory, not correctness.
_KNOWN_MOST = 1024
_KNOWN_BYTES = 32 * 1024
#: Lines that may miss the express before it is laid anew: two kinds of lines that alternate must not thrash.
_PATIENCE = 4
_MODEL = body_place("model")


@dataclass(slots=True)
class _Plan:
    """How to judge the lines of one frame. Places are indexes into its pieces."""

    shape: BodyShape
    unknown_keys: tuple[str, ...]
    id_place: int
    main_place: int | None
    steady: dict[str, int]
    varying: dict[str, int] = field(default_factory=dict)
    known: dict[bytes, Verdict] = field(default_factory=dict)
    values: dict[str, set[int]] = field(default_factory=dict)
    pick: Callable[[list[Any]], tuple[Any, ...]] = tuple
    prompts: Prompts = field(init=False)

    def __post_init__(self) -> None:
        self.prompts = self.shape.prompts()

    def settle(self) -> None:
        self.pick = itemgetter(*self.steady.values())
        self.known.clear()


class Lane:
    """Accepts lines quickly. `last` and `inputs` describe the line accepted last."""

    def __init__(self, rules: Rules, agreed: Agreement) -> None:
        self._rules = rules
        self._agreed = agreed
        self._shelf: FrameShelf[_Plan] = FrameShelf()
        self._express: Express | None = None
        self._missed = 0
        self._longest_id = rules.max_custom_id_bytes
        self._most_inputs = rules.limits.embedding_inputs or 1 << 62
        #: One object per verdict, so that callers can tell runs by identity.
        self._verdicts: dict[Verdict, Verdict] = {}
        self.last = Verdict(False, None, ())
        self.inputs = 1

    def learn(self, seen: Examined) -> None:
        """Take the frame of a line that `examine` found without fault and that is part of the agreement."""
        if seen.scanned is None or seen.kind is None:
            return
        frame = frame_of(seen.line, seen.scanned)
        if frame is None:
            return
        shape = SHAPES[seen.kind]
        places = dict(frame.places)
        id_place = places.pop("custom_id")
        main_place = places.pop(body_place(shape.main), None)
        plan = _Plan(shape, seen.unknown_keys, id_place, main_place, places)
        plan.settle()
        self._shelf.add(frame, plan)

    def accept(self, line: bytes) -> bytes | None:
        """The line's canonical custom_id token, or None if only `examine` can tell."""
        text = line + b"\n"
        inputs: list[int] = []
        lines = Lines(text, len(text), len(line), [], [], inputs)
        self.run(lines, 0)
        if lines.tokens:
            self.inputs = inputs[0]
            return lines.tokens[0]
        return self.accept_framed(line)

    def run(self, lines: Lines, at: int) -> int:
        """Take lines from `at` on by the express, as `Express.run` does. They have one verdict, `last`."""
        express = self._express
        if express is None:
            return at
        taken = len(lines.tokens)
        at = express.run(lines, at)
        if express.verdict is not None and len(lines.tokens) > taken:
            self.last = express.verdict
            self._missed = 0
        if at < lines.end and express.near:
            # Not the express's fault: such a line must not have it laid anew when `accept_framed` counts it.
            self._missed = max(-1, self._missed - 1)
        return at

    def accept_framed(self, line: bytes) -> bytes | None:
        """As `accept`, for a line that `run` has not taken."""
        taken = self._shelf.take(line)
        if taken is None:
            return None
        plan, pieces = taken
        token = bytes(pieces[plan.id_place])
        if (
            not 2 < len(token) <= self._longest_id + 2
            or token[0] != 0x22
            or b"\\" in token
            or not _decodes(token)
        ):
            return None
        verdict = self._look_up(plan, pieces)
        if verdict is None:
            return None
        for name, place in plan.varying.items():
            if not _fits(plan.shape, name, bytes(pieces[place])):
                return None
        self.inputs = 1
        if plan.main_place is not None:
            self.inputs = _count_inputs(plan, pieces[plan.main_place])
            if not 0 < self.inputs <= self._most_inputs:
                return None
            self._missed += 1
            self._lay_express(plan, plan.main_place, pieces, verdict)
        self.last = verdict
        return token

    def _look_up(self, plan: _Plan, pieces: list[Any]) -> Verdict | None:
        # No value can hold a newline, so the joined values name their combination without doubt.
        key = b"\n".join(plan.pick(pieces))
        verdict = plan.known.get(key)
        if verdict is None:
            verdict = self._judge(plan, pieces)
            if verdict is not None and len(key) <= _KNOWN_BYTES:
                if len(plan.known) >= _KNOWN_MOST:
                    plan.known.clear()
                plan.known[key] = verdict
        return verdict

    def _judge(self, plan: _Plan, pieces: list[Any]) -> Verdict | None:
        """Judge each steady value by itself, and notice those that are not steady at all."""
        edited = False
        model: str | None = None
        restless = []
        for name, place in plan.steady.items():
            value = bytes(pieces[place])
            if name == "method":
                if value != b'"POST"':
                    return None
            elif name == "url":
                url = value[1:-1].decode("latin-1")
                if value[0] != 0x22 or not self._url_agrees(url):
                    return None
                edited |= not self._rules.keeps_url and not url.startswith("/v1/")
            elif name == _MODEL:
                model = self._model(value)
                if model is None:
                    return None
                edited |= self._rules.model is not None and model != self._rules.model
            else:
                if not _fits(plan.shape, name, value):
                    return None
                seen = plan.values.setdefault(name, set())
                seen.add(hash(value))
                if len(seen) > _VARIES_FROM:
                    restless.append(name)
        if _MODEL not in plan.steady:
            if self._rules.model is None:
                return None
            edited = True
        if restless:
            for name in restless:
                plan.varying[name] = plan.steady.pop(name)
                del plan.values[name]
            plan.settle()
        verdict = Verdict(edited, model, plan.unknown_keys)
        return self._verdicts.setdefault(verdict, verdict)

    def _url_agrees(self, url: str) -> bool:
        if self._agreed.kind is None or KNOWN_URLS.get(url) != self._agreed.kind:
            return False
        return not self._rules.keeps_url or url == self._agreed.url

    def _model(self, value: bytes) -> str | None:
        """The model's name, if it is what the agreement allows and written without escapes."""
        if value[0] != 0x22 or b"\\" in value or not _decodes(value):
            return None
        model = value[1:-1].decode()
        if not model and self._rules.model is None:
            return None
        return model if self._rules.split_by_model or model == self._agreed.model else None

    def _lay_express(self, plan: _Plan, main: int, pieces: list[Any], verdict: Verdict) -> None:
        """Teach the express this line's tail, or lay it anew along this line if it has missed for a while."""
        if plan.id_place > main:
            return
        express = self._express
        varying = sorted(plan.varying.items(), key=itemgetter(1))
        if any(place < main for _, place in varying) or len(varying) > 1:
            return
        start = b"".join(pieces[: plan.id_place]) + b'"'
        middle = b'"' + b"".join(pieces[plan.id_place + 1 : main])
        if express is None or (express.start, express.middle, express.tail_start) != (
            start,
            middle,
            pieces[main + 1],
        ):
            if express is not None and self._missed < _PATIENCE:
                return
            express = self._express = Express(
                plan.shape, start, middle, pieces[main + 1], self._longest_id, self._most_inputs
            )
            express.learn(bytes(pieces[main]))
            self._missed = 0
        if varying:
            name, place = varying[0]
            before, behind = b"".join(pieces[main + 1 : place]), b"".join(pieces[place + 1 :])
            takes_numbers = "number" in plan.shape.fields.get(name[len(body_place("")) :], ("number",))
            fits = partial(_fits, plan.shape, name)
            express.gap = Gap(before, behind, fits, takes_numbers, verdict)
            return
        tail = b"".join(pieces[main + 1 :])
        if len(tail) <= _KNOWN_BYTES:
            if len(express.tails) >= _KNOWN_MOST:
                express.tails.clear()
            express.tails[tail] = verdict


def _decodes(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fits(shape: BodyShape, name: str, value: bytes) -> bool:
    """Whether a body's value, named as in `Frame.places`, is surely sound and of the right shape."""
    key = name[len(body_place("")) :]
    if key == "stream" and value.strip() == b"true":
        return False
    return sound(value) and shape.fault(key, value) is None


def _count_inputs(plan: _Plan, value: Any) -> int:
    """How many inputs the prompt has; 0 where the quick way cannot vouch for it."""
    try:
        return plan.prompts.inputs(value)
    except (*UNREADABLE, Unfit):
        raw, shape = bytes(value), plan.shape
        return shape.inputs(raw) if sound(raw) and shape.fault(shape.main, raw) is None else 0
