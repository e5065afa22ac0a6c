"""Which encoding a model reads with, and where its vocabulary is. Nothing is ever downloaded.

Facts: the encodings' patterns and the models' names are those of openai/tiktoken
(`tiktoken_ext/openai_public.py`, `tiktoken/model.py`). The vocabularies are data files of the `bpe-openai`
wheel; its engine is not loaded, since that takes 100 MB of memory. Without the package, and for models that
nobody here knows, tokens are estimated.
"""

from __future__ import annotations

import base64
import gzip
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

Encoding = Literal["o200k_base", "cl100k_base"]

#: Longest prefix wins; a model's own name, or its name and a dash.
_FAMILIES: Final[tuple[tuple[str, Encoding], ...]] = (
    ("o1", "o200k_base"),
    ("o3", "o200k_base"),
    ("o4-mini", "o200k_base"),
    ("chatgpt-4o", "o200k_base"),
    ("gpt-5", "o200k_base"),
    ("gpt-4.5", "o200k_base"),
    ("gpt-4.1", "o200k_base"),
    ("gpt-4o", "o200k_base"),
    ("gpt-oss", "o200k_base"),  # o200k_harmony: the same words, more special tokens
    ("gpt-4", "cl100k_base"),
    ("gpt-3.5-turbo", "cl100k_base"),
    ("gpt-35-turbo", "cl100k_base"),  # Azure's spelling
    ("davinci-002", "cl100k_base"),
    ("babbage-002", "cl100k_base"),
    ("text-embedding-ada-002", "cl100k_base"),
    ("text-embedding-3-small", "cl100k_base"),
    ("text-embedding-3-large", "cl100k_base"),
)
#: Families whose versions follow a dot: `gpt-5.1`.
_DOTTED: Final = frozenset({"gpt-5"})
_FINE_TUNED = re.compile(r"ft:([^:]+):.*|([^:]+)\.ft-.*", re.DOTALL)
#: Base models of the services have 100,256 and 199,998 words; far fewer mean a damaged file.
_LEAST_WORDS: Final = 256


def encoding_of(model: str | None) -> Encoding | None:
    """What `model` reads with; None for a name that is not a known model's, a deployment's for example."""
    if model is None:
        return None
    tuned = _FINE_TUNED.fullmatch(model)
    name = (tuned[1] or tuned[2]) if tuned else model
    found: tuple[int, Encoding | None] = (0, None)
    for family, encoding in _FAMILIES:
        fits = name == family or name.startswith(f"{family}-")
        if fits or (family in _DOTTED and name.startswith(f"{family}.")):
            found = max(found, (len(family), encoding))
    return found[1]


def vocabulary_file(encoding: Encoding) -> Path | None:
    """The installed vocabulary; None where the `tokens` extra is not installed."""
    spec = find_spec("bpe_openai")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / "data" / f"{encoding}.tiktoken.gz"
        if path.is_file():
            return path
    return None


def read_vocabulary(path: Path) -> dict[bytes, int]:
    """Words and their ranks. About 26 MB for o200k_base, read in a quarter of a second.

    Raises `ValueError` or `OSError` for a file that is not one.
    """
    ranks: dict[bytes, int] = {}
    with gzip.open(path, "rb") as lines:
        for line in lines:
            word, _, rank = line.partition(b" ")
            if rank:
                ranks[base64.b64decode(word)] = int(rank)
    if len(ranks) < _LEAST_WORDS or any(bytes([byte]) not in ranks for byte in range(256)):
        raise ValueError(f"{path.name} does not hold every single byte; install the package again")
    return ranks


# ---------------------------------------------------------------- how text is cut before words are merged

#: Unicode's White_Space. Python's `\s` also takes U+001C to U+001F, which the encodings do not.
_SPACE: Final = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"


@lru_cache(maxsize=6)
def word_pattern(encoding: Encoding, last: int = sys.maxunicode) -> re.Pattern[str]:
    """Cuts text into the pieces within which words are merged.

    `last` is a code point that the text does not go beyond. Lower ones are much quicker: `re` looks through
    ranges above U+FFFF one by one, for every character that is in none of them.

    Python's `re` has no `\\p{…}`; its classes are written out from this Python's Unicode tables. Characters
    that only another Unicode version knows may be cut differently.
    """
    ranges = _category_ranges(last)
    space = "\\t-\\r " if last < 128 else _SPACE
    upper = "".join(ranges[name] for name in ("Lu", "Lt", "Lm", "Lo", "Mn", "Mc", "Me"))
    lower = "".join(ranges[name] for name in ("Ll", "Lm", "Lo", "Mn", "Mc", "Me"))
    letter = "".join(ranges[name] for name in ("Lu", "Ll", "Lt", "Lm", "Lo"))
    number = "".join(ranges[name] for name in ("Nd", "Nl", "No"))
    if encoding == "cl100k_base":
        parts: tuple[str, ...] = (
            r"'(?i:[sdmt]|ll|ve|re)",
            rf"[^\r\n{letter}{number}]?+[{letter}]++",
            rf"[{number}]{{1,3}}+",
            rf" ?[^{space}{letter}{number}]++[\r\n]*+",
            rf"[{space}]++\Z",
            rf"[{space}]*[\r\n]",
            rf"[{space}]+(?![^{space}])",
            rf"[{space}]",
        )
    else:
        short = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        parts = (
            rf"[^\r\n{letter}{number}]?[{upper}]*[{lower}]+{short}",
            rf"[^\r\n{letter}{number}]?[{upper}]+[{lower}]*{short}",
            rf"[{number}]{{1,3}}",
            rf" ?[^{space}{letter}{number}]+[\r\n/]*",
            rf"[{space}]*[\r\n]+",
            rf"[{space}]+(?![^{space}])",
            rf"[{space}]+",
        )
    return re.compile("|".join(parts))


@lru_cache(maxsize=3)
def _category_ranges(last: int) -> Mapping[str, str]:
    """Character class text of each general category up to code point `last`: `A-ZÀ-Ö…`, escaped."""
    runs: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    start, held = 0, unicodedata.category("\0")
    for point in range(1, last + 2):
        category = unicodedata.category(chr(point)) if point <= last else ""
        if category != held:
            runs[held].append((start, point - 1))
            start, held = point, category
    return defaultdict(
        str,
        {name: "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in pairs) for name, pairs in runs.items()},
    )
