from __future__ import annotations

import math
import os
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stoker.structure.forms import Misfit, object_array
from stoker.structure.leaf import DTYPES
from stoker.structure.tensorproto import DTYPE_NUMBERS, header, string_tensor, tensor_bytes

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

dtypes = st.sampled_from(sorted(DTYPES)).map(lambda name: np.dtype(getattr(ml_dtypes, name, name)))
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
short = st.binary(max_size=9)


def serialized(array: npt.NDArray[Any], dtype: str) -> bytes:
    """What TensorFlow writes for `array`."""
    import tensorflow as tf

    return bytes(tf.io.serialize_tensor(tf.constant(array, dtype, array.shape)).numpy())


def parsed(message: bytes, dtype: str) -> npt.NDArray[Any]:
    """What TensorFlow reads from `message`."""
    import tensorflow as tf

    return np.array(tf.io.parse_tensor(message, dtype).numpy(), object if dtype == "string" else None)


def strings(values: list[bytes], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    return object_array(values).reshape(shape)


def numbers(dtype: np.dtype[Any], shape: tuple[int, ...], seed: int) -> npt.NDArray[Any]:
    """Any bits: NaNs, infinities and subnormals among them."""
    raw = np.random.default_rng(seed).bytes(math.prod(shape) * dtype.itemsize)
    bits = np.frombuffer(raw, np.uint8) & (1 if dtype == np.bool_ else 255)
    return np.ndarray(shape, dtype, bits.tobytes())


def test_each_dtype_has_the_number_that_tensorflow_gives_it() -> None:
    import tensorflow as tf

    assert {name: tf.as_dtype(name).as_datatype_enum for name in DTYPES | {"string"}} == DTYPE_NUMBERS


@settings(deadline=None)
@given(dtypes, shapes, st.integers(0, 2**32), st.booleans())
@example(np.dtype(np.float32), (300, 200), 0, False)  # sizes and lengths of several bytes
@example(np.dtype(np.bool_), (20_000,), 0, False)
@example(np.dtype(np.uint8), (128, *[1] * 31), 0, False)
def test_an_array_of_numbers_is_written_as_tensorflow_writes_it(
    dtype: np.dtype[Any], shape: tuple[int, ...], seed: int, transposed: bool
) -> None:
    array = numbers(dtype, shape, seed)
    array = array.T if transposed else array
    message = tensor_bytes(array)
    assert message == serialized(array, dtype.name)
    assert message == header(array.shape, dtype, array.nbytes) + array.tobytes()
    came = parsed(message, dtype.name)
    assert (came.dtype, came.shape, came.tobytes()) == (dtype, array.shape, array.tobytes())


@settings(deadline=None)
@given(
    shapes.flatmap(
        lambda shape: st.tuples(st.lists(short, min_size=(n := math.prod(shape)), max_size=n), st.just(shape))
    )
)
@example(([], (0,)))
@example(([bytes(size) for size in (126, 127, 128, 16_383, 16_384, 2_097_152)], (3, 2)))
def test_strings_are_written_as_tensorflow_writes_them(case: tuple[list[bytes], tuple[int, ...]]) -> None:
    values, shape = case
    message = string_tensor(values, shape)
    array = strings(values, shape)
    assert message == tensor_bytes(array) == serialized(array, "string")
    came = parsed(message, "string")
    assert (came.shape, came.reshape(-1).tolist()) == (shape, values)


@pytest.mark.parametrize("dtype", [">i2", ">f8", ">c8"])
def test_the_byte_order_of_an_array_does_not_show(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    assert tensor_bytes(array) == tensor_bytes(array.astype(array.dtype.newbyteorder("=")))


@pytest.mark.parametrize("dtype", [object, str, bytes])
def test_text_is_written_in_utf_8_whatever_array_holds_it(dtype: type) -> None:
    words = ["Wärme", "", "x"] if dtype is not bytes else ["Wärme".encode(), b"", b"x"]
    assert tensor_bytes(np.array(words, dtype)) == string_tensor(["Wärme".encode(), b"", b"x"], (3,))


def test_what_no_tensor_holds_is_refused() -> None:
    with pytest.raises(TypeError, match="'datetime64\\[s\\]' has no TensorProto"):
        tensor_bytes(np.zeros(2, "M8[s]"))
    with pytest.raises(Misfit, match="contains a dict"):
        tensor_bytes(object_array([{}]))
    with pytest.raises(ValueError, match=r"got 1 strings for shape \(2,\), which holds 2"):
        string_tensor([b"x"], (2,))
