"""Estimates of whole files: exact where small, sampled with a band that holds where large."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from langbatch.money.estimates import COUNT_ALL_BYTES, Estimate, Estimator, total
from langbatch.money.reserve import DEFAULT_TOKENS_PER_BYTE, ReserveRule
from langbatch.money.tokens import TokenCounter, counter_for
from money.counting import MADE_UP

TEXT = "the customer reported that a delivery was late and asked for a refund of 12.50 before noon by Müller"
WORDS = TEXT.split()


def chat_line(words: list[str], model: str = "gpt-4o", **more: object) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": " ".join(words)}], **more}
    return (
        json.dumps({"custom_id": "a", "method": "POST", "url": "/chat/completions", "body": body}).encode()
        + b"\n"
    )


def varied_lines(count: int, seed: int = 1) -> list[bytes]:
    chance = random.Random(seed)
    return [chat_line(chance.choices(WORDS, k=chance.randint(20, 900)), max_tokens=10) for _ in range(count)]


def estimates_of(
    lines: list[bytes],
    folder: Path,
    *,
    count_all: bool = False,
    model: str | None = None,
    counters: Callable[[str | None], TokenCounter] = lambda model: MADE_UP,
) -> dict[str | None, Estimate]:
    path = folder / "lines.jsonl"
    path.write_bytes(b"".join(lines))
    estimator = Estimator("chat_completions", model=model, count_all=count_all, counters=counters)
    offset = 0
    for line in lines:
        estimator.add(line, offset)
        offset += len(line)
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return estimator.finish(read, most_output={"gpt-4o": 500}.get)


def test_a_small_file_is_counted_exactly(tmp_path: Path) -> None:
    line = chat_line(["Hello,", "world!"], max_tokens=10)
    assert total(estimates_of([line] * 3, tmp_path)) == Estimate(3, 3 * len(line), 33, 33, 33, 30, "exact", 3)


def test_a_large_files_sample_agrees_with_counting_all_of_it(tmp_path: Path) -> None:
    lines = varied_lines(1500)
    assert sum(map(len, lines)) > COUNT_ALL_BYTES
    true = total(estimates_of(lines, tmp_path, count_all=True))
    sampled = total(estimates_of(lines, tmp_path))
    assert (true.method, sampled.method) == ("exact", "sampled")
    assert sampled.counted_requests < 1500
    assert sampled.low <= true.input_tokens <= sampled.high
    assert sampled.high - sampled.low < 0.05 * true.input_tokens
    assert (sampled.requests, sampled.bytes, sampled.output_tokens_at_most) == (
        true.requests,
        true.bytes,
        15_000,
    )


def test_the_same_file_is_estimated_the_same_every_time(tmp_path: Path) -> None:
    lines = varied_lines(1500)
    assert estimates_of(lines, tmp_path) == estimates_of(lines, tmp_path)


def test_models_are_estimated_apart(tmp_path: Path) -> None:
    words = ["Клиент сообщил, что датчик давления показывает неверные значения."]
    lines = [chat_line(words, "gpt-4o"), chat_line(words, "gpt-4")]
    found = estimates_of(lines, tmp_path, counters=counter_for)
    assert set(found) == {"gpt-4o", "gpt-4"}
    assert found["gpt-4"].input_tokens > found["gpt-4o"].input_tokens


def test_the_model_behind_a_deployment_decides_not_the_name_in_the_lines(tmp_path: Path) -> None:
    found = estimates_of([chat_line(WORDS, "my-deployment")], tmp_path, model="gpt-4o")
    assert found == estimates_of([chat_line(WORDS, "my-deployment")], tmp_path, model="gpt-4o")
    assert found["gpt-4o"].method == "exact"


def test_requests_without_a_bound_take_the_models_own(tmp_path: Path) -> None:
    lines = [chat_line(WORDS, max_tokens=10), chat_line(WORDS), chat_line(WORDS, n=2)]
    assert total(estimates_of(lines, tmp_path)).output_tokens_at_most == 10 + 500 + 2 * 500


def test_one_model_without_any_bound_leaves_the_whole_output_open(tmp_path: Path) -> None:
    lines = [chat_line(WORDS, max_tokens=10), chat_line(WORDS, "unheard-of")]
    assert total(estimates_of(lines, tmp_path)).output_tokens_at_most is None


def test_an_unknown_model_is_counted_with_a_band(tmp_path: Path) -> None:
    line = chat_line(WORDS, "unheard-of", max_tokens=1)
    found = total(estimates_of([line], tmp_path, counters=counter_for))
    assert found.method == "counted"
    assert found.low < found.input_tokens < found.high


def test_no_requests_are_no_tokens(tmp_path: Path) -> None:
    assert total(estimates_of([], tmp_path)) == Estimate()


# ---------------------------------------------------------------- reserve


def test_a_reserve_is_at_least_the_tokens_of_ordinary_requests(tmp_path: Path) -> None:
    lines = varied_lines(200)
    true = total(estimates_of(lines, tmp_path, count_all=True, counters=counter_for)).high
    rule = ReserveRule()
    assert true <= sum(map(rule.of_line, lines)) <= 4 * true


def test_a_learnt_reserve_is_close_above_the_estimate(tmp_path: Path) -> None:
    lines = varied_lines(1500)
    estimate = total(estimates_of(lines, tmp_path))
    rule = ReserveRule.learnt(estimate)
    assert estimate.high <= rule.of_bytes(estimate.bytes, 1500) <= 1.1 * estimate.high


def test_a_reserve_does_not_take_an_images_bytes_for_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgo" * 40_000}}
    with_image = chat_line(WORDS).replace(
        b'"content": "', b'"content": [' + json.dumps(image).encode() + b', "', 1
    )
    assert len(with_image) > 400_000
    assert ReserveRule().of_line(with_image) < 3_000


@pytest.mark.parametrize("answer_tokens", [0, 100])
def test_output_is_reserved_only_where_a_service_counts_it(answer_tokens: int) -> None:
    rule = ReserveRule(answer_tokens=answer_tokens)
    assert rule.of_bytes(1000, 3) == round(1000 * DEFAULT_TOKENS_PER_BYTE) + 3 * answer_tokens


def test_a_rule_learnt_from_nothing_is_the_default() -> None:
    assert ReserveRule.learnt(Estimate()) == ReserveRule()
