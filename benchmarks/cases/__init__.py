"""The cases: what is read, and in what batches.

One file an idea::

    contract.py     what a case is made of: a source, a batching
       │
       ├── images.py       sources: arrays that are at hand, photos to decode        a b c d e
       │   stacked.py      batching: each example in its row of one array
       │
       └── documents.py    source: tokens of differing length, with or without text  f g h i
           varying.py      what the next two share
           padded.py       batching: filled up to the longest of the batch           f g i
           ragged.py       batching: end to end, with row splits                     h

Every example is a function of its number alone, and tells that number, so that what a contender delivers can be
checked by label and by content. The arrays come from small pools: the work is that of the case, not of making random
numbers.
"""

from __future__ import annotations

from benchmarks.cases.contract import ENDLESS, Batching, Case, Source
from benchmarks.cases.documents import documents, documents_with_short_text, documents_with_text
from benchmarks.cases.images import IMAGE_SHAPE, ROW_SHAPE, float_images, float_rows, photos, uint8_images
from benchmarks.cases.padded import Padded
from benchmarks.cases.ragged import Ragged
from benchmarks.cases.stacked import Stacked

_UINT8_IMAGE, _FLOAT_IMAGE = Stacked(IMAGE_SHAPE, "uint8"), Stacked(IMAGE_SHAPE, "float32")

CASES: dict[str, Case] = {
    case.key: case
    for case in (
        Case("a", "224×224×3 uint8 images, batch 64", 64, _UINT8_IMAGE, uint8_images),
        Case("b", "224×224×3 float32 images, batch 32", 32, _FLOAT_IMAGE, float_images),
        Case("c", "500×375 JPEGs decoded with PIL, batch 32", 32, _FLOAT_IMAGE, photos),
        Case("d", "rows of 100 float32, batch 256", 256, Stacked(ROW_SHAPE, "float32"), float_rows),
        Case("e", "500×375 JPEGs decoded with PIL, batch 512", 512, _FLOAT_IMAGE, photos, check_batches=2),
        Case("f", "10–512 tokens padded, and a text, batch 64", 64, Padded("bytes"), documents_with_text),
        Case("g", "10–512 tokens padded, batch 64", 64, Padded(), documents),
        Case("h", "10–512 tokens ragged, batch 64", 64, Ragged(), documents),
        Case("i", "10–512 tokens padded, and a `str`, batch 64", 64, Padded("str"), documents_with_short_text),
    )
}

__all__ = ["CASES", "ENDLESS", "Batching", "Case", "Source"]
