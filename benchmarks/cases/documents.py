"""The source of the cases f to i: documents as a tokeniser gives them, 10 to 512 tokens, and their text.

Example ``i`` is ``{"ids": int64 of (length,), "length": int, "text": str of 20 to 400 characters}``, or of 20
to 200 characters (i), or without the text. Its first token is ``i``, by which it is known again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

LONGEST = 512
_SHORTEST = 10
_TEXT, _SHORT_TEXT = (20, 400), (20, 200)
_VOCABULARY = 50_000
_TOKENS = 100_003
_LETTERS = 20_011
_LENGTHS = 4093
_WORDS = "the data of a loader reach their trainer naïve café Straße données 日本語 поезд in batch and row".split()


class Document(TypedDict, total=False):
    """An example; ``text`` may be absent."""

    ids: np.ndarray
    length: int
    text: str


@dataclass
class Documents:
    """Slices of two long pools: each example has memory of its own, as from a tokeniser."""

    tokens: np.ndarray
    prose: str
    lengths: list[tuple[int, int]]
    text: bool
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Document:
        length, letters = self.lengths[index % _LENGTHS]
        start = index * 7919 % (_TOKENS - LONGEST)
        ids = self.tokens[start : start + length].copy()
        ids[0] = index
        if not self.text:
            return {"ids": ids, "length": length}
        start = index * 6151 % (_LETTERS - _TEXT[1])
        return {"ids": ids, "length": length, "text": self.prose[start : start + letters]}


def documents(length: int, text: tuple[int, int] | None = None) -> Documents:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, _VOCABULARY, _TOKENS)
    prose = " ".join(rng.choice(_WORDS, _LETTERS))[:_LETTERS]
    of_ids = rng.integers(_SHORTEST, LONGEST + 1, _LENGTHS).tolist()
    shortest, longest = text or _TEXT
    of_text = rng.integers(shortest, longest + 1, _LENGTHS).tolist()
    return Documents(tokens, prose, list(zip(of_ids, of_text, strict=True)), text is not None, length)


def documents_with_text(length: int) -> Documents:
    return documents(length, _TEXT)


def documents_with_short_text(length: int) -> Documents:
    return documents(length, _SHORT_TEXT)
