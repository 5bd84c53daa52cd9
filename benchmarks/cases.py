"""The data of each case: sources a user could have written, and the batches asked for.

Every source gives ``(x, i)`` for example ``i``, and ``x`` is a function of ``i`` alone, so that what a
contender delivers can be checked by label and by content. The arrays come from small pools: the work is
that of the case, not of making random numbers.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

ENDLESS = 100_000_000
"""Examples in a source that is read for a time, not to its end."""

IMAGE_SHAPE = (224, 224, 3)
JPEG_SIZE = (500, 375)
_IMAGES = 251
"""Images in a pool: a prime, so that however work is split, each worker comes to see the whole pool."""

_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_SCALE = np.float32(1 / 255) / np.array([0.229, 0.224, 0.225], np.float32)


class Source(Protocol):
    """What every loader here can read: a map-style dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]: ...


@dataclass
class Pool:
    """Ready arrays, handed out in turn: the user's code costs next to nothing."""

    arrays: np.ndarray
    length: int = ENDLESS

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.arrays[index % len(self.arrays)], index


@dataclass
class Photos:
    """JPEGs decoded, cropped, flipped and normalised: what a training on images does in Python."""

    jpegs: list[bytes]
    length: int = ENDLESS

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng(index)
        with Image.open(io.BytesIO(self.jpegs[index % len(self.jpegs)])) as photo:
            pixels = np.asarray(photo.convert("RGB"))
        height, width, _ = IMAGE_SHAPE
        top = rng.integers(pixels.shape[0] - height + 1)
        left = rng.integers(pixels.shape[1] - width + 1)
        crop = pixels[top : top + height, left : left + width]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        return (crop - _MEAN) * _SCALE, index


@dataclass(frozen=True)
class Case:
    """One kind of data and how it is batched.

    Attributes:
        key: the letter used on the command line and in the results.
        title: one line for tables and charts.
        batch_size: examples a batch.
        shape: shape of one example's ``x``.
        dtype: dtype of ``x``; the label is always int64.
        make: makes a source of the given number of examples.
        check_batches: batches in the short epoch that is checked example by example.
    """

    key: str
    title: str
    batch_size: int
    shape: tuple[int, ...]
    dtype: str
    make: Callable[[int], Source]
    check_batches: int = 6

    @property
    def batch_bytes(self) -> int:
        """Bytes of the ``x`` of one batch."""
        return self.batch_size * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def _uint8_images(length: int) -> Pool:
    return Pool(np.random.default_rng(0).integers(0, 256, (_IMAGES, *IMAGE_SHAPE), np.uint8), length)


def _float_images(length: int) -> Pool:
    return Pool(np.random.default_rng(0).random((_IMAGES, *IMAGE_SHAPE), np.float32), length)


def _rows(length: int) -> Pool:
    return Pool(np.random.default_rng(0).random((4093, 100), np.float32), length)


def _photos(length: int) -> Photos:
    return Photos([_photo_like_jpeg(seed) for seed in range(61)], length)


def _photo_like_jpeg(seed: int) -> bytes:
    """Smooth shapes, an edge or two and some grain: about as many bytes, and as long to decode, as a photo."""
    rng = np.random.default_rng(seed)
    colours = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    pixels = np.asarray(colours.resize(JPEG_SIZE, Image.Resampling.BICUBIC), np.int16)
    texture = Image.fromarray(rng.integers(0, 256, (94, 125, 3), np.uint8))
    pixels = pixels + np.asarray(texture.resize(JPEG_SIZE, Image.Resampling.BICUBIC), np.int16) // 4 - 32
    pixels = pixels + rng.integers(-6, 7, pixels.shape, np.int16)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def _all_cases() -> dict[str, Case]:
    cases: list[Case] = [
        Case("a", "224×224×3 uint8 images, batch 64", 64, IMAGE_SHAPE, "uint8", _uint8_images),
        Case("b", "224×224×3 float32 images, batch 32", 32, IMAGE_SHAPE, "float32", _float_images),
        Case("c", "500×375 JPEGs decoded with PIL, batch 32", 32, IMAGE_SHAPE, "float32", _photos),
        Case("d", "rows of 100 float32, batch 256", 256, (100,), "float32", _rows),
        Case("e", "500×375 JPEGs decoded with PIL, batch 512", 512, IMAGE_SHAPE, "float32", _photos, 2),
    ]
    return {case.key: case for case in cases}


CASES = _all_cases()


def collate(examples: list[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Stack examples into a batch, as the users of every peer do."""
    xs, labels = zip(*examples, strict=True)
    return np.stack(xs), np.array(labels, np.int64)


def read_rows(source: Source, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch of the examples ``start`` to ``stop``, collated in this process."""
    return collate([source[index] for index in range(start, stop)])


def same(batch: tuple[Any, Any], source: Source) -> bool:
    """Whether each row of a delivered batch is what the source gives for the row's label."""
    xs, labels = (np.asarray(part) for part in batch)
    if labels.dtype != np.int64 or len(xs) != len(labels):
        return False
    wanted = (source[int(label)][0] for label in labels)
    return all(row.dtype == want.dtype and np.array_equal(row, want) for row, want in zip(xs, wanted, strict=True))
