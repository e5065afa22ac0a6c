"""Tokens of a whole input: every request counted where it is small, else a sample with a 95 % band.

Requests are put into strata by model and by size (powers of two). Of each stratum a seeded random sample is
counted; tokens per byte times the stratum's bytes is its estimate (a ratio estimator), and its residuals give
the variance. To that band comes what one count itself leaves open: images of unknown size, schemas, models
whose vocabulary is not at hand. Output is bounded for every request, never sampled: a bound must hold.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import msgspec

from langbatch.money.bodies import BodyTokens, OutputBound, input_tokens, output_bound
from langbatch.money.tokens import TokenCounter, counter_for
from langbatch.records import EndpointKind

Method = Literal["exact", "counted", "sampled", "none"]

#: Up to here every request is counted; about a second.
COUNT_ALL_BYTES: Final = 2 << 20
#: Requests of a stratum that are counted, and their bytes at most: but two at least, or there is no variance.
_SAMPLE_REQUESTS: Final = 300
_SAMPLE_BYTES: Final = 1 << 20
_LEAST_SAMPLE: Final = 2
_SEED: Final = 20_240_417


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens of `requests` requests before they are sent.

    The true input is `input_tokens`, between `low` and `high` in 95 of 100 files. `output_tokens_at_most` is
    None where some request sets no bound and the model's own is not known. `method`: `exact`, every request
    counted and nothing left open; `counted`, every request counted; `sampled`, `counted_requests` of them.
    `elsewhere` names what brings input that is in none of the requests: then `high` is no bound of all.
    """

    requests: int = 0
    bytes: int = 0
    input_tokens: int = 0
    low: int = 0
    high: int = 0
    output_tokens_at_most: int | None = 0
    method: Method = "none"
    counted_requests: int = 0
    elsewhere: str | None = None

    def __add__(self, other: Estimate) -> Estimate:
        """Bands are added as they are, so the sum's is rather too wide."""
        ours, theirs = self.output_tokens_at_most, other.output_tokens_at_most
        return Estimate(
            self.requests + other.requests,
            self.bytes + other.bytes,
            self.input_tokens + other.input_tokens,
            self.low + other.low,
            self.high + other.high,
            None if ours is None or theirs is None else ours + theirs,
            max(self.method, other.method, key=_LEAST_SURE.index),
            self.counted_requests + other.counted_requests,
            self.elsewhere or other.elsewhere,
        )


_LEAST_SURE: Final[tuple[Method, ...]] = ("none", "exact", "counted", "sampled")


@dataclass(slots=True)
class _Stratum:
    requests: int = 0
    bytes: int = 0
    #: Offset and length of the requests drawn so far.
    drawn: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class _ModelSum:
    """What one model's requests add up to; `counted` is what counting each of them has given so far."""

    strata: dict[int, _Stratum] = field(default_factory=dict)
    bounded: int = 0
    unbounded_answers: int = 0
    counted: Estimate = field(default_factory=lambda: Estimate())

    def take(self, found: BodyTokens, size: int) -> None:
        method: Method = "exact" if found.low == found.high and not found.elsewhere else "counted"
        self.counted += Estimate(1, size, found.tokens, found.low, found.high, 0, method, 1, found.elsewhere)

    def output_at_most(self, most: int | None) -> int | None:
        """`most` is what the model writes at most, for answers that no request bounds."""
        if not self.unbounded_answers:
            return self.bounded
        return None if most is None else self.bounded + self.unbounded_answers * most


class Estimator:
    """Takes a file's requests one after the other; memory does not grow with their number.

    `model` is what they will be sent to, where it is not the model that each line names: the model behind a
    deployment, if it is known. `model_of` turns a name that a line has into a model's; None: not known.
    `count_all` counts every request while it passes, at 1 to 15 MB a second.
    """

    def __init__(
        self,
        kind: EndpointKind,
        *,
        model: str | None = None,
        model_of: Callable[[str], str | None] = lambda name: name,
        count_all: bool = False,
        counters: Callable[[str | None], TokenCounter] = counter_for,
    ) -> None:
        self._kind = kind
        self._model = model
        self._model_of = model_of
        self._counters = counters
        self._random = random.Random(_SEED)
        self._sums: dict[str | None, _ModelSum] = {}
        self._count_all = count_all
        #: Every request so far, as long as all of them may be counted: (model, offset, length).
        self._every: list[tuple[str | None, int, int]] | None = []
        self._bytes = 0

    def add(self, line: bytes, offset: int) -> OutputBound:
        """The next sound request, and where in the file it stands."""
        bound = output_bound(line, self._kind)
        model = self._model
        if model is None and bound.model is not None:
            model = self._model_of(bound.model)
        found = self._sums.get(model)
        if found is None:
            found = self._sums[model] = _ModelSum()
        if bound.tokens is None:
            found.unbounded_answers += bound.answers
        else:
            found.bounded += bound.tokens
        size = len(line)
        self._bytes += size
        if self._count_all:
            found.take(self._tokens_of(line, model), size)
            return bound
        self._draw(found.strata, offset, size)
        if self._every is not None:
            self._every.append((model, offset, size))
            if self._bytes > COUNT_ALL_BYTES:
                self._every = None
        return bound

    def _draw(self, strata: dict[int, _Stratum], offset: int, size: int) -> None:
        """Reservoir sampling: each request of the stratum is as likely to be in it as any other."""
        rank = size.bit_length()
        stratum = strata.get(rank)
        if stratum is None:
            stratum = strata[rank] = _Stratum()
        room = max(min(_SAMPLE_REQUESTS, _SAMPLE_BYTES >> rank), _LEAST_SAMPLE)
        if len(stratum.drawn) < room:
            stratum.drawn.append((offset, size))
        else:
            place = int(self._random.random() * (stratum.requests + 1))
            if place < room:
                stratum.drawn[place] = (offset, size)
        stratum.requests += 1
        stratum.bytes += size

    def finish(
        self,
        read: Callable[[int, int], bytes],
        *,
        most_output: Callable[[str], int | None] = lambda model: None,
    ) -> dict[str | None, Estimate]:
        """Per model; None where it is not known. `read(offset, length)` gives a request's line again.

        `most_output` is the most that a model writes in one answer, for requests that set no bound.
        """
        if self._every is not None:
            for model, offset, size in self._every:
                self._sums[model].take(self._tokens_of(read(offset, size), model), size)
        estimates = {}
        for model, found in self._sums.items():
            output = found.output_at_most(None if model is None else most_output(model))
            if found.counted.requests:
                estimates[model] = replace(found.counted, output_tokens_at_most=output)
            else:
                estimates[model] = self._extrapolated(found.strata, read, model, output)
        return estimates

    def _tokens_of(self, line: bytes, model: str | None) -> BodyTokens:
        return input_tokens(_decode_body(line).body, self._kind, self._counters(model), model)

    def _extrapolated(
        self,
        strata: Mapping[int, _Stratum],
        read: Callable[[int, int], bytes],
        model: str | None,
        output: int | None,
    ) -> Estimate:
        tokens = below = above = variance = 0.0
        counted = 0
        elsewhere: str | None = None
        for stratum in strata.values():
            counts = [self._tokens_of(read(offset, size), model) for offset, size in stratum.drawn]
            sizes = [size for _, size in stratum.drawn]
            grown = stratum.bytes / sum(sizes)
            mine = sum(each.tokens for each in counts)
            tokens += mine * grown
            below += (mine - sum(each.low for each in counts)) * grown
            above += (sum(each.high for each in counts) - mine) * grown
            variance += _half_width([each.tokens for each in counts], sizes, stratum.requests) ** 2
            counted += len(counts)
            elsewhere = elsewhere or next((each.elsewhere for each in counts if each.elsewhere), None)
        half = math.sqrt(variance)
        return Estimate(
            sum(stratum.requests for stratum in strata.values()),
            sum(stratum.bytes for stratum in strata.values()),
            round(tokens),
            max(math.floor(tokens - below - half), 0),
            math.ceil(tokens + above + half),
            output,
            "sampled",
            counted,
            elsewhere,
        )


class _BodyOnly(msgspec.Struct):
    body: dict[str, Any]


_decode_body = msgspec.json.Decoder(_BodyOnly).decode


def _half_width(tokens: list[int], sizes: list[int], population: int) -> float:
    """Of the 95 % band of a stratum's ratio estimate (Cochran, Sampling Techniques, chapter 6)."""
    drawn = len(tokens)
    if drawn >= population:
        return 0.0
    ratio = sum(tokens) / sum(sizes)
    freedom = drawn - 1
    residuals = sum((count - ratio * size) ** 2 for count, size in zip(tokens, sizes, strict=True))
    variance = population**2 * (1 - drawn / population) * residuals / freedom / drawn
    return _student(freedom) * math.sqrt(variance)


def _student(freedom: int) -> float:
    """The 97.5 % point of Student's t, by the Cornish-Fisher series; exact to 1 % from four on."""
    if freedom < 4:
        return (12.71, 4.31, 3.19)[freedom - 1]
    return 1.960 + 2.372 / freedom + 2.823 / freedom**2 + 2.556 / freedom**3


def total(estimates: Mapping[str | None, Estimate]) -> Estimate:
    """All models together."""
    return sum(estimates.values(), Estimate())
