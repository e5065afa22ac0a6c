"""How many enqueued tokens a request takes from a target's quota, told from its bytes, cheaply.

What counts is the service's secret. OpenAI documents enqueued *prompt* tokens; Azure says "enqueued tokens"
and no more (wire reference, section 4). So input is reserved, with a margin, and output only if asked. A
reserve too small costs a bounce, which the ledger takes for back-pressure; one too large leaves quota unused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from langbatch.money.estimates import Estimate

#: Request lines of English chats and of documents in nine languages took 0.15 to 0.17 tokens a byte, their
#: text alone 0.17 to 0.31 (o200k_base); tables of numbers, and base64 as text, take up to 0.7.
DEFAULT_TOKENS_PER_BYTE: Final = 0.34
#: For an image whose bytes stand in the line: they are no text.
_IMAGE_TOKENS: Final = 1_500
_DATA_URL = re.compile(rb"data:image/[\w.+-]+;base64,[A-Za-z0-9+/=\\]*+")
#: Over what was counted: what has been seen of a file's requests may differ from the rest.
_MARGIN: Final = 1.05


@dataclass(frozen=True, slots=True)
class ReserveRule:
    """Bytes to tokens. `answer_tokens` is added to every request where a service counts output too."""

    tokens_per_byte: float = DEFAULT_TOKENS_PER_BYTE
    answer_tokens: int = 0
    image_tokens: int = _IMAGE_TOKENS

    @classmethod
    def learnt(cls, estimate: Estimate, *, answer_tokens: int = 0) -> ReserveRule:
        """The rule that fits a file whose tokens have been estimated."""
        if estimate.bytes == 0:
            return cls(answer_tokens=answer_tokens)
        return cls(max(estimate.high / estimate.bytes, 0.01) * _MARGIN, answer_tokens)

    def of_line(self, line: bytes) -> int:
        """For one request line, images in it taken out of its bytes."""
        size, images = len(line), 0
        if b";base64," in line:
            for found in _DATA_URL.finditer(line):
                size -= found.end() - found.start()
                images += 1
        return self.of_bytes(size) + images * self.image_tokens

    def of_bytes(self, size: int, requests: int = 1) -> int:
        """For `requests` lines of `size` bytes together, where the lines are not at hand."""
        return math.ceil(size * self.tokens_per_byte) + requests * self.answer_tokens
