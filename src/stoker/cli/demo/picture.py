"""demo.png: both throughputs side by side, and a strip of augmented digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .digits import Digits, augment
from .race import Result

PAPER, INK, SOFT, FAINT = "#fbfaf7", "#22252b", "#6d7178", "#e3e0d8"
ASH, EMBER = "#a9adb5", "#e2571e"

COLUMNS = 10
"""Number of digits in the strip, one of each."""


def save(out: Path, results: list[Result], digits: Digits, cost: float, seed: int) -> None:
    """Draws the picture.

    Args:
        out: The PNG file to write.
        results: The results, one process first, then Stoker.
        digits: The source of the strip's digits.
        cost: Milliseconds per augmentation, for the subtitle.
        seed: Seed of the strip's augmentations.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.family": "DejaVu Sans", "text.color": INK}):
        figure = Figure(figsize=(12, 7.6), facecolor=PAPER)
        figure.text(0.05, 0.915, "One fit(), fed two ways", fontsize=25, weight="bold")
        subtitle = f"Examples per second into Keras, each digit augmented by {cost:.1f} ms of plain Python"
        figure.text(0.05, 0.868, subtitle, fontsize=13, color=SOFT)
        bars(figure.add_axes((0.05, 0.455, 0.90, 0.385)), results)
        strip(figure, digits, seed)
        figure.savefig(out, dpi=160, format="png")


def bars(axes: Any, results: list[Result]) -> None:
    """Examples/s, one bar per contender, with the ratio highlighted."""
    best = max(result.rate for result in results)
    for place, (result, colour) in enumerate(zip(results, (ASH, EMBER), strict=True)):
        axes.barh(-place, result.rate, height=0.48, color=colour)
        name = axes.text(0, -place + 0.31, result.name, fontsize=14, weight="bold", va="baseline")
        beside = {"xycoords": (name, "data"), "xytext": (14, 0), "textcoords": "offset points"}
        axes.annotate(detail(result), (1, -place + 0.31), fontsize=12, color=SOFT, va="baseline", **beside)
        value = f"{result.rate:,.0f}"
        axes.text(result.rate + best * 0.012, -place, value, fontsize=22, weight="bold", va="center")
    ratio = f"{results[1].rate / results[0].rate:.1f}\N{MULTIPLICATION SIGN}"
    axes.text(best * 1.33, -0.52, ratio, fontsize=56, weight="bold", color=EMBER, ha="right", va="center")
    axes.set_xlim(0, best * 1.33)
    axes.set_ylim(-1.3, 0.7)
    axes.axis("off")


def detail(result: Result) -> str:
    """The text above a bar, next to the contender's name."""
    return f"{result.how}, {result.waiting:.0%} of each step spent waiting, {result.accuracy:.1%} test accuracy"


def strip(figure: Any, digits: Digits, seed: int) -> None:
    """Digits as scanned, each with two augmented versions below it."""
    rng = np.random.default_rng(seed)
    chosen = [int(np.flatnonzero(digits.labels == digit)[0]) for digit in range(COLUMNS)]
    for row, title in enumerate(("as scanned", "one epoch", "the next")):
        top = 0.292 - row * 0.126
        figure.text(0.05, top + 0.058, title, fontsize=12, color=SOFT, va="center")
        for column, index in enumerate(chosen):
            image = augment(digits[index], rng)[0][..., 0] if row else digits.images[index]
            draw(figure.add_axes((0.15 + column * 0.0805, top, 0.0755, 0.116)), image)


def draw(axes: Any, image: Any) -> None:
    """One digit in a thin frame."""
    from matplotlib.colors import LinearSegmentedColormap

    ink = LinearSegmentedColormap.from_list("ink", ["white", INK])
    axes.imshow(image, cmap=ink, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(FAINT)
