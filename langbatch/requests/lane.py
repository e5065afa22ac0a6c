"""The quick way for lines that look like lines already examined.

Two stages, the first the quicker: a line that differs from an accepted one only in custom_id and prompt
(`_Express`), and a line with a known frame (see `frames`), whose small values are looked up or judged one
by one. In both the prompt is decoded into a shape that allows nothing but text. The lane never refuses:
None means that `examine` must look. Both stages are proofs, so a wrong guess costs time, never a verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import msgspec

from langbatch.requests.examine import KNOWN_URLS, Agreement, Examined, Rules
from langbatch.requests.frames import UNREADABLE, FrameShelf, body_place, frame_of
from langbatch.requests.shapes import SHAPES, BodyShape, Unfit, sound

#: A value that was different this often is no longer looked up but judged each time (seeds, user names).
_VARIES_FROM = 32
#: Looked-up combinations kept per frame, and the longest one worth keeping: bounds memory, not correctness.
_KNOWN_MOST = 1024
_KNOWN_BYTES = 32 * 1024
#: Lines that may miss the express before it is laid anew: two kinds of lines that alternate must not thrash.
_PATIENCE = 4
#: Prompts between two attempts to find out what they have in common, where they have little.
_LEAST_HELP = 4096

#: Bytes that stand for themselves in a JSON string: printable ASCII but `"` and `\`.
_PLAIN = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')
_MODEL = body_place("model")
#: A message's text in a prompt. Behind an escaped quote it is part of a key, whose text it then is.
_TEXT = re.compile(rb'"content"[ \t\r]*+:[ \t\r]*+("(?:[^"\\]++|\\.)*+")')
#: No line holds a newline.
_NOWHERE = b"\n"
_decode_text: Callable[[Any], str] = msgspec.json.Decoder(str).decode


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the steady values of an accepted line mean for it."""

    edited: bool
    model: str | None
    unknown_keys: tuple[str, ...]


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

    def settle(self) -> None:
        self.pick = itemgetter(*self.steady.values())
        self.known.clear()


@dataclass(slots=True)
class _Express:
    """Lines that are `start`, a plain id, `middle`, a prompt, and one of the `tails`, byte for byte.

    `tail_start` opens every tail. A line whose tail has a `gap` differs from the one it was laid along in
    one more value. `tail_bytes` is how long the tail was last, a guess where to look for the next.

    Prompts often differ in their last text alone, behind instructions that are always the same. Where the
    bytes `before` and `behind` that text are those of a sound prompt, any other text between them is as
    sound.
    """

    shape: BodyShape
    start: bytes
    middle: bytes
    tail_start: bytes
    tails: dict[bytes, Verdict] = field(default_factory=dict)
    gap: _Gap | None = None
    tail_bytes: int = 0
    before: bytes = _NOWHERE
    behind: bytes = _NOWHERE
    #: Prompts that are not so until `before` is learnt anew, and how many those were last.
    others: int = 4
    patience: int = 4

    def learn_text(self, prompt: bytes) -> None:
        """Take the bytes around the last text of a sound prompt whose inputs are not counted."""
        if self.shape.count is None:
            texts = [*_TEXT.finditer(prompt)]
            if texts:
                self.before, self.behind = prompt[: texts[-1].start(1)], prompt[texts[-1].end(1) :]

    def learn_text_again(self, prompt: bytes) -> int:
        """As `learn_text`, the less often the less it helps: after how many prompts again."""
        self.patience = min(2 * self.patience, _LEAST_HELP)
        self.learn_text(prompt)
        return self.patience

    def verdict(self, text: bytes, tail_at: int, end: int) -> Verdict | None:
        """What the line that ends at `end` is, if its tail begins at `tail_at` and its prompt is sound."""
        gap = self.gap
        if (
            gap is not None
            and text.startswith(gap.before, tail_at)
            and text.endswith(gap.behind, tail_at, end)
        ):
            # Decoding it proves that the gap holds exactly one value.
            value = text[tail_at + len(gap.before) : end - len(gap.behind)]
            if gap.takes_numbers and value.isdigit() and len(value) < 19 and value[0] != 0x30:
                return gap.verdict
            if value[:1].strip() and _fits(self.shape, gap.name, value):
                return gap.verdict
        return self.tails.get(text[tail_at:end])


@dataclass(frozen=True, slots=True)
class _Gap:
    """A tail around one value that varies: the bytes before and behind it."""

    before: bytes
    behind: bytes
    name: str
    takes_numbers: bool
    verdict: Verdict


class Lane:
    """Accepts lines quickly. `last` and `inputs` describe the line accepted last."""

    def __init__(self, rules: Rules, agreed: Agreement) -> None:
        self._rules = rules
        self._agreed = agreed
        self._shelf: FrameShelf[_Plan] = FrameShelf()
        self._express: _Express | None = None
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
        tokens: list[bytes] = []
        inputs: list[int] = []
        text = line + b"\n"
        self.run(text, 0, len(text), len(line), [], tokens, inputs)
        if tokens:
            self.inputs = inputs[0]
            return tokens[0]
        return self.accept_framed(line)

    def run(
        self,
        text: bytes,
        at: int,
        end: int,
        longest: int,
        starts: list[int],
        tokens: list[bytes],
        inputs: list[int] | None,
    ) -> int:
        """Take lines from `at` on by the express, up to the first that it does not fit; where that begins.

        `tokens` get the ids of the lines taken, `starts` the place behind each, `inputs` their inputs. They
        have one verdict in common, `last`. Lines end at a newline, the last at `end`; none longer than
        `longest` is taken.
        """
        express = self._express
        if express is None:
            return at
        # Looked up once: this loop runs for every line that there is.
        find, starts_with, view = text.find, text.startswith, memoryview(text)
        start, middle, tail_start, tails = express.start, express.middle, express.tail_start, express.tails
        start_bytes, middle_bytes = len(start), len(middle)
        longest_id, most_inputs = self._longest_id, self._most_inputs
        decode, count_inputs = express.shape.decode, express.shape.count
        before, behind, others = express.before, express.behind, express.others
        before_bytes, behind_bytes = len(before), len(behind)
        decode_text = _decode_text
        verdict: Verdict | None = None
        found: Verdict | None
        number = 1
        taken = len(tokens)
        while at < end:
            near = False
            newline = find(b"\n", at)
            id_at = at + start_bytes
            id_end = find(b'"', id_at, newline)
            if (
                not 0 < id_end - id_at <= longest_id
                or newline - at > longest
                or not starts_with(start, at)
                or not starts_with(middle, id_end)
            ):
                break
            near = True
            prompt_at = id_end + middle_bytes
            tail_at = newline - express.tail_bytes
            if tail_at < prompt_at or not starts_with(tail_start, tail_at):
                tail_at = text.rfind(tail_start, prompt_at, newline)
            token = text[id_at - 1 : id_end + 1]
            if tail_at < 0 or token[1:-1].translate(None, _PLAIN):
                break
            if express.gap is None:
                found = tails.get(text[tail_at:newline])
            else:
                found = express.verdict(text, tail_at, newline)
            if found is None or (found is not verdict and verdict is not None):
                break
            verdict = found
            text_at, text_end = prompt_at + before_bytes, tail_at - behind_bytes
            proved = starts_with(before, prompt_at) and text_at < text_end and starts_with(behind, text_end)
            if proved:
                try:
                    decode_text(view[text_at:text_end])
                except UNREADABLE:
                    # Several texts, for example: a longer conversation that begins and ends alike.
                    proved = False
            if not proved:
                try:
                    decoded = decode(view[prompt_at:tail_at])
                    if count_inputs is not None:
                        number = count_inputs(decoded)
                except (*UNREADABLE, Unfit):
                    break
                others -= 1
                if not others:
                    others = express.learn_text_again(text[prompt_at:tail_at])
                    before, behind = express.before, express.behind
                    before_bytes, behind_bytes = len(before), len(behind)
            if number > most_inputs:
                break
            express.tail_bytes = newline - tail_at
            tokens.append(token)
            if inputs is not None:
                inputs.append(number)
            at = newline + 1
            starts.append(at)
        express.others = others
        if verdict is not None and len(tokens) > taken:
            self.last = verdict
            self._missed = 0
        if at < end and near:
            # Not the express's fault: such a line must not have it laid anew.
            self._missed -= 1
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
            self.inputs = _count_inputs(plan.shape, pieces[plan.main_place])
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
            express = self._express = _Express(plan.shape, start, middle, pieces[main + 1])
            express.learn_text(bytes(pieces[main]))
            self._missed = 0
        if varying:
            name, place = varying[0]
            before, behind = b"".join(pieces[main + 1 : place]), b"".join(pieces[place + 1 :])
            takes_numbers = "number" in plan.shape.fields.get(name[len(body_place("")) :], ("number",))
            express.gap = _Gap(before, behind, name, takes_numbers, verdict)
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


def _count_inputs(shape: BodyShape, value: Any) -> int:
    """How many inputs the prompt has; 0 where the quick way cannot vouch for it."""
    try:
        return shape.quick(value)
    except (*UNREADABLE, Unfit):
        raw = bytes(value)
        return shape.inputs(raw) if sound(raw) and shape.fault(shape.main, raw) is None else 0
