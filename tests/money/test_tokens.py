"""Counting tokens: known counts of the real encodings, and the merging itself on made-up vocabularies."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langbatch.money.approximation import ApproximateCounter
from langbatch.money.tokens import VocabularyCounter, counter_for, merged_length
from langbatch.money.vocabulary import Encoding, encoding_of, read_vocabulary, vocabulary_file, word_pattern
from money.counting import ranks_of

#: Counted with tiktoken 0.14: o200k_base, cl100k_base.
KNOWN = [
    ("", 0, 0),
    ("Hello, world!", 4, 4),
    ("When was Microsoft founded?", 5, 5),
    ("The quick brown fox jumps over the lazy dog. It's 12,345.67 dollars — isn't it?\n\n", 22, 24),
    ("def add(a: int, b: int) -> int:\n    return a + b\n", 19, 19),
    ("Die Lieferung wurde am 3. März verspätet zugestellt, obwohl die Gebühr bezahlt war.", 21, 30),
    ("お客様は商品の返品を希望しており、領収書の再発行も必要です。", 22, 36),
    ("Клиент сообщил, что датчик давления показывает неверные значения.", 14, 24),
    ("طلب العميل استرداد المبلغ بالكامل لأن الشحنة وصلت متأخرة.", 16, 39),
    ("Great service 😀👍🏽 but the courier left the parcel outside ☔", 15, 18),
    ("   indented\t\ttabs \r\n\r\n and\u2028separators\u00a0here \x1c", 16, 17),
    ("<|endoftext|> is only text here", 11, 11),
    ('{"id": "5f0c9e1a-77", "tags": ["a_b", "fooBar"], "n": 0.125}', 34, 34),
    ("a" * 1000, 125, 125),
    ("HTTPServerError'LL DON'T ſ'ſ ǅungla", 15, 16),
]
#: Texts long enough, and ordinary enough, for the approximation's band to be promised.
ORDINARY = [
    known for known in KNOWN if len(known[0]) > 45 and "aaa" not in known[0] and "\x1c" not in known[0]
]


@pytest.mark.parametrize(("model", "place"), [("gpt-4o-mini", 1), ("text-embedding-3-small", 2)])
def test_a_counter_that_says_it_is_exact_has_every_known_count(model: str, place: int) -> None:
    encoding = encoding_of(model)
    assert encoding is not None
    counter = counter_for(model)
    if vocabulary_file(encoding) is None:  # a platform without the wheel
        assert counter == ApproximateCounter(encoding)
    else:
        assert (counter.low, counter.high) == (1.0, 1.0)
        assert [counter.count(known[0]) for known in KNOWN] == [known[place] for known in KNOWN]


@pytest.mark.parametrize(("text", "newer", "older"), ORDINARY)
def test_the_approximation_keeps_its_band_on_ordinary_text(text: str, newer: int, older: int) -> None:
    for encoding, true in (("o200k_base", newer), ("cl100k_base", older)):
        counter = ApproximateCounter(encoding)  # type: ignore[arg-type]
        # Half a token for rounding: these are sentences, not files.
        assert counter.count(text) * counter.low - 0.5 <= true <= counter.count(text) * counter.high + 0.5


def test_a_model_nobody_knows_gets_a_band_that_holds_both_encodings() -> None:
    counter = counter_for("somebodys-own-deployment")
    assert counter.low < 1.0 < counter.high
    for text, newer, older in ORDINARY[:3]:
        count = counter.count(text)
        assert count * counter.low <= newer <= older <= count * counter.high + 0.5


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("gpt-5.1", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo-2024-04-09", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("text-embedding-3-large", "cl100k_base"),
        ("ft:gpt-4o-mini:acme::id", "o200k_base"),
        ("gpt-35-turbo-0613.ft-0e20", "cl100k_base"),
        ("gpt-4omega", None),
        ("o1000", None),
        ("my-deployment", None),
        (None, None),
    ],
)
def test_models_are_known_by_their_family(model: str | None, encoding: str | None) -> None:
    assert encoding_of(model) == encoding


# ---------------------------------------------------------------- made-up vocabularies


def merged_by_definition(data: bytes, ranks: dict[bytes, int]) -> int:
    parts = [bytes([byte]) for byte in data]
    while True:
        pairs = [
            (ranks[parts[i] + parts[i + 1]], i)
            for i in range(len(parts) - 1)
            if parts[i] + parts[i + 1] in ranks
        ]
        if not pairs:
            return len(parts)
        at = min(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@given(
    data=st.binary(max_size=40).map(lambda data: bytes(byte % 3 + 97 for byte in data)),
    words=st.lists(
        st.binary(min_size=2, max_size=6).map(lambda word: bytes(b % 3 + 97 for b in word)), unique=True
    ),
)
def test_merging_is_that_of_the_definition(data: bytes, words: list[bytes]) -> None:
    ranks = ranks_of(*words)
    assert merged_length(data, ranks) == merged_by_definition(data, ranks)


@given(text=st.text())
@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
def test_pieces_put_together_are_the_text(encoding: Encoding, text: str) -> None:
    assert "".join(word_pattern(encoding).findall(text)) == text


@given(data=st.data())
@pytest.mark.parametrize("last", [0x7F, 0xFFFF])
@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
def test_quicker_patterns_cut_their_texts_alike(encoding: Encoding, last: int, data: st.DataObject) -> None:
    text = data.draw(st.text(alphabet=st.characters(max_codepoint=last)))
    assert word_pattern(encoding, last).findall(text) == word_pattern(encoding).findall(text)


def test_a_piece_without_end_is_counted_in_parts() -> None:
    counter = VocabularyCounter("o200k_base", ranks_of(b"aa"))
    assert counter.count("a" * 100_000) == 50_000


def test_half_a_surrogate_pair_is_counted_not_refused() -> None:
    assert VocabularyCounter("o200k_base", ranks_of()).count("\ud83d") == 3


def test_a_vocabulary_file_is_read_with_its_ranks(tmp_path: Path) -> None:
    path = tmp_path / "made-up.tiktoken.gz"
    ranks = ranks_of(b"he", b"llo")
    with gzip.open(path, "wb") as file:
        file.writelines(base64.b64encode(word) + b" %d\n" % rank for word, rank in ranks.items())
    assert read_vocabulary(path) == ranks


def test_a_vocabulary_without_every_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.tiktoken.gz"
    with gzip.open(path, "wb") as file:
        file.write(base64.b64encode(b"he") + b" 256\n")
    with pytest.raises(ValueError, match=r"short\.tiktoken\.gz"):
        read_vocabulary(path)
