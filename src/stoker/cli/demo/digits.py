"""The data: real handwritten digits, and the plain Python that augments them.

This is the user's half of the demo, written as a user would write it: no TensorFlow, no Stoker. Both
contenders run exactly this code, and the workers import nothing else of the demo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Example = tuple[Image, np.int64]

SIDE = 32
"""Height and width of the model's input, in pixels."""

FINE = 96
"""Height and width of the canvas on which a digit is distorted: larger, so that resampling loses no detail."""


class Digits:
    """Handwritten digits as a map-style source.

    Args:
        images: Grey images of shape (n, 8, 8), float32 from 0 (paper) to 1 (ink).
        labels: The digit in each image, shape (n,), int64.
    """

    def __init__(self, images: Image, labels: NDArray[np.int64]) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        """One image of shape (8, 8) and its label."""
        return self.images[index], self.labels[index]


@dataclass(frozen=True)
class Split:
    """The training digits, and the held-out digits that the model never sees during training."""

    train: Digits
    held_out: Digits


def load(held_out: float = 0.2, seed: int = 7) -> Split:
    """Loads the 1,797 digits that ship with scikit-learn, and holds out a part of them.

    They come from the UCI set *Optical Recognition of Handwritten Digits* (E. Alpaydin and C. Kaynak, 1998).

    Args:
        held_out: The share held out, the same for each digit.
        seed: Seed that selects the held-out digits.

    Returns:
        The two parts, without a common image.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    parts = train_test_split(
        images, digits.target.astype(np.int64), test_size=held_out, random_state=seed, stratify=digits.target
    )
    return Split(train=Digits(parts[0], parts[2]), held_out=Digits(parts[1], parts[3]))


def enlarge(image: Image) -> Any:
    """An image of shape (8, 8) with a margin of one pixel, drawn on the fine canvas with cubic splines."""
    from scipy import ndimage

    framed = np.pad(image, 1)
    return ndimage.zoom(framed, FINE / len(framed), order=3)


def shrink(canvas: Any) -> Image:
    """The fine canvas as the model's input: shape (SIDE, SIDE, 1), float32 from 0 to 1, by area mean."""
    cell = FINE // SIDE
    small = canvas.reshape(SIDE, cell, SIDE, cell).mean(axis=(1, 3))
    image: Image = np.clip(small, 0, 1).astype(np.float32)[..., None]
    return image


def augment(example: Example, rng: np.random.Generator) -> Example:
    """A new variant of the same digit: rotated, shifted, resized and distorted.

    Args:
        example: An image of shape (8, 8) and its label.
        rng: The source of all randomness.

    Returns:
        An image of shape (SIDE, SIDE, 1), float32 from 0 to 1, and the same label.
    """
    from scipy import ndimage

    image, label = example
    canvas = enlarge(image)
    canvas = ndimage.rotate(canvas, rng.uniform(-18, 18), reshape=False, order=3)
    canvas = ndimage.shift(canvas, rng.uniform(-6, 6, size=2), order=3)
    canvas = _zoom(canvas, rng.uniform(0.85, 1.12))
    return shrink(_elastic(canvas, rng)), label


def _zoom(canvas: Any, factor: float) -> Any:
    """Resizes around the center and keeps the shape: crops what sticks out, fills gaps with paper."""
    from scipy import ndimage

    centre = (FINE - 1) / 2 * (1 - 1 / factor)
    return ndimage.affine_transform(canvas, np.eye(2) / factor, offset=centre, order=3)


def _elastic(canvas: Any, rng: np.random.Generator, reach: float = 8.0, strength: float = 60.0) -> Any:
    """Distorts the canvas by a smooth random field (Simard, Steinkraus and Platt, ICDAR 2003).

    Args:
        canvas: Shape (FINE, FINE).
        rng: Draws the field.
        reach: The extent of a distortion in pixels: the sigma of the Gaussian that smooths the field.
        strength: The factor for the smoothed field, which is drawn from -1 to 1.

    Returns:
        The distorted canvas.
    """
    from scipy import ndimage

    noise = rng.uniform(-1, 1, size=(2, FINE, FINE))
    field = [strength * ndimage.gaussian_filter(axis, reach) for axis in noise]
    return ndimage.map_coordinates(canvas, np.indices(canvas.shape) + field, order=3)
