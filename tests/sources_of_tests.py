"""Examples of every structure, sources of them, and code that kills its worker.

Workers import this module, so it imports no test tools and no TensorFlow. An example is a function of its
number, so that a test can tell what must come.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

import stoker

DTYPES: list[Any] = [
    *"bool int8 int16 int32 int64 uint8 uint16 uint32 uint64".split(),
    *"float16 float32 float64 complex64 complex128".split(),
    ml_dtypes.bfloat16,
]


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Record:
    name: Any
    inner: Any


class Capsule:
    """Speaks DLPack and nothing else."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


# ── examples by their number ─────────────────────────────────────────────────────────────────
def numbers(n: int) -> Any:
    """Python's numbers, NumPy's scalars, and an array of every dtype, in every container."""
    return {
        "python": [n % 2 == 0, n, n / 4, complex(n, 1)],
        "scalars": tuple(np.dtype(dtype).type(n % 2) for dtype in DTYPES),
        "arrays": [np.full((2, 1), n % 2, dtype) for dtype in DTYPES],
        "point": Point(np.float32(n), {"deep": Record(np.int16(n), (None, np.arange(n, n + 3)))}),
        "nothing": None,
        "none of two": (None, n),
        "empty": np.zeros((0, 3), np.float32),
        "other byte order": np.array([n, 1], ">i4"),
        "not contiguous": np.arange(n, n + 6).reshape(2, 3).T,
    }


def texts(n: int) -> Any:
    """Strings in every form: the longest are ten times as long as the shortest."""
    text, data = "ü" * (n % 10 + 1), b"\0\xff" * (n % 4)
    forms = {
        "str": text,
        "bytes": data,
        "np.str_": np.str_(text),
        "np.bytes_": np.bytes_(b"x" * n),
        "S": np.array([[b"a" * n, b"b"]], "S"),
        "U": np.array([text, ""]),
        "objects": np.array([[text], [data], [""]], object),
        "scalar object": np.array(text, object),
    }
    if hasattr(np.dtypes, "StringDType"):
        forms["StringDType"] = np.array([text, "z"], np.dtypes.StringDType())
    return forms


def foreign(n: int) -> Any:
    """What other libraries make."""
    import scipy.sparse
    from PIL import Image

    dense = np.zeros((4, 3), np.float32)
    dense[n % 4, n % 3] = n + 1
    dense[n % 2, 1] = 7
    twice = scipy.sparse.coo_matrix(([1, n, 2], ([0, 0, 1], [2, 2, 0])), shape=(2, 3))
    return {
        "csr": scipy.sparse.csr_matrix(dense),
        "csc array": scipy.sparse.csc_array(dense),
        "coo with one cell twice": twice,
        "grey": Image.fromarray(np.full((3, 2), n % 256, np.uint8)),
        "colours": Image.fromarray(np.full((3, 2, 3), n % 256, np.uint8)),
        "dlpack": Capsule(np.arange(n, n + 2, dtype=np.float64)),
    }


def varying(n: int) -> Any:
    """Leaves of no fixed size; some are empty, the first of all too."""
    parts = np.empty(n % 3, object)
    for place in range(n % 3):
        parts[place] = np.arange(place + n % 2, dtype=np.int16)
    return {
        "ids": np.arange(n % 5, dtype=np.int32) + n,
        "grid": np.full((n % 3, (n + 1) % 4), n, np.float32),
        "rows": np.full((n % 4, 2), n % 256, np.uint8),
        "words": np.array(["w" * place for place in range(n % 3)], object),
        "tokens": [n] * (n % 4),
        "lists": [[n] * place for place in range(n % 4)],
        "names": [["ä" * place] * place for place in range(n % 3)],
        "parts": parts,
        "label": n,
        "fixed": np.array([n, n + 1]),
    }


def everything(n: int) -> Any:
    return [numbers(n), texts(n), foreign(n)]


def single(n: int) -> Any:
    """What has another size in each example, without a batch."""
    import scipy.sparse

    leaves = varying(n)
    return (
        leaves["ids"],
        leaves["grid"],
        leaves["words"],
        None,
        leaves["parts"],
        ("ü" * n, b"\xff" * n, n),
        scipy.sparse.coo_array(np.eye(3, k=n % 3)),
    )


def example(kind: str, n: int) -> Any:
    """The example of this kind (a function above) with this number."""
    return globals()[kind](int(n))


# ── sources of them ──────────────────────────────────────────────────────────────────────────
LENGTH = 23
SHARDS = [9, 0, 4, 7, 3]  # examples in each


class ByIndex:
    def __init__(self, make: Callable[[int], Any], length: int) -> None:
        self.make, self.length = make, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def shard_numbers(shard: int) -> range:
    start = sum(SHARDS[:shard])
    return range(start, start + SHARDS[shard])


def generate(make: Callable[[int], Any], shard: stoker.Shard) -> Iterator[Any]:
    for n in shard_numbers(shard.index):
        yield make(n)


def iterate(make: Callable[[int], Any]) -> Iterator[Any]:
    return (make(n) for n in range(LENGTH))


def source(how: str, make: Callable[[int], Any]) -> tuple[Any, Callable[..., Any] | None]:
    """A source that makes `LENGTH` examples in this way, and the transform that it needs for it."""
    match how:
        case "map":
            return ByIndex(make, LENGTH), None
        case "arrays":
            return stoker.from_arrays(np.arange(LENGTH)), make
        case "generator":
            return stoker.from_generator(functools.partial(generate, make), shards=len(SHARDS), open_shards=2), None
        case "iterable":
            return stoker.from_iterable(functools.partial(iterate, make)), None
    raise AssertionError(how)


# ── user code with a will of its own ─────────────────────────────────────────────────────────
def die_once(flag: Path) -> None:
    """Kill this process, if no one has done so before."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    """Makes examples as `make` does, and dies once: when it makes the one with number `at` for the second time.

    The first time may be the look at what examples are like.
    """

    def __init__(self, make: Callable[[Any], Any], at: int, flag: Path) -> None:
        self.make, self.at, self.flag = make, at, flag

    def __call__(self, n: Any) -> Any:
        if n == self.at:
            if self.flag.with_suffix(".seen").exists():
                die_once(self.flag)
            self.flag.with_suffix(".seen").touch()
        return self.make(n)


class Resuming:
    """An iterator that tells its state, notes what it reads, and dies once."""

    def __init__(self, shard: stoker.Shard, length: int, at: int, folder: Path) -> None:
        self.shard, self.length, self.at, self.folder, self.next = shard.index, length, at, folder, 0

    def __iter__(self) -> Resuming:
        return self

    def __next__(self) -> int:
        if self.next == self.length:
            raise StopIteration
        if self.shard == 0 and self.next == self.at:
            die_once(self.folder / "died")
        with (self.folder / f"read-{self.shard}").open("a") as notes:
            notes.write(f"{self.next}\n")
        self.next += 1
        return 1000 * self.shard + self.next - 1

    def state_dict(self) -> dict[str, int]:
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.next = state["next"]


def plainly(n: Any) -> int:
    return int(n)


def odd(n: Any) -> Any:
    """Leaves out every third, and puts up to four in the place of one."""
    n = int(n)
    if n % 3 == 0:
        return stoker.SKIP
    return stoker.Many(100 * n + place for place in range(n % 5)) if n % 3 == 1 else 100 * n


def secretly_odd(n: Any) -> Any:
    """The same, in a way that cannot be seen from outside."""
    return globals()["od" + "d"](n)


# ── single purposes ──────────────────────────────────────────────────────────────────────────
SIZES = [1, 1_000, 200 << 20, 3, 5_000_000, 1]


def lengths(examples: list[Any]) -> Any:
    """A collate function."""
    return {
        "count": np.array([len(one["ids"]) for one in examples]),
        "all": np.concatenate([one["ids"] for one in examples]),
    }


def large(n: int) -> Any:
    import scipy.sparse

    n = int(n)
    return {
        "text": "x" * (100_000 + n),
        "words": np.array(["word"] * (2_000 + n)),
        "ragged": np.full((50 + n % 7, 60 + n % 5), n),
        "lists": [[n] * (n % 9)] * 100,
        "sparse": scipy.sparse.random(200, 200, 0.2, random_state=n),
    }


def of_size(n: int) -> Any:
    array = np.empty(SIZES[n], np.uint8)
    array[0], array[-1] = n, n
    return array


def sized(shard: Any) -> Iterator[Any]:
    for n in range(3 * shard.index, 3 * shard.index + 3):
        yield of_size(n)


def plain_shard(shard: stoker.Shard) -> Iterator[int]:
    yield from shard.split(range(10))


def endless(shard: stoker.Shard) -> Iterator[int]:
    yield from itertools.count(shard.index, shard.count)


def resuming(folder: Path, shard: stoker.Shard) -> Any:
    return Resuming(shard, 60, 50, folder)


def fickle(kind: str, flag: Path, shard: stoker.Shard) -> Iterator[Any]:
    """Dies, long after the look at its first examples; when it is read again it yields something else."""
    again = flag.exists()
    for n in range(5 if again and kind == "shorter" else 80):
        if n == 60:
            die_once(flag)
        yield one_of_a_kind(kind, n + again)


def one_of_a_kind(kind: str, n: int) -> Any:
    import scipy.sparse
    from PIL import Image

    return {
        "numbers": lambda: n,
        "shorter": lambda: 0,
        "arrays": lambda: {"x": np.full(3, n), "y": (0, None)},
        "long arrays": lambda: np.append(np.zeros(30_000), n),
        "texts": lambda: [str(n), np.array([str(n)])],
        "objects": lambda: np.array(["a", str(n)], object),
        "images": lambda: Image.fromarray(np.full((3, 3), n, np.uint8)),
        "sparse": lambda: scipy.sparse.csr_matrix(np.eye(2) * (n + 1)),
    }[kind]()


def without_a_parameter() -> Iterator[int]:
    yield 1


def skip(example: Any) -> Any:
    return stoker.SKIP


def tensors(n: int) -> Any:
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return {
        "dense": tf.fill((2, 3), float(n)),
        "texts": tf.constant(["é" * n, "b"]),
        "ragged": tf.ragged.constant([[n] * (n % 3), [1], []], dtype=tf.int32),
        "deeper": tf.ragged.constant([[[n], []], [], [[1, 2]]][: n % 3 + 1], ragged_rank=2, dtype=tf.int64),
        "sparse": tf.sparse.from_dense([[0, n], [1, 0]]),
        "words": tf.sparse.SparseTensor([[0, 1]], ["w" * n], (1, 2)),
        **{str(np.dtype(dtype)): tf.cast(n % 2, np.dtype(dtype)) for dtype in DTYPES},
    }


def endless_pairs(shard: stoker.Shard) -> Iterator[Any]:
    for n in itertools.count():
        yield np.full(2, n, np.float32), np.float32(0)
