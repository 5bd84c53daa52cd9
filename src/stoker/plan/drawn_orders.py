"""Orders that Stoker draws for the user: `weighted`, `balanced`, `bucketed`."""

from __future__ import annotations

import datetime
import hashlib
import numbers
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stoker.errors import OptionError
from stoker.plan.orders import DrawnOrder, makes_order
from stoker.validation import flag, whole

#: Types of labels; those of one order are of one of these.
_KINDS = str, bytes, (numbers.Number, np.bool_, np.datetime64), datetime.datetime, datetime.date


class WeightedOrder(DrawnOrder):
    """See `weighted`."""

    name = "stoker.weighted"

    def __init__(self, weights: npt.NDArray[np.float64], n: int | None, replacement: bool) -> None:
        self.length, self._replacement = len(weights), replacement
        self._chosen = np.flatnonzero(weights)  # those that can be drawn
        self.count = n or (self.length if replacement else len(self._chosen))
        if not replacement and self.count > len(self._chosen):
            raise OptionError(
                f"weighted: n={self.count:,} examples cannot be drawn without replacement, as only "
                f"{len(self._chosen):,} of {self.length:,} have a weight above 0. Pass a smaller n or replacement=True."
            )
        self._weights = weights[self._chosen] / weights.max()
        self._sums: npt.NDArray[np.float64] = np.cumsum(self._weights)

    def __call__(self, epoch: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """The examples, with repetitions where they are drawn with replacement."""
        assert self.count is not None
        if self._replacement:
            drawn = np.sort(rng.random(self.count)) * self._sums[-1]  # sorted: searching is several times faster then
            places = np.searchsorted(self._sums[:-1], drawn, side="right")  # the last one takes what is left
            rng.shuffle(places)
        else:
            with np.errstate(over="ignore"):
                times = rng.standard_exponential(len(self._weights)) / self._weights  # the first to arrive are drawn
            first = np.argpartition(times, self.count - 1)[: self.count]
            places = first[np.argsort(times[first], kind="stable")]
        found: npt.NDArray[np.int64] = self._chosen[places]
        return found

    def digest(self) -> str:
        """Distinguishes it from others of its kind."""
        return _digest(self._chosen, self._weights, self.count, self._replacement)


class BalancedOrder(DrawnOrder):
    """See `balanced`."""

    name = "stoker.balanced"

    def __init__(self, classes: npt.NDArray[np.int64], count: int) -> None:
        self.length, self._each = len(classes), len(classes) // count
        self._members = np.split(np.argsort(classes, kind="stable"), np.cumsum(np.bincount(classes))[:-1])
        self.count = self._each * count

    def __call__(self, epoch: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """The examples, in random order."""
        found = np.concatenate([self._some(members, rng) for members in self._members])
        rng.shuffle(found)
        return found

    def _some(self, members: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """As many members of a class as each class gives; none comes twice more often than another."""
        passes, rest = divmod(self._each, len(members))
        return np.concatenate([*[members] * passes, rng.permutation(members)[:rest]])

    def digest(self) -> str:
        """Distinguishes it from others of its kind."""
        return _digest(*self._members)


class BucketedOrder(DrawnOrder):
    """See `bucketed`."""

    name = "stoker.bucketed"

    def __init__(self, buckets: npt.NDArray[np.int64], sizes: list[int]) -> None:
        self.length = len(buckets)
        members = [(np.flatnonzero(buckets == number), size) for number, size in enumerate(sizes)]
        self._buckets = [(rows, size) for rows, size in members if len(rows)]
        self.count = sum(-(-len(rows) // size) for rows, size in self._buckets)
        self.most = max(min(len(rows), size) for rows, size in self._buckets)

    def __call__(self, epoch: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
        """The batches, in random order."""
        batches = list[npt.NDArray[np.int64]]()
        for rows, size in self._buckets:
            shuffled = rng.permutation(rows)
            batches += [shuffled[start : start + size] for start in range(0, len(rows), size)]
        return [batches[place] for place in rng.permutation(len(batches))]

    def digest(self) -> str:
        """Distinguishes it from others of its kind."""
        return _digest(*(part for rows, size in self._buckets for part in (rows, size)))


@makes_order
def weighted(weights: Any, n: int | None = None, replacement: bool = True) -> WeightedOrder:
    """An order for `Loader(order=…)` that draws examples at random, those with larger weights more often.

    Each epoch is drawn anew. As `torch.utils.data.WeightedRandomSampler`.

    Args:
        weights: a number of at least 0 for each example of the source. They need not add up to 1.
        n: examples in an epoch; None for as many as the source has or, without replacement, for all whose weight is
            above 0.
        replacement: False to draw no example twice in an epoch: each next one is drawn by weight from those that are
            left (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).

    Raises:
        OptionError: a weight is negative, NaN or infinite, all are 0, or `n` does not fit.

    Example:
        >>> import stoker
        >>> order = stoker.weighted([0, 1, 0, 3], n=1000)
        >>> with stoker.Loader(list("abcd"), order=order, batch_size=1000, workers=0) as loader:
        ...     letters = next(iter(loader)).tolist()
        >>> sorted(set(letters)), 650 < letters.count(b"d") < 850
        ([b'b', b'd'], True)
    """
    found = _one_each("weighted", "weight", weights)
    if found.dtype.kind not in "biuf":
        raise OptionError(f"weighted: weights must be numbers, got {found.dtype}, such as {found.flat[0]!r}.")
    found = found.astype(np.float64)
    bad = ~(np.isfinite(found) & (found >= 0))
    if bad.any():
        place = int(np.argmax(bad))
        raise OptionError(
            f"weighted: weight {place} is {found[place]}. Weights must be finite and at least 0; 0 leaves an example "
            "out."
        )
    if not found.any():
        raise OptionError(f"weighted: all {len(found):,} weights are 0, so no example can be drawn.")
    n = None if n is None else whole("weighted: n", n, least=1)
    return WeightedOrder(found, n, flag("weighted: replacement", replacement))


@makes_order
def balanced(labels: Any) -> BalancedOrder:
    """An order for `Loader(order=…)` in which every class comes equally often, in random order.

    An epoch has about as many examples as the source: each of `k` classes gives `len(labels) // k`. Of a larger class,
    each epoch draws other examples. Those of a smaller class are repeated, each of them equally often (give or take
    one). Repetitions get random numbers of their own, so an augmentation differs.

    Args:
        labels: the class of each example of the source: numbers, strings or dates.

    Raises:
        OptionError: the labels are not one for each example.

    Example:
        >>> order = balanced(["cat"] * 6 + ["dog"] * 2)
        >>> np.bincount(order(epoch=0, rng=np.random.default_rng(5)) // 6).tolist()
        [4, 4]
    """
    is_array = hasattr(labels, "__array__")
    labels = list(labels) if isinstance(labels, Iterator) else labels  # which are read twice
    found = _one_each("balanced", "label", labels)
    if found.dtype.kind == "O" or (found.dtype.kind in "US" and not is_array):  # of which NumPy makes numbers too
        found = _of_one_kind(list(labels))
    missing = found != found if found.dtype.kind in "fc" else np.isnat(found) if found.dtype.kind in "mM" else None
    if missing is not None and missing.any():
        place = int(np.argmax(missing))
        raise OptionError(
            f"balanced: label {place} is {found[place]}. Make such examples a class of their own, or leave them out "
            "with an order of your own."
        )
    names, classes = np.unique(found, return_inverse=True)
    return BalancedOrder(classes.reshape(-1), len(names))


@makes_order
def bucketed(lengths: Any, boundaries: Sequence[float], batch_size: int | Sequence[int] = 32) -> BucketedOrder:
    """An order for `Loader(order=…)` of whole batches, each of examples of similar length, to pad little.

    Each epoch has every example once. Examples are shuffled within their bucket, and then the batches among each other.
    A bucket's last batch has fewer examples. Leave the Loader's `batch_size` out. The buckets are those of
    `tf.data.Dataset.bucket_by_sequence_length`.

    Args:
        lengths: the length of each example of the source.
        boundaries: increasing: the first bucket has lengths below the first boundary, the last one lengths from the
            last boundary on.
        batch_size: examples in a batch. Or one number for each bucket, `len(boundaries) + 1` in all.

    Raises:
        OptionError: a length is NaN, the boundaries do not increase, or the sizes do not fit.

    Example:
        >>> order = bucketed([3, 50, 4, 60, 5], boundaries=[10], batch_size=[3, 1])
        >>> sorted(sorted(batch.tolist()) for batch in order(epoch=0, rng=np.random.default_rng(5)))
        [[0, 2, 4], [1], [3]]
    """
    found = _one_each("bucketed", "length", lengths)
    if found.dtype.kind not in "iuf":
        raise OptionError(f"bucketed: lengths must be numbers, got {found.dtype}, such as {found.flat[0]!r}.")
    if found.dtype.kind == "f" and np.isnan(found).any():
        raise OptionError(f"bucketed: length {int(np.argmax(np.isnan(found)))} is nan.")
    edges = np.asarray(boundaries)
    if edges.ndim != 1 or (edges.size and (edges.dtype.kind not in "iuf" or not (np.diff(edges) > 0).all())):
        raise OptionError(f"bucketed: boundaries must be increasing numbers, got {boundaries!r:.200}")
    count = len(edges) + 1
    sizes = list(batch_size) if isinstance(batch_size, Sequence | np.ndarray) else [batch_size] * count
    sizes = [whole("bucketed: batch_size", size, least=1) for size in sizes]
    if len(sizes) != count:
        raise OptionError(
            f"bucketed: batch_size has {len(sizes)} numbers for {count} buckets. {len(edges)} boundaries make {count}."
        )
    return BucketedOrder(np.searchsorted(edges, found, side="right"), sizes)


def _one_each(what: str, noun: str, values: Any) -> npt.NDArray[Any]:
    """The values as an array with one for each example. Raises `OptionError`."""
    try:
        found = np.asarray(values if hasattr(values, "__array__") else list(values))
    except (TypeError, ValueError):
        raise OptionError(f"{what}: pass a sequence with one {noun} for each example, got {values!r:.200}") from None
    if found.ndim != 1:
        repair = " For one-hot labels, pass `labels.argmax(axis=1)`." if noun == "label" and found.ndim == 2 else ""
        raise OptionError(f"{what}: pass one {noun} for each example, got an array of shape {found.shape}.{repair}")
    if not len(found):
        raise OptionError(f"{what}: there are no {noun}s. Pass one for each example of the source.")
    return found


def _of_one_kind(labels: list[Any]) -> npt.NDArray[Any]:
    """The labels as an array. Raises `OptionError` if they are not of one of `_KINDS`."""
    kinds = [next((kind for kind in _KINDS if isinstance(label, kind)), None) for label in labels]
    other = next((place for place, kind in enumerate(kinds) if kind is None or kind is not kinds[0]), None)
    if other is not None:
        beside = f", but label 0 is {labels[0]!r:.80}" if other else ""
        raise OptionError(
            "balanced: labels must be of one type, all numbers, all strings or all dates. "
            f"Label {other} is {labels[other]!r:.80}{beside}."
        )
    return np.array(labels)


def _digest(*parts: Any) -> str:
    """A short digest of arrays and numbers."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        values = np.ascontiguousarray(part)
        found.update(f"{values.dtype.str}{values.shape}".encode())
        found.update(values.tobytes())
    return found.hexdigest()
