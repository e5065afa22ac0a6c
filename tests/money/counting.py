"""A made-up vocabulary, so that counts do not depend on which wheels a platform has."""

from __future__ import annotations

from langbatch.money.tokens import VocabularyCounter


def ranks_of(*words: bytes) -> dict[bytes, int]:
    """Every byte, and then these words in the order of their ranks."""
    return {word: rank for rank, word in enumerate([*(bytes([byte]) for byte in range(256)), *words])}


#: `Hello, world!` is four tokens as in the real ones, `user` one; anything else is its bytes.
MADE_UP = VocabularyCounter(
    "o200k_base",
    ranks_of(
        *(b"He", b"Hel", b"Hell", b"Hello"),
        *(b" w", b" wo", b" wor", b" worl", b" world"),
        *(b"us", b"use", b"user"),
    ),
)
