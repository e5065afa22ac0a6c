"""Batch files as people send and get them: seeded, so that the same options give the same bytes.

`chat`: support chats and summaries in English, two to six messages. `extract`: a `json_schema` answer
wanted for documents in several languages, half of the lines as raw UTF-8, half with `\\uXXXX` escapes.
Output rows look as Azure writes them, in shuffled order; one request in twenty has an error row instead.
"""

from __future__ import annotations

import json
import random
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["chat", "extract"]

LINE_BYTES = 1_985
OUTPUT_BYTES = 1_545
ERROR_SHARE = 0.05

_WORDS = """
account battery cable claim clause column contract courier customer delivery deposit display driver engine
estimate exam filter forecast garage invoice lesson margin meter notice order parcel patient payment policy
premium pressure product quarter receipt refund region repair report sensor server shipment supplier symptom
table teacher terminal timeout update valve vehicle voucher warranty
arrived asked broke changed checked confirmed described dropped ended explained failed found froze grew
measured moved needed opened promised received refused removed replaced returned showed stopped
a after again although and annual at because before but by carefully daily during early every final first for
from in large late local never new no of often old on private public quickly recent several since slowly small
some still that the their this though to twice until usually when while with yesterday
"""
_NOUNS, _VERBS, _REST = (part.split() for part in re.split(r"(?=arrived)|(?=\ba after)", _WORDS))
_FOREIGN = (
    "Die Rechnung über 1.249,50 € wurde zweimal gebucht, bitte prüfen Sie den Vorgang.",
    "Le colis est arrivé ouvert ; l’écran présente une rayure près du bord gauche.",
    "El técnico cambió la válvula, pero la presión sigue bajando cada mañana.",
    "Пользователь просит вернуть деньги: заказ так и не был доставлен.",
    "注文した部品がまだ届いていません。至急ご確認ください。",
    "系统升级之后传感器的读数一直不正确，请尽快处理。",
    "لم تصل الشحنة في الموعد المحدد وقد طلب العميل إلغاء الطلب.",
    "Klientka zgłasza, że po aktualizacji aplikacja wyłącza się przy płatności.",
    "Lovely people on the phone 😊👍 yet the box was left in the rain ☔ again 🤷.",
)
_SYSTEMS = (
    "You help a support team. Answer in plain English, keep to the facts that are given, and ask one short "
    "question if something is missing. Never make up an order number.",
    "Summarise the text for a busy reader in five bullet points at most. Keep figures, dates and names.",
    "Sort the message into billing, delivery, technical, legal or other. Give the label, then one reason.",
)
_EXTRACT_SYSTEM = (
    "Fill in the fields of the schema from the document. Names as written, dates as YYYY-MM-DD, amounts as "
    "numbers, null where the document says nothing."
)
_TEXT = {"type": ["string", "null"]}
_FIELDS = {
    "language": {"type": "string", "description": "BCP 47 tag of the document"},
    "customer": _TEXT,
    "order_id": _TEXT,
    "amount": {"type": ["number", "null"]},
    "date": _TEXT,
    "topics": {"type": "array", "items": {"type": "string"}},
    "severity": {"type": "string", "enum": ["low", "medium", "high"]},
}
_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "case_record",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": _FIELDS,
            "required": list(_FIELDS),
            "additionalProperties": False,
        },
    },
}
_FORMAT_JSON = json.dumps(_FORMAT)
_SAFE = {"filtered": False, "severity": "safe"}
_FILTERS = dict.fromkeys(("hate", "self_harm", "sexual", "violence"), _SAFE)
_FILTERS_JSON = json.dumps(_FILTERS)
_PROMPT_FILTERS_JSON = json.dumps([{"prompt_index": 0, "content_filter_results": _FILTERS}])


@dataclass(frozen=True, slots=True)
class Files:
    """A request file, and what came back for each 100,000 requests of it."""

    input: Path
    outputs: tuple[Path, ...]
    errors: tuple[Path, ...]
    lines: int

    def all(self) -> tuple[Path, ...]:
        return (self.input, *self.outputs, *self.errors)


SHARD_LINES = 100_000


def write_files(folder: Path, kind: Kind, lines: int, *, seed: int = 1) -> Files:
    """Write the files into `folder`; those of an earlier run are used again."""
    name = f"{kind}-{lines}-{seed}"
    firsts = range(0, lines, SHARD_LINES)
    files = Files(
        folder / f"{name}.input.jsonl",
        tuple(folder / f"{name}.output-{index}.jsonl" for index in range(len(firsts))),
        tuple(folder / f"{name}.error-{index}.jsonl" for index in range(len(firsts))),
        lines,
    )
    done = folder / f"{name}.done"
    if done.exists():
        return files
    roll = random.Random(name)
    sentences = _sentences(roll, kind)
    _write(files.input, (_request(roll, kind, sentences, number) for number in range(lines)))
    for first, output, error in zip(firsts, files.outputs, files.errors, strict=True):
        order = array("I", range(first, min(first + SHARD_LINES, lines)))
        roll.shuffle(order)
        failed = round(len(order) * ERROR_SHARE)
        _write(error, (_error(roll, number) for number in order[:failed]))
        _write(output, (_output(roll, kind, sentences, number) for number in order[failed:]))
    done.touch()
    return files


def custom_id(number: int) -> str:
    return f"request-{number:08d}-{number * 2654435761 % 0xFFFFFF:06x}"


def _write(path: Path, lines: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8", buffering=1 << 20, newline="\n") as out:
        for line in lines:
            out.write(line)


# ---------------------------------------------------------------- text, escaped as JSON


@dataclass(frozen=True, slots=True)
class _Sentences:
    raw: list[str]
    escaped: list[str]
    raw_bytes: float
    escaped_bytes: float

    def text(self, roll: random.Random, size: float, *, ascii_only: bool = False) -> str:
        """About `size` bytes of sentences."""
        chosen, mean = (self.escaped, self.escaped_bytes) if ascii_only else (self.raw, self.raw_bytes)
        return "".join(roll.choices(chosen, k=max(1, round(size / mean))))


def _sentences(roll: random.Random, kind: Kind) -> _Sentences:
    plain = []
    for _ in range(3_000):
        text = _sentence(roll)
        if kind == "extract" and roll.random() < 0.55:
            text = f"{roll.choice(_FOREIGN)} {text[: roll.randint(8, 40)]} "
        plain.append(text)
    raw = [json.dumps(text, ensure_ascii=False)[1:-1] for text in plain]
    escaped = [json.dumps(text)[1:-1] for text in plain]
    return _Sentences(raw, escaped, _mean_bytes(raw), _mean_bytes(escaped))


def _mean_bytes(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / len(texts)


def _sentence(roll: random.Random) -> str:
    words = []
    for _ in range(roll.randint(2, 5)):
        words += [roll.choice(_REST), roll.choice(_NOUNS), roll.choice(_VERBS), roll.choice(_REST)]
    extra = roll.random()
    if extra < 0.2:
        words.append(f"{roll.uniform(1, 4000):.2f}")
    elif extra < 0.32:
        words.append(f"20{roll.randint(19, 25)}-{roll.randint(1, 12):02d}-{roll.randint(1, 28):02d}")
    elif extra < 0.4:
        words.append(f"ORD-{roll.randrange(10**6):06d}")
    elif extra < 0.48:
        words.append(f'"{roll.choice(_NOUNS)}"')
    return " ".join(words).capitalize() + roll.choice((". ", ". ", ". ", "? ", "; ", ".\n", ".\n\n"))


def _size(roll: random.Random, mean: int, spread: float) -> float:
    """Lognormal: most near the mean, a few several times as long."""
    return mean * min(6, max(0.2, roll.lognormvariate(-spread * spread / 2, spread)))


# ---------------------------------------------------------------- lines


def _request(roll: random.Random, kind: Kind, sentences: _Sentences, number: int) -> str:
    room = _size(roll, LINE_BYTES, 0.45)
    if kind == "chat":
        system = roll.choice(_SYSTEMS)
        turns = roll.choice((3, 5)) if roll.random() < 0.2 else 1
        room = max(40, room - len(system) - 255) / turns
        said = ", ".join(
            f'{{"role": "{"user" if turn % 2 == 0 else "assistant"}", '
            f'"content": "{sentences.text(roll, room)}"}}'
            for turn in range(turns)
        )
        heat, most = roll.choice(("0", "0.2", "0.7")), roll.choice((256, 512, 1024))
        settings = f'"temperature": {heat}, "max_tokens": {most}'
    else:
        system, wanted = _EXTRACT_SYSTEM, _FORMAT_JSON
        text = sentences.text(
            roll, max(40, room - len(system) - len(wanted) - 310), ascii_only=roll.random() < 0.5
        )
        said = f'{{"role": "user", "content": "{text}"}}'
        settings = f'"response_format": {wanted}, "temperature": 0, "seed": {roll.randrange(1 << 31)}'
    return (
        f'{{"custom_id": "{custom_id(number)}", "method": "POST", "url": "/chat/completions", "body": '
        f'{{"model": "gpt-4o-mini-batch", "messages": [{{"role": "system", "content": "{system}"}}, {said}], '
        f"{settings}}}}}\n"
    )


def _output(roll: random.Random, kind: Kind, sentences: _Sentences, number: int) -> str:
    if kind == "chat":
        content = sentences.text(roll, max(20, _size(roll, OUTPUT_BYTES, 0.15) - 1_340))
    else:
        found = dict.fromkeys(_FIELDS) | {
            "amount": round(roll.random() * 900, 2),
            "topics": [roll.choice(_FOREIGN)[:24]],
        }
        content = json.dumps(json.dumps(found, ensure_ascii=False), ensure_ascii=roll.random() < 0.5)[1:-1]
    taken, given = roll.randint(200, 700), roll.randint(20, 400)
    choice = (
        f'{{"content_filter_results": {_FILTERS_JSON}, "finish_reason": "stop", "index": 0, '
        f'"logprobs": null, "message": {{"annotations": [], "content": "{content}", "refusal": null, '
        '"role": "assistant"}}'
    )
    usage = (
        f'{{"completion_tokens": {given}, "completion_tokens_details": {{"accepted_prediction_tokens": 0, '
        '"audio_tokens": 0, "reasoning_tokens": 0, "rejected_prediction_tokens": 0}, "prompt_tokens": '
        f'{taken}, "prompt_tokens_details": {{"audio_tokens": 0, "cached_tokens": 0}}, "total_tokens": '
        f"{taken + given}}}"
    )
    return (
        f'{{"custom_id": "{custom_id(number)}", "response": {{"body": {{"choices": [{choice}], "created": '
        f'{1735689600 + roll.randrange(86400 * 90)}, "id": "chatcmpl-{_hex(roll, 28)}", "model": '
        '"gpt-4o-mini-2024-07-18", "object": "chat.completion", "prompt_filter_results": '
        f'{_PROMPT_FILTERS_JSON}, "system_fingerprint": "fp_{_hex(roll, 10)}", "usage": {usage}}}, '
        f'"request_id": "{_hex(roll, 32)}", "status_code": 200}}, "error": null}}\n'
    )


def _error(roll: random.Random, number: int) -> str:
    """A filtered prompt, a request that expired unsent, or a rate limit, as the service tells them."""
    body = ""
    chance = roll.random()
    if chance < 0.4:
        said = {
            "message": "The response was filtered due to the prompt triggering the content policy.",
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": _FILTERS},
        }
        body, status = json.dumps(said), 400
    elif chance < 0.6:
        seconds = roll.randint(1, 60)
        said = {"code": "429", "message": f"Requests have exceeded the rate limit. Retry after {seconds} s."}
        body, status = json.dumps(said), 429
    if body:
        return (
            f'{{"custom_id": "{custom_id(number)}", "response": {{"body": {{"error": {body}}}, "request_id": '
            f'"{_hex(roll, 32)}", "status_code": {status}}}, "error": null}}\n'
        )
    return (
        f'{{"custom_id": "{custom_id(number)}", "response": null, "error": {{"code": "batch_expired", '
        '"message": "This request could not be executed before the completion window expired."}}\n'
    )


def _hex(roll: random.Random, digits: int) -> str:
    return f"{roll.getrandbits(4 * digits):0{digits}x}"
