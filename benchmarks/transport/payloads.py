"""The batches that travel, and what the trainer does with each: look at every 512th byte."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Kind = tuple[tuple[int, ...], np.dtype[Any]]

#: Batches of differing content that the worker sends in turn, so that a stale one is seen.
READY = 3
_STRIDE = 512


class Payload(ABC):
    """One kind of batch.

    Attributes:
        name: what tables call it.
        kinds: shape and dtype of each array that it can be taken apart into; first dimensions are upper bounds.
    """

    name: str
    kinds: Sequence[Kind]

    @abstractmethod
    def make(self, random: np.random.Generator) -> Any:
        """A batch with random content."""

    @abstractmethod
    def leaves(self, batch: Any) -> list[Array]:
        """The batch as arrays."""

    @abstractmethod
    def batch(self, leaves: Sequence[Array]) -> Any:
        """The batch from arrays, which may be longer than what was put there."""

    def ready(self) -> list[Any]:
        """The batches that are sent: the same ones in each process that asks."""
        random = np.random.default_rng(0)
        return [self.make(random) for _ in range(READY)]

    def tensors(self, batch: Any) -> list[Any]:
        """The batch as what TensorFlow makes one tensor of each."""
        return self.leaves(batch)

    def from_tensors(self, values: Sequence[Array]) -> Any:
        """The batch from its tensors' values."""
        return self.batch(values)

    def nbytes(self, batch: Any) -> int:
        """Bytes of content."""
        return sum(leaf.nbytes for leaf in self.leaves(batch))

    def touch(self, batch: Any) -> int:
        """What the trainer does with a batch: the sum of every 512th byte, so that each page is read."""
        leaves = self.leaves(batch)
        return sum(int(leaf.reshape(-1).view(np.uint8)[::_STRIDE].sum(dtype=np.int64)) for leaf in leaves)

    def same(self, batch: Any, other: Any) -> bool:
        """Whether two batches are equal in structure, shapes, dtypes and every value."""
        pairs = list(zip(self.leaves(batch), self.leaves(other), strict=True))
        return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


class Floats(Payload):
    """One float32 array."""

    def __init__(self, name: str, nbytes: int) -> None:
        self.name = name
        self.kinds = [((nbytes // 4,), np.dtype(np.float32))]

    def make(self, random: np.random.Generator) -> Any:
        return random.random(self.kinds[0][0], np.float32)

    def leaves(self, batch: Any) -> list[Array]:
        return [batch]

    def batch(self, leaves: Sequence[Array]) -> Any:
        return leaves[0]


class Images(Payload):
    """A tuple of a dict (64 images of 64×64×3 bytes, 64 vectors of 128 floats) and 64 labels."""

    name = "nested"
    kinds = (
        ((64, 64, 64, 3), np.dtype(np.uint8)),
        ((64, 128), np.dtype(np.float32)),
        ((64,), np.dtype(np.int64)),
    )

    def make(self, random: np.random.Generator) -> Any:
        leaves = [random.integers(0, 256, shape).astype(dtype) for shape, dtype in self.kinds]
        return self.batch(leaves)

    def leaves(self, batch: Any) -> list[Array]:
        features, labels = batch
        return [features["image"], features["vector"], labels]

    def batch(self, leaves: Sequence[Array]) -> Any:
        image, vector, labels = leaves
        return {"image": image, "vector": vector}, labels


class Texts(Payload):
    """A list of 64 texts of 10 to 400 bytes; as arrays, where each ends and all of them in one."""

    name = "texts"
    kinds = (((65,), np.dtype(np.int64)), ((64 * 400,), np.dtype(np.uint8)))

    def make(self, random: np.random.Generator) -> Any:
        return [random.bytes(length) for length in random.integers(10, 401, 64)]

    def leaves(self, batch: Any) -> list[Array]:
        offsets = np.fromiter(accumulate(map(len, batch), initial=0), np.int64, len(batch) + 1)
        return [offsets, np.frombuffer(b"".join(batch), np.uint8)]

    def batch(self, leaves: Sequence[Array]) -> Any:
        offsets = leaves[0].tolist()
        blob = leaves[1][: offsets[-1]].tobytes()
        return [blob[start:stop] for start, stop in pairwise(offsets)]

    def tensors(self, batch: Any) -> list[Any]:
        return [np.array(batch, object)]

    def from_tensors(self, values: Sequence[Array]) -> Any:
        return values[0].tolist()

    def nbytes(self, batch: Any) -> int:
        return sum(map(len, batch))

    def touch(self, batch: Any) -> int:
        """A text is shorter than 512 bytes: the sum of the lengths and of the first bytes."""
        return sum(len(text) + text[0] for text in batch)

    def same(self, batch: Any, other: Any) -> bool:
        return bool(batch == other)


FLOATS = (
    Floats("1 kB", 1_000),
    Floats("16 kB", 16_000),
    Floats("256 kB", 256_000),
    Floats("4 MB", 4_000_000),
    Floats("64 MB", 64_000_000),
)
PAYLOADS: dict[str, Payload] = {payload.name: payload for payload in (*FLOATS, Images(), Texts())}
