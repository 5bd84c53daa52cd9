"""Sources of the cases a to e: arrays that are at hand, and photos to decode. Example ``i`` is ``(x, i)``."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

IMAGE_SHAPE = (224, 224, 3)
ROW_SHAPE = (100,)
JPEG_SIZE = (500, 375)
_IMAGES = 251
"""Images in a pool: a prime, so that however work is split, each worker comes to see the whole pool."""

_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_SCALE = np.float32(1 / 255) / np.array([0.229, 0.224, 0.225], np.float32)


@dataclass
class Pool:
    """Ready arrays, handed out in turn: the user's code costs next to nothing."""

    arrays: np.ndarray
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.arrays[index % len(self.arrays)], index


@dataclass
class Photos:
    """JPEGs decoded, cropped, flipped and normalised: what a training on images does in Python."""

    jpegs: list[bytes]
    length: int

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


def uint8_images(length: int) -> Pool:
    return Pool(np.random.default_rng(0).integers(0, 256, (_IMAGES, *IMAGE_SHAPE), np.uint8), length)


def float_images(length: int) -> Pool:
    return Pool(np.random.default_rng(0).random((_IMAGES, *IMAGE_SHAPE), np.float32), length)


def float_rows(length: int) -> Pool:
    return Pool(np.random.default_rng(0).random((4093, *ROW_SHAPE), np.float32), length)


def photos(length: int) -> Photos:
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
